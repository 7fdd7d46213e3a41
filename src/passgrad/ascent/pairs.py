r"""Combinations of two gradients in closed form, where methods for many objectives need a solver.

With :math:`G_{ij} = \langle g_i, g_j \rangle`, :math:`c` the cosine and :math:`g_0 = (g_1 + g_2) /
2`, the coefficients of two gradients are

- DualProj (Lopez-Paz and Ranzato, 2017), the projection of :math:`g_0` on the cone of the d with
  :math:`\langle g_i, d \rangle \ge 0`: (1/2, 1/2), and where :math:`\langle g_i, g_0 \rangle < 0`,
  which happens for one i at most, :math:`-G_{12} / (2 G_{ii})` in the place of i;
- Nash-MTL (Navon et al., 2022), :math:`(G \lambda)_i = 1 / \lambda_i`:
  :math:`\lambda_i = (G_{ii} (1 + c))^{-1/2}`, the bisector of the angle;
- CAGrad (Liu et al., 2021), the d within :math:`\rho \|g_0\|` of :math:`g_0` with the largest
  :math:`\min_i \langle g_i, d \rangle`: :math:`g_0 + \rho \|g_0\| g_w / \|g_w\|`. There
  :math:`g_w = (1 - w) g_1 + w g_2` minimises :math:`\langle g_w, g_0 \rangle + \rho \|g_0\|
  \|g_w\|` on [0, 1], which is convex with one stationary point.

No package is needed for them; torchjd's solvers for more objectives need quadprog or cvxpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

#: rho of CAGrad
RADIUS = 0.5


def dual_projection(gram: Tensor) -> Tensor:
    """DualProj of the mean of two gradients, from their Gram matrix (2, 2): (2,)."""
    made = torch.full((2,), 0.5, dtype=gram.dtype)
    below = gram @ made < 0
    made[below] = -gram[0, 1] / (2 * gram.diagonal()[below])
    return made


def nash(gram: Tensor) -> Tensor:
    """Nash-MTL: (2,). Not finite where a gradient is zero, or the two are opposite."""
    own = gram.diagonal()
    return (own * (1 + gram[0, 1] / own.prod().sqrt())).rsqrt()


def conflict_averse(gram: Tensor, radius: float = RADIUS) -> Tensor:
    """CAGrad with the radius rho: (2,); zeros where the shortest mean of the two is zero."""
    first, inner, second = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    reach = radius * math.sqrt(max(first + 2 * inner + second, 0.0)) / 2
    # On the line g_w the squared length is shortest + square (w - nearest)^2.
    square = first - 2 * inner + second
    slope = (second - first) / 2
    nearest = (first - inner) / square if square > 0 else 0.5
    shortest = max(first - square * nearest**2, 0.0)
    rest = reach**2 * square - slope**2
    if rest > 0:
        share = nearest - slope * math.sqrt(shortest / (square * rest))
    else:  # the cost is monotone
        share = 0.5 if slope == 0 else -slope * math.inf
    share = min(max(share, 0.0), 1.0)
    mixed = torch.tensor([1 - share, share], dtype=gram.dtype)
    length = math.sqrt(max(float(mixed @ gram @ mixed), 0.0))
    # A length of rounding errors has no direction.
    if length <= 1e-7 * math.sqrt(max(first, second)):
        return torch.zeros(2, dtype=gram.dtype)
    return torch.full((2,), 0.5, dtype=gram.dtype) + reach / length * mixed


#: by the names of :data:`passgrad.ascent.mixing.AGGREGATORS`
CLOSED: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"dualproj": dual_projection, "nashmtl": nash, "cagrad": conflict_averse}
)
