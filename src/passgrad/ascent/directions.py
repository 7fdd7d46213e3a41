r"""Directions of ascent other than the gradient: Adam and the natural gradient.

An exact step goes along :math:`M^{-1} \nabla J` with a metric M, a positive definite matrix that
may depend on theta and on the steps before. To first order objective i changes along the step
:math:`M^{-1} \sum_j \lambda_j \nabla J_j` by :math:`(G \lambda)_i`, with the Gram matrix

.. math:: G_{ij} = \langle \nabla J_i, M^{-1} \nabla J_j \rangle

in the place of that of the gradients: whether two objectives conflict is a matter of the metric.

A :class:`Metric` is written in terms of the prompts' weights c, :math:`\nabla J = \sum_x c(x)
\nabla p(x)`, so that one which acts on N prompts never has a matrix of the size d x d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from passgrad.ascent.ascent import Direction
from passgrad.errors import UserError
from passgrad.objectives import Objective
from passgrad.worlds.base import World, inner_product

#: from the coefficients lambda, (K,), to the step M^-1 sum_j lambda_j grad J_j, (d,)
Combine = Callable[[Tensor], Tensor]


class Metric(Protocol):
    """A metric M on the parameters. It may have a state, such as running squares of gradients."""

    @property
    def label(self) -> str:
        """What figures and tables add to the name of an objective; empty for the plain one."""
        ...

    def __call__(
        self, world: World, theta: Tensor, success: Tensor, weights: Tensor
    ) -> tuple[Tensor, Combine]:
        """The Gram matrix G, (K, K) float64, of the rows sum_x weights[k, x] grad p(x) in M^-1, and
        the function that gives a combined step. ``success`` is p(theta), (N,); ``weights`` (K, N).
        One call is one step of a metric with a state.
        """
        ...


@dataclass(frozen=True)
class Euclidean:
    """M = 1: steps along gradients. One backward pass a row, all from one ``World.vjp``."""

    label: str = field(default="", init=False)

    def __call__(
        self, world: World, theta: Tensor, success: Tensor, weights: Tensor
    ) -> tuple[Tensor, Combine]:
        rows = world.vjp(theta, weights)[1]
        return _gram(rows, rows), lambda lambdas: _combined(lambdas, rows)


class AdamMetric:
    r"""M = diag(sqrt(v) + eps), Adam without its momentum (Kingma and Ba, 2015).

    v is the running mean, with rate ``beta``, of the squared entries of the gradient, corrected for
    its start at zero; with several gradients at a time it is of their mean square, which prefers
    none. A step along one objective is then that of ``Adam(objective, (0, beta), eps)``.

    Entries whose gradients were all zero so far have M = eps, and stay: the gradient there is zero.
    Raises UserError for a rate outside [0, 1) or an eps that is not positive.
    """

    label = "Adam metric"

    def __init__(self, beta: float = 0.999, eps: float = 1e-8) -> None:
        _check_rates(beta, eps=eps)
        self.beta, self.eps = beta, eps
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        self.count = 0
        self.second: Tensor | None = None

    def __call__(
        self, world: World, theta: Tensor, success: Tensor, weights: Tensor
    ) -> tuple[Tensor, Combine]:
        rows = world.vjp(theta, weights)[1]
        self.count += 1
        square = torch.zeros_like(rows[0])
        for row in rows:
            square.addcmul_(row, row, value=1 / len(rows))
        self.second = _mixed(self.second, square, self.beta)
        scale = _scale(self.second, self.beta, self.count, self.eps)
        steps = rows / scale
        return _gram(rows, steps), lambda lambdas: _combined(lambdas, rows).div_(scale)


@dataclass(frozen=True)
class FisherMetric:
    r"""M = F + lambda, with :math:`F = E_x[\nabla p \nabla p^\top / (p (1 - p))]` and a damping
    lambda > 0: the natural gradient (Amari, 1998) of a law of right and wrong answers.

    F is the Fisher information of the outcome, right or wrong. It has rank at most N. With the
    kernel K and the diagonal matrix V of p (1 - p) / D, the identity
    :math:`(A A^\top + \lambda)^{-1} A = A (A^\top A + \lambda)^{-1}` gives

    .. math:: (F + \lambda)^{-1} \sum_x c(x) \nabla p(x) = \sum_x u(x) \nabla p(x), \qquad
              (K + \lambda V) u = V c,

    so that an N x N system, scaled to :math:`V^{-1/2} K V^{-1/2} + \lambda`, and one backward pass
    do: no d x d matrix occurs. It costs the world's kernel.

    Prompts with p = 0 or p = 1 in floating point have no part in it, nor do prompts of mass zero:
    p is smallest or largest there, its gradient is zero whatever the weight, and the system, which
    is 0 = 0 in their rows, is that of the others. Close to 0 or 1 the scaled kernel stays bounded,
    since grad p goes to zero as fast as p or 1 - p does.

    ``relative`` gives lambda in units of tr(F) / N at each theta. Raises UserError for a damping
    that is not a positive finite number.
    """

    damping: float
    relative: bool = False

    def __post_init__(self) -> None:
        damping = self.damping
        if not isinstance(damping, Real) or not (math.isfinite(damping) and damping > 0):
            raise UserError(f"damping must be a positive finite number, got {damping!r}")

    @property
    def label(self) -> str:
        return f"natural, damping {self.damping:g}"

    def __call__(
        self, world: World, theta: Tensor, success: Tensor, weights: Tensor
    ) -> tuple[Tensor, Combine]:
        kernel = world.kernel(theta)
        variance = success * (1 - success)
        inside = (variance > 0) & (world.masses > 0)
        root = (variance[inside] / world.masses[inside]).sqrt()
        system = kernel[inside][:, inside] / torch.outer(root, root)
        damping = self.damping * (float(system.trace()) / len(success) if self.relative else 1.0)
        used = torch.zeros_like(weights)
        if len(root) and damping > 0:
            system.diagonal().add_(damping)
            factor = torch.linalg.cholesky(system)
            solved = torch.cholesky_solve((weights[:, inside] * root).T, factor).T
            used[:, inside] = solved / root
        # Only what is inside enters: outside, a weight may be infinite while the gradient is zero.
        rows = torch.where(inside, weights, 0.0)
        gram = rows @ kernel @ used.T
        return (gram + gram.T) / 2, lambda lambdas: world.vjp(theta, (lambdas @ used)[None])[1][0]


@dataclass(frozen=True)
class Gradient:
    """The gradient of an objective as a direction: what ``ascend`` takes for the objective itself,
    for use inside of another direction.
    """

    objective: Objective

    @property
    def label(self) -> str:
        return self.objective.label

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        return world.objective_gradient(theta, self.objective)


class Adam:
    r"""Adam (Kingma and Ba, 2015) along a direction, with momentum.

    With the direction g of step t, :math:`m \leftarrow \beta_1 m + (1 - \beta_1) g` and
    :math:`v \leftarrow \beta_2 v + (1 - \beta_2) g^2` from zero,

    .. math:: \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon},

    as ``torch.optim.Adam`` takes it; its learning rate is the ``step_size`` of the ascent. The
    state, two vectors of length d, goes on from one ascent to the next unless :meth:`reset` is
    called. ``betas[0] = 0`` leaves out the momentum; for gradients compared in that metric, see
    :class:`AdamMetric`.

    :raises UserError: For rates outside [0, 1) or an eps that is not positive.

    >>> import passgrad as pg
    >>> adam = pg.Adam(pg.PassAtK(10))
    >>> trace = pg.ascend(pg.TwoPointBandit(), (-2, -2), adam, step_size=0.1, steps=20)
    >>> trace.pass_at_k(10)[-1]
    tensor(0.9976, dtype=torch.float64)
    """

    def __init__(
        self,
        direction: Objective | Direction,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        _check_rates(*betas, eps=eps)
        self.direction = as_direction(direction)
        self.betas, self.eps = (float(betas[0]), float(betas[1])), eps
        self.reset()

    @property
    def label(self) -> str:
        return f"Adam, {self.direction.label}"

    def reset(self) -> None:
        """Forget all steps, those of the direction within included."""
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        if hasattr(self.direction, "reset"):
            self.direction.reset()

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        success, gradient = self.direction(world, theta)
        self.count += 1
        self.first = _mixed(self.first, gradient, self.betas[0])
        self.second = _mixed(self.second, gradient.square(), self.betas[1])
        scale = _scale(self.second, self.betas[1], self.count, self.eps)
        return success, self.first.div(1 - self.betas[0] ** self.count).div_(scale)


@dataclass(frozen=True)
class NaturalGradient:
    """(F + damping)^-1 grad J, as of :class:`FisherMetric`.

    :raises UserError: For a damping that is not a positive finite number.

    >>> import passgrad as pg
    >>> natural = pg.NaturalGradient(pg.PassAtK(10), damping=0.1)
    >>> pg.ascend(pg.TwoPointBandit(), (-2, -2), natural, step_size=0.1).pass_at_k(10)
    tensor([0.8252, 0.8402], dtype=torch.float64)
    """

    objective: Objective
    damping: float
    relative: bool = False

    def __post_init__(self) -> None:
        FisherMetric(self.damping, self.relative)

    @property
    def label(self) -> str:
        return f"{self.objective.label}, natural"

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        success = world.success(theta)
        weights = (world.masses * self.objective.weight(success))[None]
        metric = FisherMetric(self.damping, self.relative)
        _, combine = metric(world, theta, success, weights)
        return success, combine(torch.ones(1, dtype=torch.float64))


class Scheduled:
    """The gradient of an objective that changes from step to step.

    ``objective_at(t)`` is the objective of step t = 0, 1, ... . The count goes on from one ascent
    to the next unless :meth:`reset` is called.
    """

    def __init__(self, objective_at: Callable[[int], Objective], label: str = "scheduled") -> None:
        self.objective_at, self.label = objective_at, label
        self.reset()

    def reset(self) -> None:
        """Back to step 0."""
        self.count = 0

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        objective = self.objective_at(self.count)
        self.count += 1
        return world.objective_gradient(theta, objective)


def as_direction(given: Objective | Direction) -> Direction:
    """The direction itself, or the gradient of an objective."""
    return given if callable(given) else Gradient(given)


def _combined(lambdas: Tensor, rows: Tensor) -> Tensor:
    return lambdas.to(rows.dtype).to(rows.device) @ rows


def _gram(rows: Tensor, steps: Tensor) -> Tensor:
    """<rows[i], steps[j]>, symmetric: (K, K), added up in float64."""
    gram = torch.empty(len(rows), len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = inner_product(rows[i], steps[j])
    return gram


def _mixed(before: Tensor | None, now: Tensor, rate: float) -> Tensor:
    """The running mean rate * before + (1 - rate) * now, in place where there is a before."""
    if before is None:
        return now * (1 - rate)
    return before.mul_(rate).add_(now, alpha=1 - rate)


def _scale(second: Tensor, rate: float, count: int, eps: float) -> Tensor:
    return second.div(1 - rate**count).sqrt_().add_(eps)


def _check_rates(*rates: float, eps: float) -> None:
    for rate in rates:
        if not isinstance(rate, Real) or not 0 <= rate < 1:
            raise UserError(f"a rate of Adam must lie in [0, 1), got {rate!r}")
    if not isinstance(eps, Real) or not (math.isfinite(eps) and eps > 0):
        raise UserError(f"eps must be a positive finite number, got {eps!r}")
