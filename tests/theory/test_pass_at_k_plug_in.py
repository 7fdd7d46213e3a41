"""The plug-in is what the bootstrap with replacement tends to, and it is biased down."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from passgrad.metrics import pass_at_k
from passgrad.stats import plug_in_pass_at_k

pytestmark = pytest.mark.statement("prop-pass-at-k-plug-in")


def test_it_is_the_mean_over_all_resamples(case):
    for n in [3, 4, 5]:
        with case(n=n):
            for c, k in itertools.product(range(n + 1), range(1, n + 1)):
                rewards = [1] * c + [0] * (n - c)
                resamples = list(itertools.product(rewards, repeat=n))
                # the best of k drawn with replacement
                best = [max(resample[:k]) for resample in resamples]
                estimate = pass_at_k(n, [sum(resample) for resample in resamples], k)
                assert np.mean(best) == pytest.approx(plug_in_pass_at_k(n, c, k), abs=1e-14)
                assert np.mean(estimate) == pytest.approx(plug_in_pass_at_k(n, c, k), abs=1e-14)


def test_it_is_biased_down_and_by_at_most_the_bound(case):
    for (n, k), p in itertools.product([(2, 2), (6, 3), (16, 16), (64, 8)], [0.01, 0.2, 0.7, 0.99]):
        law = binom.pmf(np.arange(n + 1), n, p)
        bias = law @ plug_in_pass_at_k(n, np.arange(n + 1), k) - (1 - (1 - p) ** k)
        with case(n=n, k=k, p=p):
            assert -k * (k - 1) / 2 * p * (1 - p) / n - 1e-14 <= bias < 0


def test_at_k_1_there_is_no_bias():
    assert plug_in_pass_at_k(9, np.arange(10), 1) == pytest.approx(np.arange(10) / 9)


def test_count_by_count_it_is_below_the_unbiased_estimate(case):
    for n, k in [(5, 2), (16, 7), (16, 16)]:
        with case(n=n, k=k):
            counts = np.arange(1, n // 2 + 1)  # beyond, both round to 1
            assert (plug_in_pass_at_k(n, counts, k) < pass_at_k(n, counts, k)).all()


def test_the_numbers_of_the_book():
    assert pass_at_k(16, 1, 16) == 1
    assert round(plug_in_pass_at_k(16, 1, 16), 3) == 0.644
    law = [math.comb(6, c) * 0.2**c * 0.8 ** (6 - c) for c in range(7)]
    mean = np.dot(law, plug_in_pass_at_k(6, np.arange(7), 3))
    assert round(mean, 4) == 0.4267
    assert round(1 - 0.8**3, 4) == 0.4880
