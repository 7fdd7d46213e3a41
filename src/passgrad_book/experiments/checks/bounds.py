"""Corollary 4.4, Proposition 4.5, the lemma of Appendix C and Proposition 4.6, in the toy.

What is compared at each setting comes from functions that ``tests/theory`` uses as well, at more
settings than a claim needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from passgrad.ascent.ascent import ascend
from passgrad.bounds import (
    agreement_bound,
    conflict_strength,
    gradient_bound,
    proven_step_size,
    sufficient_k,
)
from passgrad.bounds import smoothness as smoothness_bound
from passgrad.interference import Conflict, conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks.toy import BOUND, THETA, margin

KS = (2, 4, 10, 32)
#: of negative slope: there the hard prompt is the one that disagrees with grad J_1
THETAS = [(b, s) for b in (-4.0, -3.0, -2.0, -1.0) for s in (-4.0, -3.0, -2.0, -1.0)]
#: of any slope, where delta takes both signs
WIDE = [(b, s) for b in (-2.0, -1.0, 0.0, 1.0) for s in (-2.0, -1.0, 0.0, 1.0, 2.0)]


class Strength(NamedTuple):
    """delta of Corollary 4.4 for so large a share of the largest margin, and what it bounds."""

    theta: tuple[float, float]
    share: float
    k: float
    inner_product: float
    delta: float


def strengths(
    thetas: Sequence[tuple[float, float]], *, shares: Sequence[float] = (1.0,)
) -> Iterator[Strength]:
    """For each k in ``KS``, wherever some prompt disagrees with grad J_1."""
    for theta in thetas:
        curve = conflict(TwoPointBandit(), theta, ks=KS)
        if margin(curve) <= 0:
            continue
        for share in shares:
            for k, inner in zip(KS, curve.inner_product.tolist(), strict=True):
                delta = conflict_strength(curve, k, margin=share * margin(curve), score_bound=BOUND)
                yield Strength(theta, share, k, inner, delta)


def strength() -> dict[str, float]:
    """Corollary 4.4: is -delta ever missed, and where is the printed condition wrong?"""
    found = list(strengths(WIDE))
    curve = conflict(TwoPointBandit(), THETA, ks=[10])
    value = conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND)
    return {
        "missed": sum(each.inner_product > -each.delta + 1e-16 for each in found),
        "positive": sum(each.delta > 0 for each in found),
        # "if in addition delta < 0, then the inner product is at most -delta < 0"
        "counterexamples_to_the_printed_sign": sum(
            each.delta < 0 < each.inner_product for each in found
        ),
        "delta": value,
    }


class Threshold(NamedTuple):
    """k* of Proposition 4.5, and the products at multiples of it."""

    theta: tuple[float, float]
    curve: Conflict
    k: float
    beyond: dict[float, float]
    """<grad J_k, grad J_1> by k."""


def thresholds(thetas: Sequence[tuple[float, float]]) -> Iterator[Threshold]:
    """At k* and up to a hundred times as far."""
    for theta in thetas:
        curve = conflict(TwoPointBandit(), theta)
        k = sufficient_k(curve, margin=margin(curve), score_bound=BOUND)
        orders = [k * factor for factor in (1 + 1e-9, 1.5, 2, 10, 100)]
        beyond = {} if math.isnan(k) else {order: curve.inner_product_at(order) for order in orders}
        yield Threshold(theta, curve, k, beyond)


def threshold() -> dict[str, float]:
    """Proposition 4.5: agreements found beyond k*, and k* in the example of Section 3.3."""
    missed = 0
    for each in thresholds(THETAS):
        missed += math.isnan(each.k)
        missed += sum(not inner < 0 for inner in each.beyond.values())
    (example,) = thresholds([THETA])
    return {"missed": missed, "k_star": example.k}


def hessian_norms(
    rates: Callable[[Tensor], Tensor], masses: Tensor, theta: Tensor, ks: Sequence[float]
) -> Tensor:
    """||Hess J_k|| at theta for each k, (K,), by autograd through 1 - (1 - p)^k alone.

    :param rates: From theta, (d,), to p, (N,).
    """
    orders = torch.tensor(ks, dtype=torch.float64)[:, None]

    def values(at: Tensor) -> Tensor:
        return (1 - (1 - rates(at)) ** orders) @ masses

    hessians = torch.func.hessian(values)(theta)
    return torch.linalg.eigvalsh(hessians).abs().amax(dim=-1)


def smoothness_bounds(
    ks: Sequence[float], *, score_bound: float = BOUND, curvature_bound: float = BOUND
) -> tuple[Tensor, Tensor]:
    """L_k of the paper and the sharper one, each (K,)."""
    paper, sharper = (
        torch.tensor(
            [
                smoothness_bound(
                    k, score_bound=score_bound, curvature_bound=curvature_bound, centred=centred
                )
                for k in ks
            ],
            dtype=torch.float64,
        )
        for centred in (False, True)
    )
    return paper, sharper


def smoothness() -> dict[str, float]:
    """Appendix C: the largest ||Hess J_k|| / L_k over settings, with L_k = k^2 G^2 + k F."""
    world, ks = TwoPointBandit(), (1, *KS, 100)
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)

    def rates(theta: Tensor) -> Tensor:
        return torch.sigmoid(sign * (world.features @ theta))

    norms = torch.stack(
        [
            hessian_norms(rates, world.masses, torch.tensor(theta, dtype=torch.float64), ks)
            for theta in WIDE
        ]
    )
    paper, sharper = smoothness_bounds(ks)
    return {
        "largest_ratio": float((norms / paper).max()),
        "largest_ratio_sharper": float((norms / sharper).max()),
    }


class Step(NamedTuple):
    """A step along grad J_k inside the range of Proposition 4.6, and what it does."""

    theta: tuple[float, float]
    k: float
    centred: bool
    share: float
    """Of the largest step that is proven."""
    size: float
    fall: float
    """Of J_1."""
    gain: float
    """Of J_k."""
    proven_fall: float
    """size delta - size^2 C_2, equation (17)."""
    proven_gain: float
    """size / 2 ||grad J_k||^2, equation (18)."""

    @property
    def kept(self) -> bool:
        """Does J_1 fall, and does J_k gain what is proven?"""
        return self.fall > 0 and self.gain >= self.proven_gain - 1e-15


def proven_steps(
    thetas: Sequence[tuple[float, float]], ks: Sequence[float], *, centred: bool = False
) -> Iterator[Step]:
    """Three steps for each theta and k with delta > 0, up to all but the largest one."""
    world = TwoPointBandit()
    bounds = {"score_bound": BOUND, "centred": centred}
    for theta in thetas:
        curve = conflict(world, theta, ks=ks)
        for place, k in enumerate(ks):
            delta = conflict_strength(curve, k, margin=margin(curve), **bounds)  # type: ignore[arg-type]
            if delta <= 0:
                continue
            largest = _largest_step(curve, k, centred)
            curvature = gradient_bound(k, **bounds) ** 2 * BOUND  # type: ignore[arg-type]
            for share in (0.01, 0.5, 0.999):
                size = share * largest
                trace = ascend(world, theta, PassAtK(k), step_size=size)
                one, many = trace.pass_at_k(1).tolist(), trace.pass_at_k(k).tolist()
                yield Step(
                    theta,
                    k,
                    centred,
                    share,
                    size,
                    fall=one[0] - one[1],
                    gain=many[1] - many[0],
                    proven_fall=size * delta - curvature * size**2,
                    proven_gain=size / 2 * float(curve.norm[place]) ** 2,
                )


def _largest_step(curve: Conflict, k: float, centred: bool = False) -> float:
    return proven_step_size(
        curve, k, margin=margin(curve), score_bound=BOUND, curvature_bound=BOUND, centred=centred
    )


def step_size() -> dict[str, float]:
    """Proposition 4.6: steps inside its range that fail, and its bound at the end point."""
    steps = list(proven_steps(THETAS, KS))
    return {
        "missed": sum(not step.kept for step in steps),
        "tried": len(steps),
        "largest_step": _largest_step(conflict(TwoPointBandit(), THETA, ks=[10]), 10),
        "printed_fall_at_the_end_point": _fall_at_the_end_point(),
    }


class EndPoint(NamedTuple):
    """The end of the range of Proposition 4.6 as it is printed, in exact fractions."""

    delta: Fraction
    c_2: Fraction

    @property
    def size(self) -> Fraction:
        """Where the bound vanishes, delta / C_2."""
        return self.delta / self.c_2

    def proven_fall(self, share: Fraction = Fraction(1)) -> Fraction:
        """The printed strict fall of J_1, delta eta - C_2 eta^2, at that share of the end point."""
        eta = share * self.size
        return self.delta * eta - self.c_2 * eta**2


def end_point(curve: Conflict, k: int) -> EndPoint:
    """From a curve of the two-point bandit that has k."""
    delta = Fraction(conflict_strength(curve, k, margin=margin(curve), score_bound=BOUND))
    return EndPoint(delta, k**2 * Fraction(BOUND) * 2 * Fraction(BOUND) / 2)


def _fall_at_the_end_point() -> float:
    return float(end_point(conflict(TwoPointBandit(), THETA, ks=[10]), 10).proven_fall())


def agreements() -> dict[str, float]:
    """The sharper bound of |a| against |a| itself and against the paper's G^2."""
    worst = share = 0.0
    for theta in WIDE + THETAS:
        curve = conflict(TwoPointBandit(), theta)
        bound = agreement_bound(curve, score_bound=BOUND)
        worst = max(worst, float((curve.agreement.abs() / bound).max()))
        share = max(share, float(bound.max()) / BOUND)
    return {"agreement_over_bound": worst, "bound_over_the_papers": share}
