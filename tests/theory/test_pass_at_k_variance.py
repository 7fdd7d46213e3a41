"""The exact variance of the pass@k estimate, its unbiased estimate, and where there is none."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from passgrad.metrics import pass_at_k
from passgrad.stats import (
    pass_at_k_covariance,
    pass_at_k_covariance_estimate,
    pass_at_k_variance,
    pass_at_k_variance_estimate,
)

pytestmark = pytest.mark.statement(
    "prop-pass-at-k-variance", "prop-pass-at-k-variance-estimate", "cor-pass-at-k-variance-bounds"
)

RATES = [Fraction(1, 50), Fraction(1, 3), Fraction(7, 8)]


def over_outcomes(n, p):
    """All outcomes of n samples: their chances, and how many are right."""
    outcomes = itertools.product([0, 1], repeat=n)
    rows = [(math.prod(p if r else 1 - p for r in o), sum(o)) for o in outcomes]
    return np.array([float(chance) for chance, _ in rows]), np.array([c for _, c in rows])


@pytest.mark.parametrize("n", [1, 4, 7, 10])
@pytest.mark.parametrize("p", RATES)
def test_the_variance_over_all_outcomes(n, p):
    chance, correct = over_outcomes(n, p)
    for k in range(1, n + 1):
        estimate = pass_at_k(n, correct, k)
        enumerated = chance @ (estimate - chance @ estimate) ** 2
        assert pass_at_k_variance(float(p), n, k) == pytest.approx(enumerated, rel=1e-9, abs=1e-16)


def test_the_covariance_over_all_outcomes(case):
    for p in RATES:
        with case(p=p):
            n = 8
            chance, correct = over_outcomes(n, p)
            for j, k in itertools.product((1, 2, 5, 8), repeat=2):
                one, other = (x - chance @ x for x in (pass_at_k(n, correct, m) for m in (j, k)))
                found = pass_at_k_covariance(float(p), n, j, k)
                assert found == pytest.approx(chance @ (one * other), rel=1e-9, abs=1e-16)


def test_one_subset_and_one_sample_are_the_ends(case):
    for p in [0.01, 0.3, 0.9]:
        with case(p=p):
            q = 1 - p
            assert pass_at_k_variance(p, 12, 1) == pytest.approx(p * q / 12)
            # At k = n there is one subset, and the estimate is a coin.
            assert pass_at_k_variance(p, 12, 12) == pytest.approx((1 - q**12) * q**12)


def test_the_bounds(case):
    for p in [0.01, 0.3, 0.9]:
        with case(p=p):
            q = 1 - p
            for n, k in [(12, 1), (12, 5), (12, 12), (64, 16), (64, 33)]:
                value = pass_at_k_variance(p, n, k)
                first_order = k * k * q ** (2 * k - 2) * p * q / n
                coin = (1 - q**k) * q**k
                assert first_order * (1 - 1e-12) <= value <= k / n * coin * (1 + 1e-12)


def test_the_estimate_is_without_bias_up_to_half_the_samples(case):
    for p in RATES:
        with case(p=p):
            n = 10
            chance, correct = over_outcomes(n, p)
            for k in range(1, n // 2 + 1):
                mean = chance @ pass_at_k_variance_estimate(n, correct, k)
                assert mean == pytest.approx(pass_at_k_variance(float(p), n, k), rel=1e-9)
            for j, k in [(1, 9), (3, 7), (2, 4)]:
                mean = chance @ pass_at_k_covariance_estimate(n, correct, j, k)
                assert mean == pytest.approx(pass_at_k_covariance(float(p), n, j, k), rel=1e-9)


def test_beyond_no_function_of_the_count_is_without_bias(case):
    for n, j, k in [(1, 1, 1), (3, 2, 2), (4, 3, 3), (4, 2, 3), (5, 5, 5)]:
        with case(n=n, j=j, k=k):
            rates = np.linspace(0.05, 0.95, n + 2)
            counts = np.arange(n + 1)
            law = np.array([[math.comb(n, c) for c in counts]]) * (
                rates[:, None] ** counts * (1 - rates[:, None]) ** (n - counts)
            )
            target = pass_at_k_covariance(rates, n, j, k)
            values = np.linalg.solve(law[:-1], target[:-1])
            assert abs(law[-1] @ values - target[-1]) > 1e-6
