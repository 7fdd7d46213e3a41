"""Corollary 4.4, Proposition 4.5, the lemma of Appendix C and Proposition 4.6, in the toy."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from passgrad.ascent.ascent import ascend
from passgrad.bounds import agreement_bound, conflict_strength, proven_step_size, sufficient_k
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


def strength() -> dict[str, float]:
    """Corollary 4.4: is -delta ever missed, and where is the printed condition wrong?"""
    missed = printed_wrong = proven = 0
    for theta in WIDE:
        curve = conflict(TwoPointBandit(), theta, ks=KS)
        if margin(curve) <= 0:
            continue
        for k, inner in zip(KS, curve.inner_product.tolist(), strict=True):
            delta = conflict_strength(curve, k, margin=margin(curve), score_bound=BOUND)
            missed += inner > -delta + 1e-16
            proven += delta > 0
            # "if in addition delta < 0, then the inner product is at most -delta < 0"
            printed_wrong += delta < 0 and inner > 0
    curve = conflict(TwoPointBandit(), THETA, ks=[10])
    value = conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND)
    return {
        "missed": missed,
        "positive": proven,
        "counterexamples_to_the_printed_sign": printed_wrong,
        "delta": value,
    }


def threshold() -> dict[str, float]:
    """Proposition 4.5: agreements found beyond k*, and k* in the example of Section 3.3."""
    missed = 0
    for theta in THETAS:
        curve = conflict(TwoPointBandit(), theta)
        k = sufficient_k(curve, margin=margin(curve), score_bound=BOUND)
        missed += math.isnan(k)
        missed += sum(not curve.inner_product_at(k * more) < 0 for more in (1 + 1e-9, 2, 10, 100))
    curve = conflict(TwoPointBandit(), THETA)
    known = sufficient_k(curve, margin=margin(curve), score_bound=BOUND)
    return {"missed": missed, "k_star": known}


def _smoothness(k: float, centred: bool) -> float:
    return smoothness_bound(k, score_bound=BOUND, curvature_bound=BOUND, centred=centred)


def _largest_step(curve: Conflict, k: float) -> float:
    known = {"margin": margin(curve), "score_bound": BOUND, "curvature_bound": BOUND}
    return proven_step_size(curve, k, **known)  # type: ignore[arg-type]


def smoothness() -> dict[str, float]:
    """Appendix C: the largest ||Hess J_k|| / L_k over settings, with L_k = k^2 G^2 + k F."""
    world = TwoPointBandit()
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    largest = sharper = 0.0
    for k in (1, *KS, 100):
        for theta in WIDE:

            def value(at: torch.Tensor, k: float = k) -> torch.Tensor:
                p = torch.sigmoid(sign * (world.features @ at))
                return world.masses @ (1 - (1 - p) ** k)

            hessian = torch.func.hessian(value)(torch.tensor(theta, dtype=torch.float64))
            norm = float(torch.linalg.eigvalsh(hessian).abs().max())
            largest = max(largest, norm / _smoothness(k, False))
            sharper = max(sharper, norm / _smoothness(k, True))
    return {"largest_ratio": largest, "largest_ratio_sharper": sharper}


def step_size() -> dict[str, float]:
    """Proposition 4.6: steps inside its range that fail, and its bound at the end point."""
    world, missed, tried = TwoPointBandit(), 0, 0
    for theta in THETAS:
        curve = conflict(world, theta, ks=KS)
        for place, k in enumerate(KS):
            delta = conflict_strength(curve, k, margin=margin(curve), score_bound=BOUND)
            if delta <= 0:
                continue
            for share in (0.01, 0.5, 0.999):
                step = share * _largest_step(curve, k)
                trace = ascend(world, theta, PassAtK(k), step_size=step)
                one, many = trace.pass_at_k(1).tolist(), trace.pass_at_k(k).tolist()
                gain = step / 2 * float(curve.norm[place]) ** 2
                tried += 1
                missed += not (one[1] < one[0] and many[1] >= many[0] + gain - 1e-15)
    curve = conflict(world, THETA, ks=[10])
    return {
        "missed": missed,
        "tried": tried,
        "largest_step": _largest_step(curve, 10),
        "printed_fall_at_the_end_point": _fall_at_the_end_point(),
    }


def _fall_at_the_end_point() -> float:
    """The value of delta eta - C_2 eta^2 at eta = delta / C_2, in exact fractions.

    The paper prints it as the strict fall of J_1.
    """
    curve = conflict(TwoPointBandit(), THETA, ks=[10])
    delta = Fraction(conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND))
    c_2 = 10**2 * Fraction(BOUND) * 2 * Fraction(BOUND) / 2
    eta = delta / c_2
    return float(delta * eta - c_2 * eta**2)


def agreements() -> dict[str, float]:
    """The sharper bound of |a| against |a| itself and against the paper's G^2."""
    worst = share = 0.0
    for theta in WIDE + THETAS:
        curve = conflict(TwoPointBandit(), theta)
        bound = agreement_bound(curve, score_bound=BOUND)
        worst = max(worst, float((curve.agreement.abs() / bound).max()))
        share = max(share, float(bound.max()) / BOUND)
    return {"agreement_over_bound": worst, "bound_over_the_papers": share}
