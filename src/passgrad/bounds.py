r"""Sufficient conditions for a conflict, and the steps for which it is proven or true.

The paper assumes constants G and F with :math:`E_y \|s\|^2 \le G^2` and
:math:`E_y \|\nabla s\| \le F` for the score :math:`s = \nabla \log \pi_\theta(y | x)`, on every
prompt and at every theta (Assumption 4.3). Here ``score_bound`` is G^2, ``curvature_bound`` is F.
From them follow a lower bound on the conflict (Corollary 4.4), a k beyond which there is one
(Proposition 4.5) and a step that trades pass@1 for pass@k (Proposition 4.6).

The score has mean zero, so that :math:`\nabla p = E[(r - p) s]` and

.. math:: \|\nabla p\| \le G \sqrt{p (1 - p)}.

The paper bounds it by G. With ``centred=True`` each function uses the sharper bound instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from passgrad.errors import UserError
from passgrad.interference import Conflict
from passgrad.objectives import PassAtK
from passgrad.orders import check_k
from passgrad.worlds.base import World

_STEP_RATIO = 1.02  # of neighbouring steps in the scan along a gradient
_SHIFT = 1e-3  # length in theta over which a slope is differenced


def agreement_bound(curve: Conflict, *, score_bound: float) -> Tensor:
    """G sqrt(p (1 - p)) ||grad J_1|| >= |a(x)|, (N,); the paper's bound is G^2 on every prompt.

    By Cauchy and Schwarz, twice: on <grad p, grad J_1> and on grad p = E[(r - p) s]. As
    ||grad J_1|| <= G E[sqrt(p (1 - p))] <= G / 2, it is at most a quarter of the paper's.
    """
    deviation = (curve.success * (1 - curve.success)).sqrt()
    return math.sqrt(score_bound) * curve.norm_at_1 * deviation


def conflict_strength(
    curve: Conflict, k: float, *, margin: float, score_bound: float, centred: bool = False
) -> float:
    """The delta = m W_- - G^2 W_+ with <grad J_k, grad J_1> <= -delta (paper, Corollary 4.4).

    W_- and W_+ are the means of w_k over the prompts with a(x) <= -m and over the others, m > 0 is
    ``margin``. A positive delta proves a conflict. (The paper prints "delta < 0"; its proofs use
    delta > 0.) ``centred`` replaces G^2 by :func:`agreement_bound` on each prompt.
    Raises UserError for a margin that is not positive.
    """
    weighted = curve.masses * PassAtK(k).weight(curve.success)
    against = _against(curve, margin)
    others = (weighted * _bound(curve, score_bound, centred))[~against].sum()
    return float(margin * weighted[against].sum() - others)


def sufficient_k(
    curve: Conflict, *, margin: float, score_bound: float, centred: bool = False
) -> float:
    """The k* beyond which Proposition 4.5 proves a conflict; nan where its premise does not hold.

    The premise: the prompts with a(x) <= -m have mass q > 0, and each of them has a lower success
    rate than every other prompt. It is sufficient only, see :attr:`Conflict.threshold`.
    ``centred`` replaces G^2 (1 - q) by the mean of :func:`agreement_bound` over the other prompts.
    """
    against = _against(curve, margin)
    if not against.any() or against.all():
        return math.nan
    highest, lowest = float(curve.success[against].max()), float(curve.success[~against].min())
    if not highest < lowest < 1:
        return math.nan
    q = float(curve.masses[against].sum())
    others = float((curve.masses * _bound(curve, score_bound, centred))[~against].sum())
    ratio = math.log(others / (q * margin))
    return max(1.0, 1 + ratio / (math.log1p(-highest) - math.log1p(-lowest)))


def gradient_bound(k: float, *, score_bound: float, centred: bool = False) -> float:
    r"""A bound on :math:`\|\nabla J_k\|` at every theta: k G (paper), of the order k.

    ``centred``: the largest value of k (1 - p)^(k - 1) G sqrt(p (1 - p)), which it takes at
    p = 1 / (2k): :math:`G \sqrt{k / 2} \, (1 - 1 / (2k))^{k - 1/2}`, of the order sqrt(k).
    """
    check_k(k)
    factor = math.sqrt(k / 2) * (1 - 1 / (2 * k)) ** (k - 0.5) if centred else k
    return factor * math.sqrt(score_bound)


def smoothness(
    k: float, *, score_bound: float, curvature_bound: float, centred: bool = False
) -> float:
    r"""L_k >= ||Hess J_k|| at every theta: k^2 G^2 + k F (paper, Appendix C), of the order k^2.

    ``centred``: :math:`k (G^2 + F) + (k - 1) (1 - 1/k)^{k - 1} G^2`, of the order k.
    The second term bounds k (k - 1) (1 - p)^(k - 2) ||grad p||^2, the first w_k ||Hess p||.
    For a k between 1 and 2 the paper's form holds as well, but only by the centred argument.
    """
    check_k(k)
    if not centred:
        return k**2 * score_bound + k * curvature_bound
    of_slope: float = (k - 1) * (1 - 1 / k) ** (k - 1) * score_bound
    return k * (score_bound + curvature_bound) + of_slope


def proven_step_size(
    curve: Conflict,
    k: float,
    *,
    margin: float,
    score_bound: float,
    curvature_bound: float,
    centred: bool = False,
) -> float:
    """The step size below which a step along grad J_k provably lowers J_1 and raises J_k.

    It is min(delta / C_2, 1 / L_k) of Proposition 4.6, with the delta of
    :func:`conflict_strength`, L_k of :func:`smoothness` and C_2 = L_1 / 2 times the square of
    :func:`gradient_bound`, which makes k^2 G^2 L_1 / 2; 0 where delta <= 0.
    The paper's bound, J_1(theta) - eta delta + C_2 eta^2, is no lower than J_1(theta) at
    eta = delta / C_2, an end point that the paper includes.
    """
    delta = conflict_strength(curve, k, margin=margin, score_bound=score_bound, centred=centred)
    gradient = gradient_bound(k, score_bound=score_bound, centred=centred)
    curvature = gradient**2 * (score_bound + curvature_bound) / 2
    smooth = smoothness(
        k, score_bound=score_bound, curvature_bound=curvature_bound, centred=centred
    )
    return max(0.0, min(delta / curvature, 1 / smooth))


def smooth_step_size(
    curve: Conflict, k: float, *, score_bound: float, curvature_bound: float
) -> float:
    """min(-2 <grad J_k, grad J_1> / (L_1 ||grad J_k||^2), 2 / L_k): from the two gradients alone.

    Below it a step along grad J_k lowers J_1 and raises J_k, by the same argument as Proposition
    4.6 with the inner product and the norm themselves in place of their bounds; 0 without a
    conflict. L_k is the centred one of :func:`smoothness`. Raises UserError for a k that is not
    among ``curve.ks``.
    """
    places = (curve.ks == k).nonzero()
    if not len(places):
        raise UserError(f"k = {k:g} is not among the ks of the curve: {curve.ks.tolist()}")
    inner, norm = float(curve.inner_product[places[0]]), float(curve.norm[places[0]])
    if inner >= 0:
        return 0.0
    smooth = smoothness(k, score_bound=score_bound, curvature_bound=curvature_bound, centred=True)
    return min(-2 * inner / ((score_bound + curvature_bound) * norm**2), 2 / smooth)


@dataclass(frozen=True)
class StepWindow:
    """J_1 and J_k along the ray theta + eta grad J_k, eta > 0: where they turn and come back.

    A step that is never reached is infinite. Without a conflict the two of J_1 are 0.
    """

    slope: float
    """<grad J_k, grad J_1>, the slope of J_1 at eta = 0."""
    curvature: float
    """The second derivative of J_1 along the ray at eta = 0."""
    falls_until: float
    """J_1 falls from 0 to this eta."""
    below_until: float
    """J_1 is below its value at 0 up to this eta."""
    rises_until: float
    """J_k rises from 0 to this eta."""
    above_until: float
    """J_k is above its value at 0 up to this eta."""

    @property
    def largest(self) -> float:
        """Each smaller step lowers J_1 and raises J_k: the window of the trade."""
        return min(self.below_until, self.above_until)

    @property
    def predicted_turn(self) -> float:
        """-slope / curvature: ``falls_until`` if J_1 were quadratic; inf for a curvature <= 0."""
        if self.slope >= 0:
            return 0.0
        return -self.slope / self.curvature if self.curvature > 0 else math.inf

    @property
    def predicted_return(self) -> float:
        """Twice :attr:`predicted_turn`: ``below_until`` if J_1 were quadratic."""
        return 2 * self.predicted_turn


def step_window(
    world: World, theta: Tensor | Sequence[float] | None, k: float, *, up_to: float = 1e4
) -> StepWindow:
    """The steps along grad J_k, up to eta = ``up_to``, that lower J_1 and raise J_k.

    The slopes along the ray are exact (one jvp each). The ray is scanned in steps that grow by 2 %
    from a millionth of the distance at which the second order predicts J_1 to turn, and each first
    change of sign is then solved for to rounding. A change that is undone within 2 % of eta goes
    unnoticed. The curvature is a difference of slopes, good to about ten digits.
    It costs up to some thousand passes: meant for worlds in float64 that are cheap to evaluate.
    Raises UserError for a gradient of zero and an ``up_to`` that is not positive and finite.
    """
    if not (math.isfinite(up_to) and up_to > 0):
        raise UserError(f"up_to must be positive and finite, got {up_to}")
    theta = world.parameters(theta)
    ray = _Ray(world, theta, world.objective_gradient(theta, PassAtK(k))[1])
    length = float(ray.direction.norm())
    if length == 0:
        raise UserError(f"grad J_{k:g} is zero at this theta: there is no ray to follow")
    slope = ray.slope(PassAtK(1))(0.0)
    curvature = ray.curvature(PassAtK(1), _SHIFT / length)
    scale = abs(slope / curvature) if slope * curvature != 0 else up_to
    grid = _geometric(1e-6 * min(scale, up_to), up_to)
    falls, below = (0.0, 0.0) if slope >= 0 else ray.turn_and_return(PassAtK(1), grid)
    return StepWindow(slope, curvature, falls, below, *ray.turn_and_return(PassAtK(k), grid))


@dataclass(frozen=True, eq=False)
class _Ray:
    """theta + eta direction."""

    world: World
    theta: Tensor
    direction: Tensor

    def slope(self, objective: PassAtK) -> Callable[[float], float]:
        """The derivative of J along the ray, as a function of eta."""

        def at(eta: float) -> float:
            there = self.theta + eta * self.direction
            weight = objective.weight(self.world.success(there))
            change = self.world.jvp(there, self.direction[None])[0]
            return float((self.world.masses * weight) @ change)

        return at

    def gain(self, objective: PassAtK) -> Callable[[float], float]:
        """J(theta + eta direction) - J(theta), as a function of eta."""
        before = objective.value(self.world.success(self.theta))

        def at(eta: float) -> float:
            after = objective.value(self.world.success(self.theta + eta * self.direction))
            return float(self.world.masses @ (after - before))

        return at

    def curvature(self, objective: PassAtK, h: float) -> float:
        """The second derivative at 0: a central difference of slopes, of the fourth order in h."""
        slope = self.slope(objective)
        near, far = slope(h) - slope(-h), slope(2 * h) - slope(-2 * h)
        return (8 * near - far) / (12 * h)

    def turn_and_return(self, objective: PassAtK, grid: list[float]) -> tuple[float, float]:
        """The first eta at which J turns, and the first at which it is back at its value at 0."""
        turn = _first_sign_change(self.slope(objective), grid)
        # Until it turns it is monotone, and has not come back.
        later = [turn, *(eta for eta in grid if eta > turn)]
        return turn, _first_sign_change(self.gain(objective), later)


def _first_sign_change(function: Callable[[float], float], grid: list[float]) -> float:
    """The first root beyond the first point of the grid, inf if there is none."""
    sign = 0.0
    for i, point in enumerate(grid):
        value = function(point) if math.isfinite(point) else 0.0
        if sign == 0:
            sign = math.copysign(1.0, value) if value else 0.0
        elif value * sign < 0:
            return float(brentq(function, grid[i - 1], point, xtol=1e-300, rtol=1e-14))
    return math.inf


def _geometric(first: float, last: float) -> list[float]:
    steps = math.ceil(math.log(last / first) / math.log(_STEP_RATIO))
    return torch.logspace(
        math.log10(first), math.log10(last), steps + 1, dtype=torch.float64
    ).tolist()


def _bound(curve: Conflict, score_bound: float, centred: bool) -> Tensor:
    """An upper bound on |a(x)|, (N,)."""
    if centred:
        return agreement_bound(curve, score_bound=score_bound)
    return torch.full_like(curve.agreement, score_bound)


def _against(curve: Conflict, margin: float) -> Tensor:
    if not margin > 0:
        raise UserError(f"margin must be positive, got {margin}")
    return curve.agreement <= -margin
