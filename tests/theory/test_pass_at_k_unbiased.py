"""The estimate of pass@k from n samples: without bias, the only one, and none for k > n."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from passgrad.metrics import pass_at_k

pytestmark = pytest.mark.statement("prop-pass-at-k-unbiased")

RATES = [Fraction(0), Fraction(1, 7), Fraction(1, 2), Fraction(5, 6), Fraction(1)]


def test_its_mean_over_all_outcomes_is_pass_at_k(case):
    for n, p in itertools.product((1, 2, 5, 8), RATES):
        outcomes = list(itertools.product([0, 1], repeat=n))
        chances = [float(math.prod(p if r else 1 - p for r in outcome)) for outcome in outcomes]
        for k in range(1, n + 1):
            mean = np.array(chances) @ pass_at_k(n, [sum(outcome) for outcome in outcomes], k)
            with case(n=n, p=p, k=k):
                assert mean == pytest.approx(float(1 - (1 - p) ** k), abs=1e-14)


def test_the_formula_is_exact_in_fractions(case):
    for n in [2, 5, 8]:
        with case(n=n):
            for k, p in itertools.product(range(1, n + 1), RATES):
                mean = sum(
                    math.comb(n, c) * p**c * (1 - p) ** (n - c)
                    * (1 - Fraction(math.comb(n - c, k), math.comb(n, k)))
                    for c in range(n + 1)
                )  # fmt: skip
                assert mean == 1 - (1 - p) ** k


def solve(n, k):
    """The only function of the count with mean pass@k at n + 1 rates, and its error elsewhere."""
    rates = np.linspace(0.05, 0.95, n + 2)
    counts = np.arange(n + 1)
    law = np.array([[math.comb(n, c) for c in counts]]) * (
        rates[:, None] ** counts * (1 - rates[:, None]) ** (n - counts)
    )
    target = 1 - (1 - rates) ** k
    values = np.linalg.solve(law[:-1], target[:-1])
    return values, abs(law[-1] @ values - target[-1])


def test_no_other_function_of_the_count_has_this_mean(case):
    for n in [2, 4, 5]:
        with case(n=n):
            for k in range(1, n + 1):
                values, error = solve(n, k)
                assert values == pytest.approx(pass_at_k(n, np.arange(n + 1), k), abs=1e-10)
                assert error < 1e-10


def test_beyond_n_no_function_of_the_count_has_this_mean(case):
    for n, k in [(1, 2), (2, 3), (4, 5), (4, 9)]:
        with case(n=n, k=k):
            assert solve(n, k)[1] > 1e-6
