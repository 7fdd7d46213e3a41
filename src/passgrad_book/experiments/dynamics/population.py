r"""Exact ascent in many populations at once.

A trajectory of :func:`~passgrad.ascent.ascent.ascend` in a
:class:`~passgrad.worlds.bandit.GaussianBandit` is a sequence of quadratures over the same nodes, so
that a whole grid of populations, starts and orders k moves in one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.orders import check_k
from passgrad.worlds.bandit import GaussianBandit


@dataclass(frozen=True, eq=False)
class PopulationTrace:
    """What T steps did to every member of a batch of shape (...)."""

    ks: tuple[float, ...]
    """The orders of the levels that were recorded."""
    steps: Tensor
    """The numbers of the recorded steps, (R,), from 0 to T."""
    levels: Tensor
    """J_k at these steps, (R, ..., K), float64."""
    theta: Tensor
    """The parameters after the last step, (..., 2)."""

    def pass_at_k(self, k: float) -> Tensor:
        """J_k at the recorded steps, (R, ...); raises UserError for a k that was not recorded."""
        if k not in self.ks:
            raise UserError(f"pass@{k:g} was not recorded, only k in {list(self.ks)}")
        return self.levels[..., self.ks.index(k)]


def ascend_population(
    theta: Tensor | Sequence[float],
    k: Tensor | float,
    *,
    separation: Tensor | float = 0.2,
    hard_fraction: Tensor | float = 0.4,
    step_size: Tensor | float = 1.0,
    steps: int = 100,
    ks: Sequence[float] = (1,),
    every: int = 1,
    num_nodes: int = 257,
) -> PopulationTrace:
    """Exact ascent on pass@k from ``theta`` (..., 2), in every population of a batch.

    ``k``, ``separation``, ``hard_fraction`` and ``step_size`` broadcast against each other and
    against the leading axes of theta. The levels J_j, j in ``ks``, are recorded at every
    ``every``-th step and at the last. Each member goes through what
    ``ascend(GaussianBandit(separation, hard_fraction, num_nodes), theta, PassAtK(k))`` does.

    Raises UserError for a share outside (0, 1), a k below 1, and counts that are not positive.
    """
    if steps < 0 or every < 1:
        raise UserError(f"steps must be at least 0 and every at least 1, got {steps} and {every}")
    order, delta, h, eta = (
        torch.as_tensor(value, dtype=torch.float64)
        for value in (k, separation, hard_fraction, step_size)
    )
    if not (order >= 1).all():
        raise UserError(f"k must be at least 1, got {float(order.min()):g}")
    if not ((h > 0) & (h < 1)).all():
        raise UserError("hard_fraction must lie strictly between 0 and 1")
    theta = torch.as_tensor(theta, dtype=torch.float64)
    if theta.shape[-1:] != (2,):
        raise UserError(f"theta must end in an axis of length 2, got {tuple(theta.shape)}")
    batch = torch.broadcast_shapes(theta.shape[:-1], order.shape, delta.shape, h.shape, eta.shape)
    bias, slope = theta.expand(*batch, 2).unbind(-1)
    s, sign, weight = quadrature(delta.expand(batch), num_nodes)
    mass = torch.stack([1 - h, h], dim=-1).expand(*batch, 2)[..., None] * weight
    k_axis = order.expand(batch)[..., None, None]
    eta = eta.expand(batch)

    levels, recorded = [], []
    for step in range(steps + 1):
        logits = sign * (bias[..., None, None] + slope[..., None, None] * s)
        log_failure = -torch.nn.functional.softplus(logits)
        p = torch.sigmoid(logits)
        if step % every == 0 or step == steps:
            recorded.append(step)
            levels.append(
                torch.stack([(mass * PassAtK(j).value(p)).sum((-2, -1)) for j in ks], dim=-1)
            )
        if step < steps:
            # w_k grad p = k (1 - p)^(k - 1) p (1 - p) u, with u = -psi (easy) or psi (hard)
            push = mass * sign * p * torch.exp(k_axis * log_failure) * k_axis
            bias = bias + eta * push.sum((-2, -1))
            slope = slope + eta * (push * s).sum((-2, -1))
    return PopulationTrace(
        tuple(check_k(j) for j in ks),
        torch.tensor(recorded),
        torch.stack(levels),
        torch.stack([bias, slope], dim=-1),
    )


def quadrature(separation: Tensor, num_nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (..., 2, M), signs (2, 1) and weights (M,) of the nodes of each label, easy first.

    The nodes are those of :class:`~passgrad.worlds.bandit.GaussianBandit`.
    """
    reference = GaussianBandit(0.0, 0.5, num_nodes)
    x = reference.features[:num_nodes, 1]
    # Within a label the masses are half of the nodes' weights.
    weight = 2 * reference.masses[:num_nodes]
    sign = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    return x + sign * separation[..., None, None] / 2, sign, weight
