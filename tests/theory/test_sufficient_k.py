"""Proposition 4.5: beyond k* there is a conflict, and k* is far from the first such k."""

import math

import pytest

from passgrad.bounds import sufficient_k
from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-sufficient-k")

WORLD = TwoPointBandit()
BOUND = 1.01 / 4
THETAS = [(b, s) for b in (-4.0, -3.0, -2.0, -1.0) for s in (-4.0, -3.0, -2.0, -1.0)]


def margin(curve):
    return -float(curve.agreement.min())


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_beyond_the_sufficient_k_there_is_a_conflict(theta):
    curve = conflict(WORLD, theta)
    k = sufficient_k(curve, margin=margin(curve), score_bound=BOUND)
    assert 1 < curve.threshold < k
    for factor in (1 + 1e-9, 1.5, 10):
        assert curve.inner_product_at(k * factor) < 0
        # the bound behind it, with epsilon and delta the two success rates
        (easy, hard), q, m = curve.success.tolist(), 0.5, margin(curve)
        j = k * factor - 1
        bound = (1 - hard) ** j * m * q - (1 - easy) ** j * BOUND * (1 - q)
        assert bound > 0
        assert curve.inner_product_at(j + 1) <= -(j + 1) * bound + 1e-16


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_it_is_where_the_bound_vanishes(theta):
    curve = conflict(WORLD, theta)
    k, m = sufficient_k(curve, margin=margin(curve), score_bound=BOUND), margin(curve)
    easy, hard = curve.success.tolist()
    assert (1 - hard) ** (k - 1) * m == pytest.approx((1 - easy) ** (k - 1) * BOUND, rel=1e-9)


def test_it_needs_its_premise():
    curve = conflict(WORLD, (-2.0, -2.0))
    assert math.isnan(sufficient_k(curve, margin=1.0, score_bound=BOUND))
    rising = conflict(WORLD, (-2.0, 1.0))  # here the easy prompt disagrees, and it leads
    assert math.isnan(sufficient_k(rising, margin=margin(rising), score_bound=BOUND))
    flipped = conflict(WORLD, (2.0, -2.0))  # the "hard" prompt leads, the easy one is against
    assert not math.isnan(sufficient_k(flipped, margin=margin(flipped), score_bound=BOUND))
