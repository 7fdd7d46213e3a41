"""The frontier of the two conventions in a language model, over all of its weights, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.ascent.directions import Euclidean
from passgrad.objectives import PassAtK
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame

_PASS_AT_1 = torch.tensor([1.0, 0.0], dtype=torch.float64)


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

    theta = world.parameters(theta).clone()
    rows = []
    for step in range(steps + 1):
        success = world.success(theta)
        weights = torch.stack([world.masses * PassAtK(one).weight(success) for one in (1, k)])
        gram, combine = Euclidean()(world, theta, success, weights)
        values = [float(world.masses @ PassAtK(one).value(success)) for one in (1, k)]
        measured = float(gram[0, 1] / gram.diagonal().prod().sqrt())
        rows.append((step, *values, measured))
        if measured < cosine:
            break
        if step < steps:
            theta.add_(combine(_PASS_AT_1), alpha=step_size)
        del combine  # else its gradients would live beside their successors
    return theta, pd.DataFrame(rows, columns=["step", "pass_at_1", "pass_at_k", "cosine"])
