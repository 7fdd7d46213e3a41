"""Ascents on several objectives from one point, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from passgrad.objectives import Objective
from passgrad.training.ascent import Direction, ascend
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame


def compare_ascents(
    world: World,
    theta: Tensor | Sequence[float] | None,
    objectives: Sequence[Objective | Direction],
    *,
    ks: Sequence[float],
    step_size: float,
    steps: int,
    progress: bool = False,
) -> DataFrame:
    """J_k along exact ascent on each objective, or along each direction, from the same theta, for
    every k in ``ks``.

    One row an objective (its label), step (0 to ``steps``), k and group of prompts; the group
    ``"all"`` is the whole prompt law. Every objective takes steps of the same ``step_size`` along
    its own gradient.

    :raises UserError: As :func:`~passgrad.training.ascent.ascend` does.
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
