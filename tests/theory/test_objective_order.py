"""Which objectives are more concave than which: chains in k and T, and where they are not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.objective_map import curvature, more_concave
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, PassAtK

pytestmark = pytest.mark.statement("prop-order-of-objectives")

RATES = torch.linspace(0.002, 0.998, 499, dtype=torch.float64)
reals = st.floats(1, 40)
whole = st.integers(1, 40)
quick = settings(deadline=None, max_examples=60)


@quick
@given(k=reals, more=st.floats(0.01, 40))
def test_each_family_is_ordered_by_its_order(k, more):
    for family in (PassAtK, ArcsinSqrt, LogPassAtK):
        assert more_concave(family(k + more), family(k), RATES)
        assert not more_concave(family(k), family(k + more), RATES)


@quick
@given(order=whole, more=st.integers(1, 40))
def test_the_logarithm_is_ordered_by_its_order(order, more):
    low = RATES[(1 - RATES) ** order > 1e-9]  # above, the two weights differ by less than rounding
    assert more_concave(Log(order=order + more), Log(order=order), low)
    assert not more_concave(Log(order=order), Log(order=order + more), low)
    assert more_concave(Log(), Log(order=order), low)


@quick
@given(k=st.integers(2, 20), order=whole)
def test_pass_at_k_is_more_concave_than_the_logarithm_to_order_t_iff_t_is_below_2k(k, order):
    near_zero = torch.cat([torch.tensor([1e-5, 1e-4], dtype=torch.float64), RATES])
    assert more_concave(PassAtK(k), Log(order=order), near_zero) is (order <= 2 * k - 1)
    assert not more_concave(Log(order=order), PassAtK(k), near_zero)


@quick
@given(k=reals)
def test_the_logarithm_of_pass_at_k_is_above_both_its_neighbours(k):
    assert more_concave(LogPassAtK(k), PassAtK(k), RATES)
    assert more_concave(LogPassAtK(k), ArcsinSqrt(k), RATES)
    assert more_concave(LogPassAtK(k), Log(), RATES)


@pytest.mark.parametrize("k", [1.5, 2, 4, 32])
def test_pass_at_k_training_is_not_ordered_with_pass_at_k(k):
    f, g = ArcsinSqrt(k), PassAtK(k)
    assert not more_concave(f, g, RATES)
    assert not more_concave(g, f, RATES)
    # the ratio turns where half of the groups of k have a right answer
    below = (1 - (1 - RATES) ** k) < 0.5
    assert more_concave(f, g, RATES[below])
    assert more_concave(g, f, RATES[~below])


@pytest.mark.parametrize("k", [2, 5, 20])
def test_log_p_and_pass_at_k_change_places_at_one_over_k(k):
    low, high = RATES[k * RATES <= 1], RATES[k * RATES >= 1]
    assert more_concave(Log(), PassAtK(k), low)
    assert more_concave(PassAtK(k), Log(), high)
    assert not more_concave(Log(), PassAtK(k), RATES[RATES - 1 / k < 0.05])


def test_concave_or_not():
    """-f'' / f' >= 0 everywhere: not for GRPO, and for pass@k training from k = 2 on."""
    for objective in (PassAtK(1), PassAtK(9), Log(), Log(order=4), LogPassAtK(3), ArcsinSqrt(2)):
        assert (curvature(objective, RATES) >= -1e-12).all()
    assert (curvature(ArcsinSqrt(1.9), RATES) < 0).any()
    grpo = curvature(ArcsinSqrt(), RATES)
    assert (grpo[RATES > 0.5 + 1e-9] < 0).all()
    assert (grpo[RATES < 0.5 - 1e-9] > 0).all()
