r"""The change of pass@k by a step that is taken, from new samples of a model.

Samples are paired over prompts: the same prompts, completions drawn at :math:`\theta` and, from
weights that are moved, at :math:`\theta + \eta v`. Both are drawn anew. Those that v was made from
say nothing: v is the direction in which just they look better. Those that the prediction was made
from are independent of v, so that the change would be unbiased with them. But its error would
depend on that of the prediction: a step that is taken because they look well would be judged by the
luck that made them look so. For "new" prompts only the prompts of half B are used, which v does not
know.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.central import Displacement
from passgrad.lm.models import is_adapter, load_tokenizer, resolve, save_model
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.measurement.drawing import Blocks
from passgrad.measurement.second_order import ModelSteps
from passgrad.measurement.step import StepPrediction
from passgrad.progress import Progress, Silent
from passgrad.rollouts.sampling import Engine
from passgrad.stats.bands import Array, IntArray
from passgrad.stats.interval import Interval
from passgrad.stats.intervals import Prompts
from passgrad.stats.paired import paired_change
from passgrad.tasks.base import Task

if TYPE_CHECKING:
    from pandas import DataFrame

# Apart from the seed of the measurement and from each other, by more than there are blocks.
_SEED_BEFORE, _SEED_AFTER = 1_000_000_007, 2_000_000_011


@dataclass(frozen=True, eq=False)
class RealisedStep:
    """pass@k before and after a step, (K,)."""

    ks: IntArray
    before: Array
    after: Array
    change: Interval
    """After minus before, at each k by itself and with a band for all at once."""
    num_prompts: int
    num_samples: int
    """Completions a prompt, at either side."""

    def to_frame(self) -> DataFrame:
        """One row a k."""
        import pandas as pd

        sides = {"k": self.ks.astype(np.float64), "before": self.before, "after": self.after}
        return pd.DataFrame(sides | self.change.columns("change"))


@dataclass(frozen=True, eq=False)
class TakenStep:
    """A step that was predicted, and what it did."""

    prediction: StepPrediction
    realised: RealisedStep

    @property
    def verdict(self) -> str:
        """What the step was predicted to do to pass@1 and pass@k, and what it did."""
        return self.prediction.told(self.realised.ks, self.realised.change)

    def to_frame(self) -> DataFrame:
        """One row a k: the prediction, and what the step did in columns ``realised_...``."""
        taken = self.realised.to_frame()
        taken = taken.rename(columns={name: f"realised_{name}" for name in taken if name != "k"})
        return self.prediction.to_frame().merge(taken, on="k", how="left")


@dataclass(frozen=True)
class NewSamples:
    """The completions that show what a step did, at either side of it."""

    num_samples: int
    """A prompt; at least the largest k."""
    engine: Engine = "auto"
    law: Sampling = field(default_factory=Sampling)


def verify_step(
    prediction: StepPrediction,
    steps: ModelSteps,
    model: str | Path,
    task: Task,
    folder: Path,
    *,
    samples: NewSamples,
    progress: Progress | None = None,
) -> RealisedStep:
    """Take the step that was predicted, and measure the changes from new samples.

    :param steps: The samples that the prediction was made from; their model is moved for as long as
        it takes to write the moved weights, and put back bit for bit.
    :param model: The name or folder of that model.
    :param task: The prompts of the measurement, in its order.
    :param folder: Of the measurement. Completions are kept in ``step-.../``, a block at a time, and
        the moved model beside them until they are all drawn.
    :param samples: What is drawn.
    :raises UserError: For prompts that do not fit the measurement, masses that are not equal, too
        few completions, an adapter, and all that sampling refuses.
    """
    made, num_samples, engine = prediction.derivatives, samples.num_samples, samples.engine
    size = steps.rewards.shape[0]
    if len(task.prompts) != size:
        raise UserError(f"{len(task.prompts)} prompts are given for a measurement of {size}")
    if num_samples < max(made.ks):
        raise UserError(
            f"{num_samples} completions do not show pass@{max(made.ks)}: draw at least as many as k"
        )
    if not torch.allclose(steps.masses, torch.full_like(steps.masses, 1 / size)):
        raise UserError("a step is verified on prompts that count alike; give no masses")
    show, base = progress or Silent(), samples.law
    some = replace(task, prompts=tuple(task.prompts[i] for i in made.prompts_used.tolist()))
    here = folder / f"step-{prediction.along}-{prediction.eta:.6e}"
    before = _drawn(
        Blocks(
            str(model), some, num_samples, engine,
            replace(base, seed=base.seed + _SEED_BEFORE), here / "before",
        ), show, "drawing completions before the step",
    )  # fmt: skip
    moved = here / "model"
    drawing = Blocks(
        str(moved), some, num_samples, engine,
        replace(base, seed=base.seed + _SEED_AFTER), here / "after",
    )  # fmt: skip
    if drawing.missing() and not (moved / "config.json").is_file():
        vector = steps.vector(made.coefficients)
        save_moved(steps.passes, vector, prediction.eta, model, moved)
    after = _drawn(drawing, show, "drawing completions after the step")
    shutil.rmtree(moved, ignore_errors=True)
    return realised_from_counts(
        before.num_correct, after.num_correct, num_samples, made.ks,
        prompts=prediction.prompts, level=prediction.level,
    )  # fmt: skip


def realised_from_counts(
    before: Array | Sequence[int],
    after: Array | Sequence[int],
    num_samples: int,
    ks: Sequence[int],
    *,
    prompts: Prompts = "new",
    level: float = 0.95,
) -> RealisedStep:
    """The changes of pass@k from the right answers to the same prompts, (P,) before and after."""
    sizes = np.full(len(before), num_samples)
    joint = paired_change(sizes, before, after, list(ks), level=level, prompts=prompts)
    single = [
        paired_change(sizes, before, after, [k], level=level, prompts=prompts) for k in joint.ks
    ]
    return RealisedStep(
        ks=joint.ks,
        before=joint.before,
        after=joint.after,
        change=Interval(
            joint.change,
            low=np.concatenate([change.low for change in single]),
            high=np.concatenate([change.high for change in single]),
            band_low=joint.low,
            band_high=joint.high,
        ),
        num_prompts=len(sizes),
        num_samples=num_samples,
    )


def save_moved(
    passes: CompletionPasses, vector: Tensor, eta: float, model: str | Path, place: Path
) -> Path:
    """Write the model at theta + eta v as a folder that every engine reads; it is put back after.

    :raises UserError: For an adapter, and weights in less than float32.
    """
    source = resolve(model)
    if is_adapter(source):
        raise UserError(
            "the step of an adapter cannot be taken yet; merge it into the model and measure that, "
            "or leave the verification out"
        )
    if passes.layout.dtype.itemsize < 4:
        raise UserError(
            "a step is smaller than the last place of the weights: load them in float32"
        )
    named = passes.layout.parameters(passes.model)
    views = passes.layout.views(vector.to(passes.model.device))
    with Displacement(named, views) as moved:
        moved.to(eta)
        return save_model(passes.model, load_tokenizer(source), place)


def _drawn(drawing: Blocks, show: Progress, stage: str) -> Rollouts:
    drawing.draw(drawing.missing(), show, stage)
    return drawing.rollouts()
