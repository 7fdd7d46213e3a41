"""How often the intervals hold the truth: measured where it is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.interference import Conflict, conflict
from passgrad.measurement import influence as terms
from passgrad.measurement.crossfit import Split, cross_fit
from passgrad.measurement.samples import SampledGradients, sample_bandit
from passgrad.stats.bands import Array, band, intervals, standard_error, threshold_interval
from passgrad.stats.binomial import success_interval
from passgrad.stats.intervals import Prompts, check_prompts
from passgrad.worlds.bandit import Bandit
from passgrad_book.experiments.estimating.answers import AnswerLaw

if TYPE_CHECKING:
    import pandas as pd

#: Makes so many independent samples, in an axis in front, from a seed.
Draw = Callable[[int, int], SampledGradients]


def simulate_conflict_coverage(
    world: Bandit | AnswerLaw,
    theta: Tensor | Sequence[float] | None,
    num_samples: int,
    ks: Sequence[int],
    *,
    num_prompts: int | None = None,
    prompts: Prompts = "new",
    split: Split | None = None,
    estimator: str | Estimator = "pkpo-loo1",
    replications: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 4000,
    block: int = 250,
) -> pd.DataFrame:
    """The share of replications whose intervals hold <grad J_k, grad J_1>, one row a target.

    ``world`` is a bandit at ``theta``, or a law of answers
    (:mod:`passgrad_book.experiments.estimating.answers`), which is at one theta already. For "new"
    prompts, ``num_prompts`` of them are drawn from the world's masses in each replication, and the
    truth is that of the whole world; for "fixed" ones the world's own prompts are asked
    ``num_samples`` times in each, and the truth is theirs. The columns are those of
    :func:`conflict_coverage`. Raises UserError as :func:`passgrad.measurement.estimate_conflict`.
    """
    check_prompts(prompts)
    if (prompts == "new") != (num_prompts is not None):
        raise UserError("num_prompts is needed for new prompts, and none is drawn for fixed ones")

    def draw(count: int, number: int) -> SampledGradients:
        options: dict[str, Any] = {
            "num_prompts": num_prompts,
            "replications": count,
            "seed": number,
        }
        if isinstance(world, AnswerLaw):
            return world.sample(num_samples, **options)
        return sample_bandit(world, _given(theta), num_samples, **options)

    orders = sorted(set(ks))
    exact = (
        world.conflict(orders)
        if isinstance(world, AnswerLaw)
        else conflict(world, _given(theta), orders)
    )
    return conflict_coverage(
        draw, exact, prompts=prompts, split=split, estimator=estimator, replications=replications,
        level=level, seed=seed, draws=draws, block=block,
    )  # fmt: skip


def conflict_coverage(
    draw: Draw,
    exact: Conflict,
    *,
    prompts: Prompts,
    split: Split | None = None,
    estimator: str | Estimator = "pkpo-loo1",
    replications: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 4000,
    block: int = 250,
) -> pd.DataFrame:
    """The share of replications whose intervals hold the exact products, at the orders of those.

    Rows: each k by itself, "band" (all k at once), "threshold" (its interval). Columns: target,
    truth, mean and spread (standard deviation) of the estimates, error_ratio (the root of the mean
    estimated variance over the spread), coverage with its exact 95 % interval (low, high), and how
    often the truth lies below and above. ``draw(count, seed)`` makes ``count`` replications of a
    sample; ``block`` are held at once.
    """
    split = split or ("completions" if prompts == "fixed" else "prompts")
    chosen = get_estimator(estimator)
    orders = [int(k) for k in exact.ks]
    own = prompts == "new" and split == "completions"
    parts: list[tuple[Array, ...]] = []
    for start in range(0, replications, block):
        samples = draw(min(block, replications - start), seed + start)
        fit = cross_fit(samples, orders, orders, estimator=chosen, split=split, own=own, seed=seed)
        rows = [fit.reported.index(k) for k in orders]
        estimate = terms.curve(fit, prompts)[fit.places(orders)].numpy()
        e = terms.influences(fit, prompts, "inner", chosen, seed=seed)[rows].numpy()
        single = intervals(estimate, e, level)
        joint = band(estimate, e, level, seed=seed, draws=draws)[:2]
        parts.append((estimate, standard_error(e), *single, *joint))
    found = (np.concatenate(pieces, axis=1) for pieces in zip(*parts, strict=True))
    return coverage_table(exact, *found)


def coverage_table(
    exact: Conflict,
    estimate: Array,
    error: Array,
    low: Array,
    high: Array,
    band_low: Array,
    band_high: Array,
) -> pd.DataFrame:
    """The table of :func:`conflict_coverage` from estimates, errors and ends, (K, R) each."""
    truth, threshold = exact.inner_product.numpy(), exact.threshold
    centre, orders = truth[:, None], [int(k) for k in exact.ks]
    result = [
        {
            "target": f"k = {k}",
            "truth": truth[row],
            "mean": estimate[row].mean(),
            "spread": estimate[row].std(),
            "error_ratio": np.sqrt((error[row] ** 2).mean()) / estimate[row].std(),
            **_coverage(low[row] <= truth[row], truth[row] <= high[row]),
        }
        for row, k in enumerate(orders)
    ]
    inside = ((band_low <= centre).all(axis=0), (centre <= band_high).all(axis=0))
    result.append({"target": "band", **_coverage(np.asarray(inside[0]), np.asarray(inside[1]))})
    ends = np.array(
        [threshold_interval(orders, *ends) for ends in zip(band_low.T, band_high.T, strict=True)]
    )
    first = math.inf if math.isnan(threshold) else threshold
    held = (ends[:, 0] <= first, first <= ends[:, 1])
    result.append({"target": "threshold", "truth": threshold, **_coverage(*held)})
    return _frame(result)


def _given(theta: Tensor | Sequence[float] | None) -> Tensor | Sequence[float]:
    if theta is None:
        raise UserError("a bandit has no weights of its own: give theta")
    return theta


def _coverage(reached: NDArray[np.bool_], not_passed: NDArray[np.bool_]) -> dict[str, float]:
    held = np.logical_and(reached, not_passed)
    low, high = success_interval(int(held.sum()), held.size)
    return {
        "coverage": float(held.mean()),
        "low": float(low),
        "high": float(high),
        "truth_below": float(1 - reached.mean()),
        "truth_above": float(1 - not_passed.mean()),
    }


def _frame(rows: list[dict[str, float]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
