"""Corollary 4.4 with its sign put right: delta > 0 proves a conflict, delta < 0 proves nothing."""

import pytest

from passgrad.bounds import conflict_strength
from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import bounds
from passgrad_book.experiments.checks.bounds import BOUND, KS, THETAS, margin

pytestmark = pytest.mark.statement("cor-strength")

WORLD = TwoPointBandit()


def test_the_strength_bounds_the_inner_product(case):
    for each in bounds.strengths(THETAS, shares=(0.2, 1.0)):
        with case(theta=each.theta, share=each.share, k=each.k):
            assert each.inner_product <= -each.delta + 1e-16


def test_it_does_at_slopes_of_either_sign_and_the_printed_sign_does_not():
    found = bounds.strength()
    assert found["missed"] == 0
    assert min(found["positive"], found["counterexamples_to_the_printed_sign"]) > 0


def test_it_bounds_the_inner_product_of_random_policies(bounded_policy):
    curve = conflict(bounded_policy, ks=KS)
    m = max(margin(curve), 1e-3)  # where no prompt disagrees the bound holds as well
    for k, inner in zip(KS, curve.inner_product, strict=True):
        strength = conflict_strength(curve, k, margin=m, score_bound=bounded_policy.score_bound)
        assert inner <= -strength + 1e-14


def test_a_positive_strength_occurs_and_means_conflict(case):
    found = list(bounds.strengths(THETAS))
    for each in found:
        with case(theta=each.theta, k=each.k):
            assert each.delta <= 0 or each.inner_product < 0
    assert max(each.delta for each in found if each.k == 10) > 0


def test_a_negative_strength_occurs_without_a_conflict():
    """What the paper prints, delta < 0, does not imply a conflict."""
    curve = conflict(WORLD, (-2.0, -2.0), ks=[1.1])
    assert conflict_strength(curve, 1.1, margin=margin(curve), score_bound=BOUND) < 0
    assert curve.inner_product[0] > 0
    # nor does it for an integer k >= 2, as the corollary asks
    rising = conflict(WORLD, (-2.0, 1.0), ks=[2])
    assert conflict_strength(rising, 2, margin=margin(rising), score_bound=BOUND) < 0
    assert rising.inner_product[0] > 0
