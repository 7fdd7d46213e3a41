"""The stored result of the training study: one record a regime, seed and learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from passgrad.errors import UserError
from passgrad_book.build.experiment import Tolerance, experiment
from passgrad_book.experiments.study.arms import ARMS
from passgrad_book.experiments.study.starts import checkpoint
from passgrad_book.experiments.study.training import train
from passgrad_book.experiments.study.words import REGIMES, prompt_sets

if TYPE_CHECKING:
    from pandas import DataFrame

#: prompts of each set; no word is in both
SIZES = {"train": 256, "held": 256}


def _label(given: Mapping[str, Any]) -> str:
    return f"{given['regime']}-seed-{given['seed']}-rate-{given['learning_rate']:.0e}"


@experiment(version=1, label=_label)
def training_study(
    *,
    regime: str,
    seed: int,
    learning_rate: float,
    steps: int,
    arms: Sequence[str],
    supervised_steps: int = 600,
) -> Mapping[str, DataFrame]:
    """All arms of one regime from the checkpoint of one seed.

    ``readings``: one row a reading of an arm, the columns of
    :func:`~passgrad_book.experiments.study.training.train`, the arm in front.
    """
    if regime not in REGIMES:
        raise UserError(f"there is no regime {regime!r}; there are: {', '.join(REGIMES)}")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise UserError(f"there is no arm {unknown[0]!r}; there are: {', '.join(ARMS)}")
    start = checkpoint(seed, steps=supervised_steps)
    sets = prompt_sets(regime, SIZES, seed)
    runs = []
    for arm in arms:
        readings, _ = train(start, sets, arm, seed=seed, steps=steps, learning_rate=learning_rate)
        readings.insert(0, "arm", arm)
        runs.append(readings)
    return {"readings": pd.concat(runs, ignore_index=True)}


training_study.witnessed(
    regime="hidden", seed=200, learning_rate=2e-4, steps=6, supervised_steps=30,
    arms=["pass@1", "pass@8, n = k", "annealed", "RS-GRPO", "CurveRL", "half of the gain, Adam"],
    tolerance=Tolerance(2e-3, "a few steps of float32 on sampled batches"),
)  # fmt: skip
training_study.full["*"] = Tolerance(
    1.0, "a thousand sampled steps: one answer that is drawn otherwise makes another run"
)
