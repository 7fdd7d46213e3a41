import doctest
import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad import metrics
from passgrad.errors import UserError
from passgrad.metrics import binary_rewards, pass_at_k


def exact(n, c, k):
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


@st.composite
def counts(draw, largest):
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@settings(deadline=None)  # the machine may be busy
@given(counts(400))
def test_it_is_the_ratio_of_binomial_coefficients(count):
    assert pass_at_k(*count) == pytest.approx(float(exact(*count)), rel=1e-13, abs=0)


@settings(deadline=None)  # the machine may be busy
@given(counts(8))
def test_it_is_the_share_of_subsets_with_a_correct_sample(count):
    n, c, k = count
    rewards = [1] * c + [0] * (n - c)
    best = [max(subset) for subset in itertools.combinations(rewards, k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(best) / len(best), rel=1e-14)


@pytest.mark.parametrize(
    ("n", "c", "k"),
    [
        (10**6, 1, 1),
        (10**6, 1, 5 * 10**5),
        (10**6, 3, 10),
        (10**6, 500, 3000),
        (10**6, 4000, 900),
        (10**6, 6000, 6000),
        (10**6, 10**6 - 2, 2),
    ],
)
def test_a_million_samples(n, c, k):
    # The ratio is symmetric in c and k: the smaller one keeps the exact value quick.
    expected = float(exact(n, max(c, k), min(c, k)))
    assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_it_is_unbiased_and_the_plug_in_is_not(p):
    n, k = 8, 3
    law = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    mean = np.dot(law, pass_at_k(n, np.arange(n + 1), k))
    plug_in = np.dot(law, [1 - (1 - c / n) ** k for c in range(n + 1)])
    assert mean == pytest.approx(truth, abs=1e-14)
    assert plug_in < truth - 1e-4


def test_it_broadcasts():
    result = pass_at_k([[4], [8]], [0, 1, 2], 2)
    assert result.shape == (2, 3)
    assert result[1, 2] == pytest.approx(float(exact(8, 2, 2)))
    assert isinstance(pass_at_k(4, 1, 2), float)
    assert pass_at_k(np.array([5]), 5, 5).tolist() == [1.0]
    assert pass_at_k(np.zeros(0), 0, 1).shape == (0,)


def test_nothing_correct_is_zero_without_a_sign():
    assert math.copysign(1, pass_at_k(5, 0, 3)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 2, 0), "k must be at least 1, got k = 0"),
        ((5, 2, 6), "k = 6 exceeds num_samples = 5: draw more samples"),
        (([5, 4], 2, 5), "k = 5 exceeds num_samples = 4"),
        ((5, 6, 2), "num_correct = 6 exceeds num_samples = 5"),
        ((5, -1, 2), "num_correct must not be negative, got -1"),
        ((5, [1, math.nan], 2), "num_correct must be whole numbers, got nan"),
        ((5, 1.5, 2), "num_correct must be whole numbers, got 1.5"),
        ((5, 1, 2.5), "k must be whole numbers, got 2.5"),
        ((math.inf, 1, 2), "num_samples must be whole numbers, got inf"),
        (("many", 1, 2), "num_samples must be whole numbers, got 'many'"),
        (([5, 5], [1, 1, 1], 2), "do not broadcast"),
    ],
)
def test_bad_counts_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        pass_at_k(*arguments)
    assert "\n" not in str(caught.value)


def test_binary_rewards_are_returned_as_integers():
    rewards = binary_rewards([[0, 1.0, True], [0, 0, 0]])
    assert rewards.dtype == np.int64
    assert rewards.tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[0, 1], [1, math.nan]], "rewards[1, 1] is nan"),
        ([[0, 0.5], [2, 1]], "rewards[0, 1] is 0.5"),
        ([[0, 1], [1]], "as many for each prompt"),
        ([0, 1], "shape (prompts, samples), got (2,)"),
        (np.zeros((3, 0)), "shape (prompts, samples), got (3, 0)"),
        ([["yes", "no"]], "rewards must be numbers"),
    ],
)
def test_other_rewards_are_refused_by_place(rewards, message):
    with pytest.raises(UserError, match=re.escape(message)):
        binary_rewards(rewards)


def test_docstrings():
    assert doctest.testmod(metrics).failed == 0
