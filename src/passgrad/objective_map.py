r"""Which objectives conflict with which: the inner products of their gradients, all on one map.

For objectives :math:`J_f = E_x[f(p(x))]` with weights :math:`w_f = f'`, and the agreement
:math:`a_g(x) = \langle \nabla p(x), \nabla J_g \rangle` of a prompt with one of them,

.. math:: \langle \nabla J_f, \nabla J_g \rangle
          = E_{x, x'}[w_f(x) \, w_g(x') \, \kappa(x, x')] = E[w_f a_g]
          = E[w_f] \, E[a_g] + \mathrm{cov}(w_f, a_g).

The pass@k gradients of the paper (Proposition 4.1, Appendix B) are the case f = f_k. How the
weight of one objective divided by that of another runs along the success rate orders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import Objective
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame

_LARGEST_STACK = 1 << 26  # entries of the gradients held at once: half a gigabyte in float64
_SLACK = 1e-12  # relative, for rounding in a comparison of two products of weights


@dataclass(frozen=True, eq=False)
class ObjectiveMap:
    """The gradients of K objectives against each other, at one theta. All tensors are float64."""

    objectives: tuple[Objective, ...]
    """f, K of them; rows and columns follow this order."""
    inner_products: Tensor
    """<grad J_f, grad J_g>, (K, K)."""
    weights: Tensor
    """w_f(x), (K, N)."""
    success: Tensor
    """p(x), (N,)."""
    masses: Tensor
    """D(x), (N,)."""

    @property
    def labels(self) -> list[str]:
        """What figures and tables call the objectives."""
        return [objective.label for objective in self.objectives]

    @property
    def norms(self) -> Tensor:
        """||grad J_f||, (K,)."""
        return self.inner_products.diagonal().clamp(min=0).sqrt()

    @property
    def cosines(self) -> Tensor:
        """cos(grad J_f, grad J_g), (K, K); nan where a gradient is zero."""
        return (self.inner_products / (self.norms[:, None] * self.norms)).clamp(-1, 1)

    @property
    def conflicts(self) -> Tensor:
        """<grad J_f, grad J_g> < 0, (K, K): a small enough step up one lowers the other."""
        return self.inner_products < 0

    @property
    def effective_shares(self) -> Tensor:
        """The share of the prompts that each objective still looks at, (K,); 1 for pass@1."""
        return effective_share(self.masses, self.weights)

    def to_frame(self) -> DataFrame:
        """The cosines, with the labels of the objectives on both sides."""
        import pandas as pd

        return pd.DataFrame(self.cosines.numpy(), index=self.labels, columns=self.labels)


def objective_map(
    world: World, theta: Tensor | Sequence[float] | None, objectives: Sequence[Objective]
) -> ObjectiveMap:
    """The inner products of the gradients of all pairs of ``objectives``, K of them.

    One pass gives the success rates, and one vjp the K gradients of size d together, as long as
    they have no more than 2^26 entries. A larger world holds two gradients at a time instead:
    pair by pair with :meth:`World.gradient_products`, about K^2 / 2 passes, or through its kernel,
    2 N passes, whichever is less.

    Raises UserError for no objectives, and for an infinite weight, naming objective and prompt.
    """
    objectives = tuple(objectives)
    if not objectives:
        raise UserError("objectives is empty: name at least one, such as PassAtK(1)")
    theta = world.parameters(theta)
    success = world.success(theta)
    weights = torch.stack([_finite_weight(objective, success) for objective in objectives])
    products = _inner_products(world, theta, world.masses * weights)
    return ObjectiveMap(objectives, products, weights, success, world.masses)


def _inner_products(world: World, theta: Tensor, rows: Tensor) -> Tensor:
    """The Gram matrix of the gradients sum_x rows[f, x] grad p(x), (K, K), float64."""
    size = len(rows)
    if size * world.num_parameters <= _LARGEST_STACK:
        gradients = world.vjp(theta, rows)[1].double().cpu()
        gram = gradients @ gradients.T
    elif 2 * world.num_prompts <= size * (size + 1) // 2:
        gram = rows @ world.kernel(theta) @ rows.T
    else:
        gram = torch.zeros(size, size, dtype=torch.float64)
        for i, row in enumerate(rows):
            found = world.gradient_products(theta, row, rows[i:]).inner_products
            gram[i, i:] = found
            gram[i:, i] = found
    return (gram + gram.T) / 2  # the two halves of the first two agree but for rounding


def agreement(world: World, theta: Tensor | Sequence[float] | None, objective: Objective) -> Tensor:
    """a_g(x) = <grad p(x), grad J_g>, (N,), float64: what a small step up J_g does to each prompt.

    With pass@1 it is the agreement of the paper (eq. 8). Its mean weighted by D w_g is
    ||grad J_g||^2. Raises UserError for an infinite weight, naming objective and prompt.
    """
    theta = world.parameters(theta)
    weight = _finite_weight(objective, world.success(theta))
    _, rows = world.vjp(theta, (world.masses * weight)[None])
    return world.jvp(theta, rows)[0]


def cumulated_agreement(
    success: Tensor, masses: Tensor, agreement: Tensor
) -> tuple[Tensor, Tensor]:
    """The levels t and C(t) = E[a 1{p <= t}], each (M,), at the M distinct success rates.

    C(t) is the inner product of the gradient of E[min(p, t)] with the one that ``agreement``
    refers to. If the last of them is not negative, then some concave increasing objective
    conflicts with it exactly if some C(t) < 0. All three arguments are (N,).
    """
    levels, place = torch.unique(success, return_inverse=True)
    steps = torch.zeros_like(levels).index_add(0, place, masses * agreement)
    return levels, steps.cumsum(0)


def curvature(objective: Objective, p: Tensor) -> Tensor:
    """-f''(p) / f'(p), in the shape of p: how fast the weight falls, relative to itself.

    The objective of higher curvature at every p is the more concave one (Pratt, 1964): its weight
    divided by that of the other falls. For pass@k it is (k - 1) / (1 - p). By automatic
    differentiation of the weight, at success rates where that is finite and positive.
    """
    point = p.detach().clone().requires_grad_()
    weight = objective.weight(point)
    if not weight.requires_grad:  # a constant weight
        return torch.zeros_like(p)
    (slope,) = torch.autograd.grad(weight.sum(), point)
    return -slope / weight.detach()


def more_concave(f: Objective, g: Objective, success: Tensor) -> bool:
    """Whether w_f / w_g does not increase along the given success rates, (N,) in any order.

    If it does not, and the prompts of negative agreement are those below some success rate, then
    a conflict of g is a conflict of f as well. It compares neighbours by cross multiplication with
    a relative slack of 1e-12. Raises UserError for an infinite weight.
    """
    p = torch.unique(success)
    of_f, of_g = _finite_weight(f, p), _finite_weight(g, p)
    before, after = of_f[:-1] * of_g[1:], of_f[1:] * of_g[:-1]
    return bool((before >= after * (1 - _SLACK)).all())


def effective_share(masses: Tensor, weights: Tensor) -> Tensor:
    """E[w]^2 / E[w^2], (K,) for (K, N) weights: the share of the prompts that weights w look at.

    It is 1 for equal weights and 1 / N where one of N equally likely prompts has all the weight.
    N times it is one over the sum of squares of the reweighted law, the effective number of
    prompts (Kish, 1965). nan where all weights are zero.
    """
    largest = weights.amax(dim=-1, keepdim=True)
    relative = weights / largest  # the square of a small weight would underflow
    return (relative @ masses).square() / (relative.square() @ masses)


def _finite_weight(objective: Objective, success: Tensor) -> Tensor:
    weight = objective.weight(success)
    if not torch.isfinite(weight).all():
        x = int((~torch.isfinite(weight)).nonzero()[0, 0])
        raise UserError(
            f"the weight of {objective.label} is {float(weight[x])} at the success rate "
            f"{float(success[x]):g} of prompt {x}: leave that prompt out or take an objective of "
            "bounded weight"
        )
    return weight
