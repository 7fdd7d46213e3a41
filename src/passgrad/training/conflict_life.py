r"""The life of a conflict: :math:`\langle \nabla J_1, \nabla J_k \rangle` along a long ascent.

A conflict is *born* where the product turns negative, *grows* until its cosine is lowest, and
*ends* where the product turns positive again; it may never be born, never end, or be born again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import Objective, PassAtK
from passgrad.training.ascent import Direction, ascend
from passgrad.training.conflict_free import ConflictFree
from passgrad.training.directions import as_direction
from passgrad.worlds.base import World
from passgrad.worlds.opposite_signs import opposite_signs_world

if TYPE_CHECKING:
    from pandas import DataFrame


def conflict_along(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    objective: Objective | Direction | None = None,
    *,
    ks: Sequence[float] = (2, 8),
    step_size: float,
    steps: int,
    every: int | Sequence[int] = 10,
    progress: bool = False,
) -> dict[str, DataFrame]:
    r"""Exact ascent on ``objective`` (pass@1 by default), the gradients compared on the way.

    Two tables. ``"orders"``: one row a measurement and k, with J_k, the inner product and the
    cosine of :math:`\nabla J_1` and :math:`\nabla J_k`. ``"path"``: one row a measurement, with
    pass@1, the threshold in k (nan where there is none), :math:`\|\nabla J_1\|`, and for each group
    of prompts its mean success rate and its mean agreement, ``success_<group>`` and
    ``agreement_<group>``.

    Measurements are taken before the first step, after every ``every`` of them, and after the last;
    a sequence in the place of ``every`` names the steps between. One costs about as much as
    3 + K / 2 steps for K orders. The path is that of ``ascend``.

    Raises UserError for ``every`` below 1, and as ``ascend`` and ``conflict`` do.
    """
    import pandas as pd

    if isinstance(every, int) and every < 1:
        raise UserError(f"every must be at least 1, got {every}")
    between = range(0, steps, every) if isinstance(every, int) else every
    stops = sorted({0, steps, *(step for step in between if 0 < step < steps)})
    direction = as_direction(PassAtK(1) if objective is None else objective)
    theta = world.parameters(theta)
    orders: list[dict[str, float]] = []
    path: list[dict[str, float]] = []
    step = 0
    for stop in stops:
        if stop > step:
            # A direction keeps its state from one stretch to the next.
            theta = ascend(
                world, theta, direction, step_size=step_size, steps=stop - step, progress=progress
            ).theta
            step = stop
        curve = conflict(world, theta, ks)
        value = float(world.masses @ curve.success)
        path.append(
            {"step": step, "pass_at_1": value, "threshold": curve.threshold}
            | {"norm_at_1": curve.norm_at_1}
            | _of_groups(world, "success", curve.success)
            | _of_groups(world, "agreement", curve.agreement)
        )
        orders += [
            {"step": step} | {str(name): float(row[name]) for name in row}
            for row in curve.to_frame().drop(columns="mean_weight").to_dict("records")
        ]
    return {"orders": pd.DataFrame(orders), "path": pd.DataFrame(path)}


def conflict_life(
    ascended: float | str = 1,
    *,
    k: float = 8,
    ks: Sequence[float] = (2, 8),
    step_size: float = 0.03,
    steps: int = 1000,
    every: int | Sequence[int] = 20,
    seed: int = 0,
    world: Mapping[str, Any] | None = None,
) -> dict[str, DataFrame]:
    """:func:`conflict_along` in the world of opposite signs, whose model is trained from ``seed``.

    ``ascended`` is a number, for pass@k of that order, or the name of an aggregator, for the
    combination of pass@1 and pass@``k`` (:class:`~passgrad.training.conflict_free.ConflictFree`).
    ``world`` are options of :func:`~passgrad.worlds.opposite_signs.opposite_signs_world`. All
    arguments are plain values, and the same ones give the same tables on one machine: they can be
    the parameters of a stored result.
    """
    made = opposite_signs_world(seed=seed, **(world or {}))
    objective: Objective | Direction = (
        ConflictFree(k, aggregator=ascended) if isinstance(ascended, str) else PassAtK(ascended)
    )
    path = {"step_size": step_size, "steps": steps, "every": every}
    return conflict_along(made, None, objective, ks=ks, **path)  # type: ignore[arg-type]


def phases(steps: Sequence[int], cosines: Sequence[float]) -> dict[str, float]:
    """When a conflict was born, was deepest, and ended, from its cosine at these steps.

    ``born``: the first step at which it is negative. Of the longest stretch of negative values,
    ``deepest`` and ``lowest`` are the step and the value of the lowest, and ``ended`` is the first
    step after it. nan for what does not happen. ``share``: that of the measurements which are
    negative.
    """
    values = torch.tensor(list(cosines), dtype=torch.float64)
    negative = values < 0
    made = dict.fromkeys(("born", "deepest", "lowest", "ended"), math.nan)
    made["share"] = float(negative.double().mean())
    if not negative.any():
        return made
    edges = torch.diff(negative.int(), prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
    first, last = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
    longest = int((last - first).argmax())
    start, stop = int(first[longest]), int(last[longest])
    lowest = start + int(values[start:stop].argmin())
    made["born"] = float(steps[int(first[0])])
    made["deepest"], made["lowest"] = float(steps[lowest]), float(values[lowest])
    if stop < len(values):
        made["ended"] = float(steps[stop])
    return made


def _of_groups(world: World, name: str, values: Tensor) -> dict[str, float]:
    made = {}
    for group in dict.fromkeys(world.groups):
        members = torch.tensor([one == group for one in world.groups])
        mass = world.masses[members]
        made[f"{name}_{group}"] = float(values[members] @ mass / mass.sum())
    return made
