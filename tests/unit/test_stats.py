import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import pass_at_k_interval, success_interval


@pytest.mark.parametrize("method", ["exact", "wilson"])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_it_is_the_interval_of_scipy(method, level):
    n = 16
    low, high = success_interval(np.arange(n + 1), n, level=level, method=method)
    for c in range(n + 1):
        expected = binomtest(c, n).proportion_ci(confidence_level=level, method=method)
        assert low[c] == pytest.approx(expected.low, abs=1e-12)
        assert high[c] == pytest.approx(expected.high, abs=1e-12)


def coverage(method, n, p):
    low, high = success_interval(np.arange(n + 1), n, method=method)
    return binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum()


def test_the_exact_interval_covers_at_least_nominally():
    assert min(coverage("exact", 24, p) for p in np.linspace(0.001, 0.999, 300)) >= 0.95


def test_the_wilson_interval_covers_nominally_on_average_only():
    covered = [coverage("wilson", 24, p) for p in np.linspace(0.001, 0.999, 300)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) < 0.95


def test_it_is_vectorised_over_prompts():
    low, high = success_interval([0, 3], [10, 12])
    assert low.shape == high.shape == (2,)
    assert low[0] == 0
    assert (low[1], high[1]) == tuple(float(x) for x in success_interval(3, 12))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((5, 4), {}, "num_correct = 5 exceeds"),
        ((1, 4), {"level": 1.0}, "level must lie strictly between 0 and 1, got 1.0"),
        ((1, 4), {"level": math.nan}, "level"),
        ((1, 4), {"method": "wald"}, "got 'wald'"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        success_interval(*arguments, **options)


COUNTS = np.random.default_rng(1).binomial(16, np.linspace(0.02, 0.95, 80))


def test_the_bootstrap_has_the_width_of_the_normal_interval_over_prompts():
    mean, low, high = pass_at_k_interval(16, COUNTS, 4, num_resamples=20_000)
    values = pass_at_k(16, COUNTS, 4)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(80), rel=0.04)
    assert low < mean < high


def test_the_seed_decides_the_interval():
    assert pass_at_k_interval(16, COUNTS, 4) == pass_at_k_interval(16, COUNTS, 4, seed=0)
    assert pass_at_k_interval(16, COUNTS, 4) != pass_at_k_interval(16, COUNTS, 4, seed=1)


def test_it_covers_the_truth_at_about_the_nominal_rate():
    rng = np.random.default_rng(0)
    # p ~ Beta(1, 3), for which E[1 - (1 - p)^4] = 1 - E[(1 - p)^4] = 1 - 3 / 7.
    hits = 0
    for seed in range(300):
        counts = rng.binomial(8, rng.beta(1, 3, size=100))
        _, low, high = pass_at_k_interval(8, counts, 4, seed=seed, num_resamples=400)
        hits += low <= 4 / 7 <= high
    assert 0.90 < hits / 300 < 0.98


def test_resampling_the_samples_would_turn_the_estimate_into_the_plug_in():
    n, c, k = 8, 2, 4
    again = binom.pmf(np.arange(n + 1), n, c / n) @ pass_at_k(n, np.arange(n + 1), k)
    assert again == pytest.approx(1 - (1 - c / n) ** k)
    assert again < pass_at_k(n, c, k) - 0.05


@pytest.mark.parametrize("counts", [3, [3], [[1, 2], [3, 4]]])
def test_a_spread_needs_two_prompts(counts):
    with pytest.raises(UserError, match="at least 2 prompts"):
        pass_at_k_interval(8, counts, 2)
