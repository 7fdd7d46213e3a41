import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import variance
from passgrad.stats.variance import (
    overlap_law,
    pass_at_k_covariance,
    pass_at_k_covariance_estimate,
    pass_at_k_variance,
    pass_at_k_variance_estimate,
    plug_in_pass_at_k,
)


@st.composite
def orders(draw, largest=30):
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(1, n)), draw(st.integers(1, n))


@settings(deadline=None)  # the machine may be busy
@given(orders(400))
def test_the_overlap_is_hypergeometric(case):
    n, j, k = case
    i, law = overlap_law(n, j, k)
    assert law == pytest.approx(hypergeom.pmf(i, n, j, k), rel=1e-9, abs=1e-300)
    exact = [
        Fraction(math.comb(j, int(x)) * math.comb(n - j, k - int(x)), math.comb(n, k)) for x in i
    ]
    assert law == pytest.approx([float(x) for x in exact], rel=1e-12, abs=1e-300)


@settings(deadline=None, max_examples=60)
@given(orders(), st.fractions(0, 1, max_denominator=50))
def test_it_is_the_covariance_under_the_binomial_law(case, p):
    n, j, k = case
    exact = covariance(n, j, k, p)
    assert pass_at_k_covariance(float(p), n, j, k) == pytest.approx(
        float(exact), rel=1e-9, abs=1e-300
    )


def covariance(n, j, k, p):
    law = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    one, other = (
        [1 - Fraction(math.comb(n - c, m), math.comb(n, m)) for c in range(n + 1)] for m in (j, k)
    )
    means = [sum(w * x for w, x in zip(law, values, strict=True)) for values in (one, other)]
    product = sum(w * x * y for w, x, y in zip(law, one, other, strict=True))
    return product - means[0] * means[1]


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize(("j", "k"), [(1, 1), (3, 4), (8, 8)])
def test_nothing_varies_at_the_ends(p, j, k):
    assert pass_at_k_covariance(p, 8, j, k) == 0


@pytest.mark.parametrize(("k", "p"), [(1, 0.3), (5 * 10**5, 1e-6), (9 * 10**5, 3e-6), (3000, 1e-4)])
def test_a_million_samples(k, p):
    n = 10**6
    c = np.arange(0, 400) if p < 0.01 else None
    if c is None:
        expected = p * (1 - p) / n
    else:
        law = binom.pmf(c, n, p)
        value = pass_at_k(n, c, k)
        mean = -np.expm1(k * np.log1p(-p))
        expected = law @ (value - mean) ** 2
    assert pass_at_k_variance(p, n, k) == pytest.approx(expected, rel=1e-8)


def test_it_broadcasts_over_prompts_samples_and_orders():
    p = np.linspace(0.1, 0.9, 5)
    table = pass_at_k_variance(p[:, None], [8, 16, 16], [2, 2, 8])
    assert table.shape == (5, 3)
    assert table[3, 2] == pytest.approx(pass_at_k_variance(p[3], 16, 8), rel=1e-14)
    assert isinstance(pass_at_k_variance(0.5, 8, 2), float)
    assert pass_at_k_covariance(np.full((2, 3), 0.5), 8, 1, 2).shape == (2, 3)


def test_many_rates_are_done_in_parts(monkeypatch):
    p = np.linspace(0, 1, 11)
    whole = pass_at_k_covariance(p, 12, 3, 6)
    monkeypatch.setattr(variance, "_CHUNK", 5)
    assert pass_at_k_covariance(p, 12, 3, 6) == pytest.approx(whole, rel=1e-15)


@pytest.mark.parametrize(("j", "k"), [(1, 1), (2, 2), (1, 5), (3, 6), (5, 5)])
@pytest.mark.parametrize("p", [0.03, 0.4, 0.95])
def test_the_estimate_has_the_covariance_as_its_mean(j, k, p):
    n = 10
    counts = np.arange(n + 1)
    mean = binom.pmf(counts, n, p) @ pass_at_k_covariance_estimate(n, counts, j, k)
    assert mean == pytest.approx(pass_at_k_covariance(p, n, j, k), rel=1e-10)


def test_the_estimate_of_the_variance_is_never_negative():
    estimates = pass_at_k_variance_estimate(64, np.arange(65)[:, None], np.arange(1, 33))
    assert estimates.shape == (65, 32)
    assert (estimates >= 0).all()
    assert isinstance(pass_at_k_variance_estimate(4, 1, 2), float)
    assert pass_at_k_variance_estimate(8, 3, 1) == pytest.approx(3 * 5 / (8 * 8 * 7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pass_at_k_variance_estimate(15, 3, 8),
            r"variance of pass@8 .* for 15 samples: draw at least 16",
        ),
        (
            lambda: pass_at_k_covariance_estimate(8, [1, 2], 3, 6),
            "between pass@3 and pass@6 exists",
        ),
        (lambda: pass_at_k_variance_estimate(8, 9, 2), "num_correct = 9 exceeds"),
        (lambda: pass_at_k_variance(1.5, 8, 2), "between 0 and 1"),
        (lambda: pass_at_k_variance(math.nan, 8, 2), "between 0 and 1"),
        (lambda: pass_at_k_variance(0.5, 8, 9), "k = 9 exceeds num_samples = 8"),
        (lambda: pass_at_k_covariance(0.5, 8, 0, 2), "at least 1"),
        (lambda: plug_in_pass_at_k(8, 2, 9), "k = 9 exceeds"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_plug_in_of_one_success_in_sixteen():
    assert plug_in_pass_at_k(16, 1, 16) == pytest.approx(1 - (15 / 16) ** 16)
    assert pass_at_k(16, 1, 16) == 1
    assert plug_in_pass_at_k(16, [0, 8, 16], [[1], [3]]) == pytest.approx(
        np.array([[0, 0.5, 1], [0, 0.875, 1]])
    )
    assert math.copysign(1, plug_in_pass_at_k(5, 0, 2)) == 1


def test_docstrings():
    assert doctest.testmod(variance).failed == 0
