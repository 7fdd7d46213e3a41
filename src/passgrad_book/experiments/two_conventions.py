"""The two conventions: sums in base 10 and in base 9, exact in a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.ascent.ascent import Direction, ascend
from passgrad.interference import conflict
from passgrad.lm.models import load_model
from passgrad.objectives import Objective, PassAtK
from passgrad.progress import Progress
from passgrad.tasks.conventions import STOP, conventions
from passgrad.worlds.base import World
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build.experiment import SINGLE, experiment, model_input

if TYPE_CHECKING:
    from pandas import DataFrame


def two_conventions_world(
    *, model: str, num_prompts: int, num_examples: int, hard_fraction: float, seed: int
) -> LanguageWorld:
    """``num_prompts`` sums asked in base 10, which have the mass ``1 - hard_fraction`` together,
    and as many in base 9, behind worked examples. ``seed`` draws sums and examples.
    """
    network, tokenizer = load_model(model)
    counts = (num_prompts, num_prompts)
    task = conventions(num_prompts=counts, num_examples=num_examples, seed=seed)
    shares = torch.tensor([1 - hard_fraction, hard_fraction], dtype=torch.float64) / num_prompts
    masses = shares.repeat_interleave(num_prompts)
    return LanguageWorld(network, tokenizer, task.prompts, stop=STOP, masses=masses)


def compare_ascents(
    world: World,
    theta: Tensor | Sequence[float] | None,
    objectives: Sequence[Objective | Direction],
    *,
    ks: Sequence[float],
    step_size: float,
    steps: int,
    progress: Progress | None = None,
) -> DataFrame:
    """J_k along exact ascent on each objective, or along each direction, from the same theta, for
    every k in ``ks``.

    One row an objective (its label), step (0 to ``steps``), k and group of prompts; the group
    ``"all"`` is the whole prompt law. Every objective takes steps of the same ``step_size`` along
    its own gradient.

    :raises UserError: As :func:`~passgrad.ascent.ascent.ascend` does.
    """
    import pandas as pd

    rows = []
    for objective in objectives:
        trace = ascend(world, theta, objective, step_size=step_size, steps=steps, progress=progress)
        for k in ks:
            for group, values in {"all": trace.pass_at_k(k), **trace.group_pass_at_k(k)}.items():
                rows += [
                    (objective.label, step, k, group, value)
                    for step, value in enumerate(values.tolist())
                ]
    return pd.DataFrame(rows, columns=["objective", "step", "k", "group", "pass_at_k"])


@experiment(version=1, label="seed-{seed}", inputs=model_input)
def two_conventions(
    *,
    model: str,
    seed: int,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    ks: Sequence[int],
    ascent_ks: Sequence[int],
    ascent_steps: int,
    ascent_step_size: float,
) -> Mapping[str, DataFrame]:
    """The conflict behind a warm-up on pass@1, and exact ascents of several orders from there.

    Tables: ``conflict`` and ``prompts`` of :class:`passgrad.interference.Conflict`, ``ascents`` of
    :func:`compare_ascents`.
    """
    world = two_conventions_world(
        model=model, num_prompts=num_prompts, num_examples=num_examples,
        hard_fraction=hard_fraction, seed=seed,
    )  # fmt: skip
    warm = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps).theta
    measured = conflict(world, warm, ks=ks)
    ascents = compare_ascents(
        world, warm, [PassAtK(k) for k in ascent_ks], ks=ascent_ks,
        step_size=ascent_step_size, steps=ascent_steps,
    )  # fmt: skip
    return {
        "conflict": measured.to_frame(),
        "prompts": measured.prompts_frame(),
        "ascents": ascents,
    }


two_conventions.witnessed(
    model="smollm2-135m", seed=0, num_prompts=2, num_examples=2, hard_fraction=0.3,
    warmup_steps=1, warmup_step_size=0.001, ks=[1, 10], ascent_ks=[10], ascent_steps=1,
    ascent_step_size=0.0002, tolerance=SINGLE,
)  # fmt: skip
