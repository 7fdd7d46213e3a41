"""Corollary 4.4 and Propositions 4.5 and 4.6, with the sign and the end point put right."""

import math

import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict, conflict_strength, proven_step_size, sufficient_k
from passgrad.objectives import PassAtK
from passgrad.training.ascent import ascend
from passgrad.worlds.bandit import TwoPointBandit

WORLD = TwoPointBandit()
BOUND = 1.01 / 4  # of E||s||^2 and E||Hess log pi||, at every theta
# Of negative slope: there the hard prompt is the one that disagrees with grad J_1.
THETAS = [(b, s) for b in (-4.0, -3.0, -2.0, -1.0) for s in (-4.0, -3.0, -2.0, -1.0)]


@pytest.fixture(params=THETAS, ids=str)
def theta(request):
    return request.param


def margin(curve):
    return -float(curve.agreement.min())


def test_the_strength_bounds_the_inner_product(theta):
    curve = conflict(WORLD, theta, ks=[2, 4, 10, 32])
    for k, inner in zip(curve.ks.tolist(), curve.inner_product, strict=True):
        strength = conflict_strength(curve, k, margin=margin(curve), score_bound=BOUND)
        assert inner <= -strength + 1e-16
        # A positive strength proves a conflict; "< 0", as printed, would prove nothing:
        if strength > 0:
            assert inner < 0


def test_a_negative_strength_occurs_without_a_conflict():
    curve = conflict(WORLD, (-2.0, -2.0), ks=[1.1])
    assert conflict_strength(curve, 1.1, margin=margin(curve), score_bound=BOUND) < 0
    assert curve.inner_product > 0


def test_beyond_the_sufficient_k_there_is_a_conflict(theta):
    curve = conflict(WORLD, theta)
    k = sufficient_k(curve, margin=margin(curve), score_bound=BOUND)
    assert curve.threshold <= k
    assert curve.inner_product_at(k * (1 + 1e-9)) < 0


def test_sufficient_k_needs_its_premise():
    curve = conflict(WORLD, (-2.0, -2.0))
    assert math.isnan(sufficient_k(curve, margin=1.0, score_bound=BOUND))
    rising = conflict(WORLD, (-2.0, 1.0))  # here the easy prompt disagrees, and it leads
    assert math.isnan(sufficient_k(rising, margin=margin(rising), score_bound=BOUND))
    flipped = conflict(WORLD, (2.0, -2.0))  # the "hard" prompt leads, the easy one is against
    assert not math.isnan(sufficient_k(flipped, margin=margin(flipped), score_bound=BOUND))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_proven_step_lowers_pass_at_1_and_raises_pass_at_k(theta, share):
    curve = conflict(WORLD, theta, ks=[10])
    largest = proven_step_size(
        curve, 10, margin=margin(curve), score_bound=BOUND, curvature_bound=BOUND
    )
    assert largest > 0
    trace = ascend(WORLD, theta, PassAtK(10), step_size=share * largest)
    one, ten = trace.pass_at_k(1), trace.pass_at_k(10)
    assert one[1] < one[0]
    # Eq. (17) and (18)
    strength = conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND)
    curvature = 100 * BOUND * (2 * BOUND) / 2
    step = share * largest
    assert one[1] <= one[0] - step * strength + curvature * step**2 + 1e-15
    assert ten[1] >= ten[0] + step / 2 * curve.norm[0] ** 2 - 1e-15


def test_the_bound_is_not_strict_at_its_end_point():
    curve = conflict(WORLD, (-2.0, -2.0), ks=[10])
    strength = conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND)
    curvature = 100 * BOUND * (2 * BOUND) / 2
    end = proven_step_size(
        curve, 10, margin=margin(curve), score_bound=BOUND, curvature_bound=BOUND
    )
    assert end == pytest.approx(strength / curvature, rel=1e-12)
    assert -end * strength + curvature * end**2 == pytest.approx(0, abs=1e-18)


def test_no_step_is_proven_without_strength():
    curve = conflict(WORLD, (-2.0, -2.0))
    step = proven_step_size(
        curve, 1.1, margin=margin(curve), score_bound=BOUND, curvature_bound=BOUND
    )
    assert step == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_margin_that_is_not_positive_is_refused(bad):
    curve = conflict(WORLD, torch.tensor([-2.0, -2.0]))
    with pytest.raises(UserError, match="margin"):
        conflict_strength(curve, 10, margin=bad, score_bound=BOUND)
