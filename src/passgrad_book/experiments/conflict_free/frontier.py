"""The frontier of the two conventions in a language model, over all of its weights, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.ascent.ascent import ascend
from passgrad.ascent.directions import Combine, Euclidean
from passgrad.objectives import PassAtK
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame

_PASS_AT_1 = torch.tensor([1.0, 0.0], dtype=torch.float64)


class _Compared:
    """Ascent on pass@1 by the gradients of J_1 and J_k, with a row for each point."""

    label = "pass@1"

    def __init__(self, k: float) -> None:
        self.orders = (PassAtK(1), PassAtK(k))
        self.rows: list[tuple[float, float, float]] = []

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        success = world.success(theta)
        return success, self.compare(world, theta, success)(_PASS_AT_1)

    def compare(self, world: World, theta: Tensor, success: Tensor) -> Combine:
        """Add J_1, J_k and the cosine to the rows; returns what combines the two gradients."""
        weights = torch.stack([world.masses * order.weight(success) for order in self.orders])
        gram, combine = Euclidean()(world, theta, success, weights)
        cosine = float(gram[0, 1] / gram.diagonal().prod().sqrt())
        at_1, at_k = (float(world.masses @ order.value(success)) for order in self.orders)
        self.rows.append((at_1, at_k, cosine))
        return combine


def until_conflict(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    *,
    k: float,
    step_size: float,
    steps: int,
    cosine: float,
) -> tuple[Tensor, DataFrame]:
    """Ascent on pass@1 until the cosine of the gradients of J_1 and J_k is first below ``cosine``,
    and no longer than ``steps`` steps.

    Returns theta there and one row a point: step, J_1, J_k and the cosine.
    """
    import pandas as pd

    compared = _Compared(k)

    def conflicts(step: int, theta: Tensor, success: Tensor) -> bool:
        if step == steps:  # where no gradient is taken
            compared.compare(world, theta, success)
        return compared.rows[-1][-1] < cosine

    trace = ascend(world, theta, compared, step_size=step_size, steps=steps, stop=conflicts)
    table = pd.DataFrame(compared.rows, columns=["pass_at_1", "pass_at_k", "cosine"])
    return trace.theta, table.rename_axis("step").reset_index()
