import numpy as np
import pytest
from scipy.stats import betabinom

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import pass_at_k_variance, pass_at_k_variance_estimate, variance_components
from passgrad.stats.components import cautious_within, within_covariance
from passgrad.stats.tally import Tally, tally

RNG = np.random.default_rng(3)
RATES = RNG.beta(0.3, 0.6, size=4000)
COUNTS = RNG.binomial(16, RATES)
KS = [1, 4, 8, 12, 16]


def test_the_parts_are_those_of_the_prompts():
    found = variance_components(16, COUNTS, KS)
    true = 1 - (1 - RATES[:, None]) ** np.array(KS)
    within = pass_at_k_variance(RATES[:, None], 16, KS).mean(axis=0)
    assert found.unbiased.tolist() == [True, True, True, False, False]
    assert found.within[:3] == pytest.approx(within[:3], rel=0.1)
    assert found.within[3:] == pytest.approx(within[3:], rel=0.25)
    assert found.between[:3] == pytest.approx(true.var(axis=0)[:3], rel=0.05)
    assert found.total == pytest.approx(pass_at_k(16, COUNTS[:, None], KS).var(axis=0, ddof=1))
    assert found.error_new == pytest.approx(np.sqrt(found.total / 4000))
    assert found.error_fixed == pytest.approx(np.sqrt(found.within / 4000))
    assert (found.error_fixed < found.error_new).all()


def test_an_unbiased_part_is_the_mean_of_unbiased_estimates():
    found = variance_components([8, 16, 16], [3, 0, 15], 4)
    estimates = pass_at_k_variance_estimate([8, 16, 16], [3, 0, 15], 4)
    assert found.within[0] == pytest.approx(np.mean(estimates))
    assert variance_components([7, 16, 16], [3, 0, 15], 4).unbiased.tolist() == [False]


def test_prompts_that_are_all_alike_may_show_less_than_nothing_between():
    counts = np.random.default_rng(0).binomial(16, 0.3, size=(200, 40))
    between = [variance_components(16, row, 4).between[0] for row in counts]
    assert min(between) < 0
    assert np.mean(between) == pytest.approx(0, abs=3 * np.std(between) / np.sqrt(200))


def test_the_cautious_part_is_not_zero_where_no_failure_was_seen():
    seen = [16] * 20 + [9, 9, 12, 12, 13]
    assert variance_components(16, seen, 8).within[0] == 0
    assert cautious_within(tally(16, seen), np.array([8]))[0] > 1e-4


def test_the_cautious_part_is_not_below_the_unbiased_one():
    assert (
        cautious_within(tally(16, COUNTS), np.array(KS))
        >= 0.999 * variance_components(16, COUNTS, KS).within
    ).all()


def test_the_covariance_within_is_that_of_the_law():
    n, a, b = 16, 0.7, 1.2
    weight = 1000 * betabinom.pmf(np.arange(n + 1), n, a, b)
    counts = Tally(np.full(n + 1, float(n)), np.arange(n + 1.0), weight, 1000)
    found = within_covariance(counts, np.array([1, 4, 16]))
    rates = np.random.default_rng(1).beta(a, b, size=20_000)
    for place, k in enumerate((1, 4, 16)):
        assert found[place, place] == pytest.approx(
            pass_at_k_variance(rates, n, k).mean(), rel=0.08
        )
    assert np.linalg.eigvalsh(found).min() > 0
    assert found == pytest.approx(found.T)


def test_the_samples_must_reach_k():
    with pytest.raises(UserError, match="k = 9 exceeds num_samples = 8"):
        variance_components(8, [1, 2], [4, 9])
