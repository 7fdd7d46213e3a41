r"""What the metric of a step changes, in a language model over all of its weights, exactly.

In a metric M the gradients of J_1 and J_k have the Gram matrix
:math:`G_{ij} = \langle \nabla J_i, M^{-1} \nabla J_j \rangle`. Lengths in two metrics cannot be
compared; prices can: what a step changes in J_1 when it is so long that J_k gains a given amount to
first order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.ascent.directions import Metric
from passgrad.ascent.frontier import method
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame


def prices(
    world: World,
    theta: Tensor | Sequence[float] | None,
    methods: Sequence[str],
    metrics: Mapping[str, Metric],
    *,
    k: float = 10,
    gain: float = 0.01,
) -> DataFrame:
    r"""One step of each method in each metric, so long that J_k gains ``gain`` to first order.

    One row a metric and method (:func:`passgrad.ascent.frontier.method`): the cosine of the two
    gradients in the metric, and the changes of J_1 and J_k, to first order and in fact
    (``predicted_1``, ``realised_1``, ``predicted_k``, ``realised_k``). All metrics see theta as
    their first step. One metric costs what it costs, and each method one ``World.success`` more.

    Raises UserError for a schedule, and for a method along which J_k does not gain.
    """
    import pandas as pd

    theta = world.parameters(theta)
    success = world.success(theta)
    orders = (PassAtK(1), PassAtK(k))
    weights = torch.stack([world.masses * one.weight(success) for one in orders])
    values = torch.stack([world.masses @ one.value(success) for one in orders])
    rows: list[dict[str, Any]] = []
    for label, metric in metrics.items():
        gram, combine = metric(world, theta, success, weights)
        for name in methods:
            choose = method(name, k).choose
            if choose is None:
                raise UserError(f"{name} is a schedule: it has no single step")
            lambdas = choose(gram).double()
            change = gram @ lambdas
            if not change[1] > 0:
                raise UserError(f"J_k does not gain along {name} in the metric {label}")
            size = gain / float(change[1])
            after = world.success(theta.add(combine(lambdas), alpha=size))
            moved = torch.stack([world.masses @ one.value(after) for one in orders]) - values
            rows.append(
                {
                    "metric": label,
                    "method": name,
                    "cosine": float(gram[0, 1] / gram.diagonal().prod().sqrt()),
                    "predicted_1": size * float(change[0]),
                    "realised_1": float(moved[0]),
                    "predicted_k": size * float(change[1]),
                    "realised_k": float(moved[1]),
                }
            )
        del combine  # else its gradients would live beside their successors
    return pd.DataFrame(rows)
