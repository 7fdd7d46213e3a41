import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.exponential_sums import ordered, sign_change_points, sign_changes


def test_sign_changes_skip_zeros():
    assert sign_changes([]) == sign_changes([0, 0]) == sign_changes([0, 3, 0, 1]) == 0
    assert sign_changes([1, 0, -1, 0, 0, -2, 5]) == 2


def test_terms_are_ordered_merged_and_dropped():
    rates, coefficients = ordered([2.0, 0.5, 2.0, 1.0, 1.0], [1.0, 3.0, 4.0, 2.0, -2.0])
    assert rates.tolist() == [0.5, 2.0]
    assert coefficients.tolist() == [3.0, 5.0]


def from_roots(roots):
    """Coefficients of prod (x - exp(-t)) in rising powers of x = exp(-t): its roots are known."""
    coefficients = np.array([1.0])
    for t in roots:
        coefficients = np.convolve(coefficients, [-math.exp(-t), 1.0])
    return np.arange(len(coefficients), dtype=float), coefficients


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0.05, 2), min_size=1, max_size=5),
    shift=st.floats(0, 3),
    scale=st.floats(1e-6, 1e6),
)
def test_known_roots_are_found(gaps, shift, scale):
    roots = np.cumsum(gaps)
    rates, coefficients = from_roots(roots)
    found = sign_change_points((rates + shift) / scale, coefficients, math.inf)
    np.testing.assert_allclose(found / scale, roots, rtol=1e-6)


def test_a_root_at_the_horizon_is_found():
    rates, coefficients = from_roots([np.nextafter(2.0, 0.0)])
    np.testing.assert_allclose(sign_change_points(rates, coefficients, math.inf), [2.0])


def test_roots_outside_the_interval_are_left_out():
    rates, coefficients = from_roots([-0.5, 0.5, 1.5])
    np.testing.assert_allclose(sign_change_points(rates, coefficients, math.inf), [0.5, 1.5])
    np.testing.assert_allclose(sign_change_points(rates, coefficients, 1.0), [0.5])
    assert len(sign_change_points(rates, coefficients, 0.4)) == 0
    assert len(sign_change_points(rates, coefficients, 0.0)) == 0


def test_a_double_root_is_no_change_of_sign():
    rates, coefficients = from_roots([0.5, 0.5, 1.5])
    np.testing.assert_allclose(sign_change_points(rates, coefficients, math.inf), [1.5], rtol=1e-9)


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_two_roots_that_lie_close_are_told_apart(distance):
    rates, coefficients = from_roots([1.0, 1.0 + distance])
    found = sign_change_points(rates, coefficients, math.inf)
    np.testing.assert_allclose(found, [1.0, 1.0 + distance], atol=0.05 * distance)


def test_two_roots_on_either_side_of_where_the_sum_is_flat():
    """In the middle of an interval, where its slope says nothing of them: the bend does."""
    for middle in (0.384, 0.768, 1.536):  # of the intervals that are looked at first
        roots = [0.87 * middle, 1.13 * middle]
        rates, coefficients = from_roots(roots)
        np.testing.assert_allclose(sign_change_points(rates, coefficients, math.inf), roots)


def test_no_term_and_terms_of_one_sign_have_no_roots():
    assert len(sign_change_points([], [], math.inf)) == 0
    assert len(sign_change_points([1.0, 1.0], [2.0, -2.0], math.inf)) == 0
    assert len(sign_change_points([0.0, 1.0], [2.0, 3.0], math.inf)) == 0


def test_a_distant_root_where_every_term_underflows():
    # 2 exp(-1001 t) = exp(-(1000 + 1001e-9) t ...): rates that differ in the ninth digit
    (root,) = sign_change_points([1000.0, 1000.0 + 1e-9], [-1.0, 2.0], math.inf)
    difference = (1000.0 + 1e-9) - 1000.0
    assert root == pytest.approx(math.log(2) / difference, rel=1e-12)


def test_many_terms_in_little_memory(monkeypatch):
    import passgrad.exponential_sums as module

    rng = np.random.default_rng(0)
    rates, coefficients = rng.exponential(size=500), rng.normal(size=500)
    at_once = sign_change_points(rates, coefficients, math.inf)
    monkeypatch.setattr(module, "_LARGEST_BLOCK", 1000)
    np.testing.assert_array_equal(sign_change_points(rates, coefficients, math.inf), at_once)
