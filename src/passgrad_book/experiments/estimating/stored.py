"""Coverage of the intervals and comparison of the methods: what the chapter on estimates stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.estimate import estimate_conflict
from passgrad.measurement.store import StoredPasses
from passgrad.objectives import PassAtK
from passgrad.tasks.conventions import conventions
from passgrad.worlds.bandit import Bandit, GaussianBandit
from passgrad_book.build.experiment import (
    DOUBLE,
    SINGLE,
    Tolerance,
    experiment,
    model_input,
    scratch,
)
from passgrad_book.experiments.estimating.answers import AnswerLaw, language_answers
from passgrad_book.experiments.estimating.comparison import compare_methods
from passgrad_book.experiments.estimating.coverage import simulate_conflict_coverage
from passgrad_book.experiments.small_models.small_language import small_language_world
from passgrad_book.experiments.small_models.witness_model import witness_model
from passgrad_book.experiments.two_conventions import two_conventions_world

if TYPE_CHECKING:
    import pandas as pd

#: these columns are rounding errors themselves: only their size is a number of the experiment
ROUNDING = Tolerance(1e6, "a rounding error; that it is one is checked by the chapter")
#: reading of the prompts, split, number of prompts drawn, answers a prompt
Case = tuple[Any, Any, int | None, int]


def _coverage(
    law: Bandit | AnswerLaw,
    theta: Sequence[float] | Tensor | None,
    cases: Sequence[Case],
    ks: Sequence[int],
    *,
    replications: int,
    seed: int,
    block: int,
) -> pd.DataFrame:
    """:func:`simulate_conflict_coverage` for several cases, one below the other."""
    import pandas as pd

    tables = []
    for prompts, split, size, n in cases:
        table = simulate_conflict_coverage(
            law, theta, n, ks, replications=replications, seed=seed, block=block,
            prompts=prompts, split=split, num_prompts=size,
        )  # fmt: skip
        tables.append(table.assign(prompts=prompts, split=split, size=size, n=n))
    return pd.concat(tables, ignore_index=True)


@experiment(version=1, label="seed-{seed}")
def coverage_bandit(
    *, seed: int, theta: Sequence[float], num_easy: int, num_hard: int, replications: int
) -> Mapping[str, pd.DataFrame]:
    """How often the intervals hold the truth in two bandits: ``num_easy`` and ``num_hard`` prompts
    that are asked again (fixed), and prompts drawn from a continuous law (new).
    """
    import pandas as pd

    options: dict[str, Any] = {"replications": replications, "seed": seed, "block": 250}
    ks = [1, 2, 4]
    wide = GaussianBandit(0.2, 0.2)
    world = wide.sample(num_easy, num_hard, seed=7)
    fixed = _coverage(world, theta, [("fixed", None, None, n) for n in (16, 32)], ks, **options)
    cases: list[Case] = [("new", split, 150, 24) for split in ("prompts", "completions")]
    return {"coverage": pd.concat([fixed, _coverage(wide, theta, cases, ks, **options)])}


@experiment(version=1, label="seed-{seed}")
def coverage_language(
    *,
    base: int,
    ks: Sequence[int],
    fixed_samples: Sequence[int],
    new_prompts: Sequence[int],
    replications: int,
    seed: int,
) -> Mapping[str, pd.DataFrame]:
    """The same in a small language model, through the law of its answers.

    Tables: ``coverage``; ``checks``, the largest gaps between the law of answers and passes over
    completions, and between its exact products and those of the world.
    """
    import pandas as pd

    world = small_language_world(base=base)
    law = language_answers(world, max_new_tokens=2)
    difference = 0.0
    for turn in range(3):
        drawn = law.sample(16, seed=turn)
        passes = CompletionPasses(
            world.model, law.completions(drawn.answers), drawn.rewards, world.masses
        )
        from_law, from_passes = (
            estimate_conflict(samples, [1, 4], prompts="fixed")
            for samples in (drawn, StoredPasses(passes, None))
        )
        for name in ("curve", "standard_error", "squared_norm"):
            one, other = getattr(from_law, name), getattr(from_passes, name)
            difference = max(difference, float(np.abs(one - other).max() / np.abs(other).max()))
    exact = conflict(world, None, ks).inner_product
    truth = float((law.conflict(ks).inner_product - exact).abs().max())
    cases: list[Case] = [("fixed", None, None, n) for n in fixed_samples]
    cases += [("new", "prompts", m, 16) for m in new_prompts]
    cases += [("new", "completions", new_prompts[-1], 16)]
    return {
        "coverage": _coverage(law, None, cases, ks, replications=replications, seed=seed, block=50),
        "checks": pd.DataFrame({"two ways": [difference], "truth": [truth]}),
    }


@experiment(version=1, label="seed-{seed}", inputs=model_input)
def compared_methods(
    *,
    model: str,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    num_samples: int,
    ks: Sequence[int],
    replications: int,
    seed: int,
) -> Mapping[str, pd.DataFrame]:
    """The cross-fit, the same-sample and the plug-in estimate on completions of a language model,
    behind the warm-up of the two conventions, and the exact curve.

    Tables: those of :func:`~passgrad_book.experiments.estimating.comparison.compare_methods`, and
    ``exact`` and ``prompts`` of :class:`passgrad.interference.Conflict`.
    """
    world = two_conventions_world(
        model=model, num_prompts=num_prompts, num_examples=num_examples,
        hard_fraction=hard_fraction, seed=seed,
    )  # fmt: skip
    task = conventions(num_prompts=(num_prompts,) * 2, num_examples=num_examples, seed=seed)
    before = world.own_parameters()
    warm = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps).theta
    curve = conflict(world, warm, ks)
    world.layout.load(world.model, warm)
    tables = compare_methods(
        world, ks, num_samples=num_samples, max_new_tokens=task.max_new_tokens,
        replications=replications, seed=seed,
        # The passes of each set are kept, so that a run that was killed goes on.
        folder=scratch(compared_methods, seed, num_prompts, warmup_steps, num_samples),
    )  # fmt: skip
    world.layout.load(world.model, before)
    return {**tables, "exact": curve.to_frame(), "prompts": curve.prompts_frame()}


coverage_bandit.witnessed(
    seed=0, theta=[-1.0, 0.0], num_easy=6, num_hard=2, replications=20, tolerance=DOUBLE
)
coverage_language.witnessed(
    base=2, ks=[1, 2], fixed_samples=[8], new_prompts=[20], replications=4, seed=0,
    tolerance=SINGLE, columns={"checks.two ways": ROUNDING, "checks.truth": ROUNDING},
)  # fmt: skip
compared_methods.witnessed(
    model=witness_model, num_prompts=2, num_examples=2, hard_fraction=0.3, warmup_steps=6,
    warmup_step_size=1.0, num_samples=64, ks=[1, 2], replications=1, seed=0, tolerance=SINGLE,
)  # fmt: skip
