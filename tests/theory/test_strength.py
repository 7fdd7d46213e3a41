"""Corollary 4.4 with its sign put right: delta > 0 proves a conflict, delta < 0 proves nothing."""

import pytest

from passgrad.bounds import conflict_strength
from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("cor-strength")

WORLD = TwoPointBandit()
BOUND = 1.01 / 4  # of E||s||^2, at every theta
# Of negative slope: there the hard prompt is the one that disagrees with grad J_1.
THETAS = [(b, s) for b in (-4.0, -3.0, -2.0, -1.0) for s in (-4.0, -3.0, -2.0, -1.0)]
KS = [2, 4, 10, 32]


def margin(curve):
    return -float(curve.agreement.min())


@pytest.mark.parametrize("theta", THETAS, ids=str)
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_strength_bounds_the_inner_product(theta, share):
    curve = conflict(WORLD, theta, ks=KS)
    m = share * margin(curve)
    for k, inner in zip(KS, curve.inner_product, strict=True):
        strength = conflict_strength(curve, k, margin=m, score_bound=BOUND)
        assert inner <= -strength + 1e-16


def test_it_bounds_the_inner_product_of_random_policies(bounded_policy):
    curve = conflict(bounded_policy, ks=KS)
    m = max(margin(curve), 1e-3)  # where no prompt disagrees the bound holds as well
    for k, inner in zip(KS, curve.inner_product, strict=True):
        strength = conflict_strength(curve, k, margin=m, score_bound=bounded_policy.score_bound)
        assert inner <= -strength + 1e-14


def test_a_positive_strength_occurs_and_means_conflict():
    strengths = []
    for theta in THETAS:
        curve = conflict(WORLD, theta, ks=[10])
        strengths.append(conflict_strength(curve, 10, margin=margin(curve), score_bound=BOUND))
        assert strengths[-1] <= 0 or curve.inner_product[0] < 0
    assert max(strengths) > 0


def test_a_negative_strength_occurs_without_a_conflict():
    """What the paper prints, delta < 0, does not imply a conflict."""
    curve = conflict(WORLD, (-2.0, -2.0), ks=[1.1])
    assert conflict_strength(curve, 1.1, margin=margin(curve), score_bound=BOUND) < 0
    assert curve.inner_product[0] > 0
    # nor does it for an integer k >= 2, as the corollary asks
    rising = conflict(WORLD, (-2.0, 1.0), ks=[2])
    assert conflict_strength(rising, 2, margin=margin(rising), score_bound=BOUND) < 0
    assert rising.inner_product[0] > 0
