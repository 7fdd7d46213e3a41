"""Proposition 4.5: beyond k* there is a conflict, and k* is far from the first such k."""

import math

import pytest

from passgrad.bounds import sufficient_k
from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import bounds
from passgrad_book.experiments.checks.bounds import BOUND, THETAS, margin

pytestmark = pytest.mark.statement("prop-sufficient-k")

WORLD = TwoPointBandit()


def test_beyond_the_sufficient_k_there_is_a_conflict(case):
    for theta, curve, k_star, beyond in bounds.thresholds(THETAS):
        with case(theta=theta):
            assert 1 < curve.threshold < k_star
        (easy, hard), q, m = curve.success.tolist(), 0.5, margin(curve)
        assert len(beyond) >= 3
        for k, inner in beyond.items():
            # the bound behind it, with epsilon and delta the two success rates
            bound = (1 - hard) ** (k - 1) * m * q - (1 - easy) ** (k - 1) * BOUND * (1 - q)
            with case(theta=theta, k=k):
                assert bound > 0
                assert inner < 0
                assert inner <= -k * bound + 1e-16


def test_it_is_where_the_bound_vanishes(case):
    for theta, curve, k, _ in bounds.thresholds(THETAS):
        easy, hard = curve.success.tolist()
        against = (1 - hard) ** (k - 1) * margin(curve)
        with case(theta=theta):
            assert against == pytest.approx((1 - easy) ** (k - 1) * BOUND, rel=1e-9)


def test_it_needs_its_premise():
    curve = conflict(WORLD, (-2.0, -2.0))
    assert math.isnan(sufficient_k(curve, margin=1.0, score_bound=BOUND))
    rising = conflict(WORLD, (-2.0, 1.0))  # here the easy prompt disagrees, and it leads
    assert math.isnan(sufficient_k(rising, margin=margin(rising), score_bound=BOUND))
    flipped = conflict(WORLD, (2.0, -2.0))  # the "hard" prompt leads, the easy one is against
    assert not math.isnan(sufficient_k(flipped, margin=margin(flipped), score_bound=BOUND))
