r"""The life of a conflict: :math:`\langle \nabla J_1, \nabla J_k \rangle` along a long ascent.

A conflict is *born* where the product turns negative, *grows* until its cosine is lowest, and
*ends* where the product turns positive again; it may never be born, never end, or be born again.
Where the gradients themselves vanish there is no cosine to speak of, and none is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.ascent.ascent import Direction, ascend
from passgrad.errors import UserError
from passgrad.interference import Conflict, conflict
from passgrad.objectives import Objective, PassAtK
from passgrad.progress import Progress
from passgrad.worlds.base import World, inner_product

if TYPE_CHECKING:
    from pandas import DataFrame

#: a norm is numerically zero once it is this share of what it was at the start
VANISHING = 1e-6


def conflict_along(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    objective: Objective | Direction | None = None,
    *,
    ks: Sequence[float] = (2, 8),
    step_size: float,
    steps: int,
    every: int | Sequence[int] = 10,
    measured: World | None = None,
    progress: Progress | None = None,
) -> dict[str, DataFrame]:
    r"""Exact ascent on ``objective`` (pass@1 by default), the gradients compared on the way.

    Two tables. ``"orders"``: one row a measurement and k, with J_k, the inner product, the norm
    and the cosine of :math:`\nabla J_1` and :math:`\nabla J_k`, and for each group of prompts
    ``weight_<group>``, its share of :math:`E[w_k]`, and ``part_<group>``, its part of
    :math:`E[w_k a] = \langle \nabla J_k, \nabla J_1 \rangle`. ``"path"``: one row a measurement,
    with pass@1, the threshold in k (nan where there is none), :math:`\|\nabla J_1\|`, for each
    group its mean success rate and its mean agreement, ``success_<group>`` and
    ``agreement_<group>``, and for each two groups the mean kernel ``kernel_<group>_<group>``, the
    inner product of the gradients of their mean success rates.

    The cosine is nan once the norm of either gradient has fallen below ``VANISHING`` of what it was
    at the first measurement: rounding decides its direction there.

    Measurements are taken before the first step, after every ``every`` of them, and after the last;
    a sequence in the place of ``every`` names the steps between. One costs about as much as
    5 + K / 2 steps for K orders. The path is that of ``ascend`` in ``world``; ``measured`` is the
    same world in another precision, for the measurements alone.

    Raises UserError for ``every`` below 1, and as ``ascend`` and ``conflict`` do.
    """
    import pandas as pd

    if isinstance(every, int) and every < 1:
        raise UserError(f"every must be at least 1, got {every}")
    between = range(0, steps, every) if isinstance(every, int) else every
    measurements = {0, steps, *between}
    here = world if measured is None else measured
    orders: list[dict[str, float]] = []
    path: list[dict[str, float]] = []

    def measure(step: int, theta: Tensor) -> None:
        if step in measurements:
            point = here.parameters(theta)
            curve = conflict(here, point, ks)
            path.append({"step": step} | _point(here, point, curve))
            orders.extend({"step": step} | row for row in _order_rows(curve))

    ascend(
        world,
        theta,
        PassAtK(1) if objective is None else objective,
        step_size=step_size,
        steps=steps,
        observe=measure,
        progress=progress,
    )
    tables = {"orders": pd.DataFrame(orders), "path": pd.DataFrame(path)}
    _without_vanished(tables["orders"], tables["path"]["norm_at_1"].to_numpy(), len(ks))
    return tables


def phases(steps: Sequence[int], cosines: Sequence[float]) -> dict[str, float]:
    """When a conflict was born, was deepest, and ended, from its cosine at these steps.

    ``born``: the first step at which it is negative. Of the longest stretch of negative values,
    ``deepest`` and ``lowest`` are the step and the value of the lowest, and ``ended`` is the first
    step after it. nan for what does not happen. ``share``: that of the measurements which are
    negative. Cosines that are nan, for vanished gradients, are left out: they end nothing.
    """
    values = torch.tensor(list(cosines), dtype=torch.float64)
    known = ~values.isnan()
    at = torch.tensor(list(steps), dtype=torch.float64)[known]
    values = values[known]
    negative = values < 0
    made = dict.fromkeys(("born", "deepest", "lowest", "ended"), math.nan)
    made["share"] = float(negative.double().mean()) if len(values) else math.nan
    if not negative.any():
        return made
    edges = torch.diff(negative.int(), prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
    first, last = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
    longest = int((last - first).argmax())
    start, stop = int(first[longest]), int(last[longest])
    lowest = start + int(values[start:stop].argmin())
    made["born"] = float(at[int(first[0])])
    made["deepest"], made["lowest"] = float(at[lowest]), float(values[lowest])
    if stop < len(values):
        made["ended"] = float(at[stop])
    return made


def _point(world: World, theta: Tensor, curve: Conflict) -> dict[str, float]:
    """The row of ``"path"`` but for its step."""
    members = _members(world.groups)
    laws = torch.stack([world.masses * mine / (world.masses @ mine) for mine in members.values()])
    row = {
        "pass_at_1": float(world.masses @ curve.success),
        "threshold": curve.threshold,
        "norm_at_1": curve.norm_at_1,
    }
    for name, law in zip(members, laws, strict=True):
        row[f"success_{name}"] = float(law @ curve.success)
        row[f"agreement_{name}"] = float(law @ curve.agreement)
    gradients = dict(zip(members, world.vjp(theta, laws)[1], strict=True))
    names = list(members)
    for first, group in enumerate(names):
        for other in names[first:]:
            row[f"kernel_{group}_{other}"] = inner_product(gradients[group], gradients[other])
    return row


def _order_rows(curve: Conflict) -> list[dict[str, float]]:
    """The rows of ``"orders"`` but for their step."""
    members = _members(curve.groups)
    rows = []
    for weights, row in zip(curve.weights, curve.to_frame().to_dict("records"), strict=True):
        total = row.pop("mean_weight")
        numbers = {str(name): float(value) for name, value in row.items()}
        for name, is_member in members.items():
            mass = curve.masses * is_member * weights
            numbers[f"weight_{name}"] = float(mass.sum()) / total if total else math.nan
            numbers[f"part_{name}"] = float(mass @ curve.agreement)
        rows.append(numbers)
    return rows


def _members(groups: Sequence[str]) -> dict[str, Tensor]:
    """For each group, 1 for its prompts and 0 for the others: (N,), float64."""
    return {
        group: torch.tensor([float(one == group) for one in groups], dtype=torch.float64)
        for group in dict.fromkeys(groups)
    }


def _without_vanished(orders: DataFrame, norms_at_1: Any, num_orders: int) -> None:
    """Put nan in the place of the cosines of gradients that are numerically zero."""
    first = orders["norm"].to_numpy()[:num_orders]
    at_1 = norms_at_1.repeat(num_orders)
    own = orders["norm"].to_numpy().reshape(-1, num_orders)
    gone = (own <= VANISHING * first).reshape(-1) | (at_1 <= VANISHING * at_1[0])
    orders.loc[gone, "cosine"] = math.nan
