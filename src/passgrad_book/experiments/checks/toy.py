"""The two-point example of the paper (Section 3.3), at theta = (-2, -2).

The paper does not print theta; it follows from the weights that it prints.
"""

from __future__ import annotations

import math

from torch import Tensor

from passgrad.ascent.ascent import ascend
from passgrad.bounds import proven_step_size, step_window, sufficient_k
from passgrad.interference import Conflict, conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

THETA = (-2.0, -2.0)
K, STEP_SIZE = 10, 5.0
#: bound of E||s||^2 and of E||Hess log pi|| of this policy: ||psi||^2 / 4, at every theta
BOUND = 1.01 / 4


def _curve(*ks: float) -> Conflict:
    return conflict(TwoPointBandit(), THETA, ks=ks or (K,))


def _cosine(u: Tensor, v: Tensor) -> float:
    return float(u @ v / (u.norm() * v.norm()))


def margin(curve: Conflict) -> float:
    """The largest m of Section 4.2 for which some prompt has a(x) <= -m."""
    return -float(curve.agreement.min())


def rates_and_weights() -> dict[str, float]:
    """Success rates of the easy and the hard prompt, and their weights at k = 10."""
    curve = _curve()
    (p_easy, p_hard), (w_easy, w_hard) = curve.success.tolist(), curve.weights[0].tolist()
    return {"p_easy": p_easy, "p_hard": p_hard, "w_easy": w_easy, "w_hard": w_hard}


def geometry() -> dict[str, float]:
    """Cosine of the features, kernel, and cosine of the gradients of the success rates."""
    world = TwoPointBandit()
    kernel = world.kernel(THETA)
    return {
        "cos_features": _cosine(*world.features),
        "kernel": float(kernel[0, 1]),
        "cos_success": float(kernel[0, 1] / kernel.diagonal().prod().sqrt()),
    }


def gradients() -> dict[str, float]:
    """Cosine and inner product of the gradients of pass@1 and pass@10."""
    curve = _curve()
    return {
        "cosine": float(curve.cosine[0]),
        "degrees": math.degrees(math.acos(float(curve.cosine[0]))),
        "inner_product": float(curve.inner_product[0]),
    }


def step() -> dict[str, float]:
    """Pass@1 and pass@10 before and after one step of size 5 up pass@10."""
    trace = ascend(TwoPointBandit(), THETA, PassAtK(K), step_size=STEP_SIZE)
    one, ten = trace.pass_at_k(1).tolist(), trace.pass_at_k(K).tolist()
    return {
        "pass_at_1_before": one[0],
        "pass_at_1_after": one[1],
        "pass_at_10_before": ten[0],
        "pass_at_10_after": ten[1],
    }


def threshold() -> dict[str, float]:
    """The k from which there is a conflict: exact, proven by the paper, and by sharper bounds."""
    curve = _curve()
    m = margin(curve)
    return {
        "exact": curve.threshold,
        "proven": sufficient_k(curve, margin=m, score_bound=BOUND),
        "proven_sharper": sufficient_k(curve, margin=m, score_bound=BOUND, centred=True),
        "cosine_at_2": float(_curve(2).cosine[0]),
    }


def step_size() -> dict[str, float]:
    """The demonstration's step against the proven one and the true window."""
    curve = _curve()
    proven, sharper = (
        proven_step_size(
            curve, K, margin=margin(curve), score_bound=BOUND, curvature_bound=BOUND, centred=one
        )
        for one in (False, True)
    )
    window = step_window(TwoPointBandit(), THETA, K)
    return {
        "times_the_proven": STEP_SIZE / proven,
        "times_the_sharper": STEP_SIZE / sharper,
        "window": window.largest,
    }
