"""How often the intervals of a predicted step hold the truth, in bandits, where it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.measurement.samples import bandit_steps
from passgrad.measurement.step import step_derivatives
from passgrad.objectives import PassAtK
from passgrad.stats.bands import Array, band, intervals, standard_error
from passgrad.stats.binomial import success_interval
from passgrad.stats.intervals import Prompts, check_prompts
from passgrad.worlds.bandit import Bandit

if TYPE_CHECKING:
    import pandas as pd


def simulate_step_coverage(
    world: Bandit,
    theta: Tensor | Sequence[float],
    num_samples: int,
    along: int,
    ks: Sequence[int],
    eta: float,
    *,
    num_prompts: int | None = None,
    prompts: Prompts = "new",
    estimator: str = "pkpo-loo1",
    replications: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 4000,
    block: int = 250,
) -> pd.DataFrame:
    """The share of replications whose intervals hold the change, one row a target.

    The truth is that of the step along the v of each replication. Targets at each k: "first" and
    "second" order against the terms of the series, "total" against the change that the step really
    makes; and "band", all changes at once. Columns: target, k, mean_error (of the estimates less
    their truths, in standard deviations of that difference over the root of the number of
    replications), error_ratio (the mean standard error over that deviation), coverage with its exact
    95 % interval (low, high). Raises UserError as
    :func:`passgrad.measurement.step.step_derivatives`.
    """  # noqa: E501
    import pandas as pd

    check_prompts(prompts)
    if (prompts == "new") != (num_prompts is not None):
        raise UserError("num_prompts is needed for new prompts, and none is drawn for fixed ones")
    orders = sorted({1, along, *ks})
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[tuple[Array, Array, Array, Array, Array]]] = []
    joint = []
    for start in range(0, replications, block):
        count = min(block, replications - start)
        if num_prompts is None:
            asked, masses = torch.arange(world.num_prompts).expand(count, -1), world.masses
        else:
            law = world.masses.expand(count, -1)
            asked = torch.multinomial(law, num_prompts, replacement=True, generator=generator)
            masses = None
        samples = bandit_steps(world, theta, asked, num_samples, masses=masses, seed=seed + start)
        made = step_derivatives(
            samples, along, orders, estimator=estimator, prompts=prompts, seed=seed
        )
        truth = _truth(
            world, world.parameters(theta), samples.vector(made.coefficients), orders, eta
        )
        scale = (eta, eta**2 / 2)
        one, two = scale[0] * made.first.numpy(), scale[1] * made.second.numpy()
        e1 = scale[0] * made.first_influence.numpy()
        e2 = scale[1] * made.second_influence.numpy()
        terms = [(one, e1), (two, e2), (one + two, e1 + e2)]
        parts.append(
            [
                (value, exact, standard_error(e), *intervals(value, e, level))
                for (value, e), exact in zip(terms, truth, strict=True)
            ]
        )
        low, high, _ = band(one + two, e1 + e2, level, seed=seed, draws=draws)
        joint.append(((low <= truth[2]) & (truth[2] <= high)).all(axis=0))
    rows = []
    for place, target in enumerate(("first", "second", "total")):
        value, exact, error, low, high = (
            np.concatenate(pieces, axis=1)
            for pieces in zip(*(part[place] for part in parts), strict=True)
        )
        for row, k in enumerate(orders):
            if target == "second" and not error[row].any():
                continue
            away = value[row] - exact[row]
            held = (low[row] <= exact[row]) & (exact[row] <= high[row])
            rows.append(
                {
                    "target": target,
                    "k": k,
                    "mean_error": away.mean() / away.std() * len(away) ** 0.5,
                    "error_ratio": error[row].mean() / away.std(),
                    **_share(held),
                }
            )
    rows.append({"target": "band", **_share(np.concatenate(joint))})
    return pd.DataFrame(rows)


def _truth(
    world: Bandit, theta: Tensor, v: Tensor, ks: Sequence[int], eta: float
) -> tuple[Array, Array, Array]:
    """The two terms of the series and the whole change, (K, R) each, for (R, d) vectors."""
    p, jacobian = world.success_and_jacobian(theta)
    slope = v @ jacobian.T
    # p = sigmoid(t) has p' = p (1 - p) t' and p'' = (1 - 2 p) p' t'.
    bend = (1 - 2 * p) / (p * (1 - p)) * slope.square()
    moved = torch.sigmoid((theta + eta * v) @ world.signed_features.T)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for k in ks:
        objective = PassAtK(k)
        second = -k * (k - 1) * (1 - p) ** max(k - 2, 0)
        rows.append(
            (
                eta * (objective.weight(p) * slope) @ world.masses,
                eta**2 / 2 * (objective.weight(p) * bend + second * slope.square()) @ world.masses,
                (objective.value(moved) - objective.value(p)) @ world.masses,
            )
        )
    first, second_term, whole = (torch.stack(column).numpy() for column in zip(*rows, strict=True))
    return first, second_term, whole


def _share(held: Array) -> dict[str, float]:
    low, high = success_interval(int(held.sum()), held.size)
    return {"coverage": float(held.mean()), "low": float(low), "high": float(high)}
