import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import betabinom, binom

from passgrad.metrics import pass_at_k
from passgrad.stats import laws
from passgrad.stats.tally import Tally, tally
from passgrad.stats.variance import pass_at_k_variance


def expected_tally(pmf, num_prompts=100.0):
    """A tally whose multiplicities are the expected ones: what many prompts tend to."""
    n = len(pmf) - 1
    return Tally(np.full(n + 1, float(n)), np.arange(n + 1.0), num_prompts * pmf, int(num_prompts))


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.6), (2, 5), (1, 1)])
def test_a_beta_law_is_found_again(a, b):
    found = laws.beta_law(expected_tally(betabinom.pmf(np.arange(17), 16, a, b)))
    assert found == pytest.approx((a, b), rel=1e-6)


def test_prompts_that_are_all_alike_give_a_narrow_law():
    a, b = laws.beta_law(expected_tally(binom.pmf(np.arange(17), 16, 0.25)))
    assert a / (a + b) == pytest.approx(0.25)
    assert a + b > 900


@pytest.mark.parametrize("correct", [[0, 0, 0], [8, 8, 8]])
def test_all_or_none_correct_leaves_the_law_inside(correct):
    a, b = laws.beta_law(tally(8, correct))
    assert 0 < a / (a + b) < 1
    assert laws.beta_covariance(a, b, 8, 4, 4) > 0


def test_one_sample_a_prompt_shows_no_spread():
    a, b = laws.beta_law(tally(1, [0, 1, 1, 0, 0, 1]))
    assert a == pytest.approx(b)
    assert a + b > 900


def test_the_free_law_finds_two_clusters():
    pmf = (binom.pmf(np.arange(33), 32, 0.05) + binom.pmf(np.arange(33), 32, 0.9)) / 2
    rates, masses = laws.free_law(expected_tally(pmf))
    assert masses.sum() == pytest.approx(1)
    assert masses[rates < 0.3].sum() == pytest.approx(0.5, abs=0.01)
    assert masses[(rates > 0.3) & (rates < 0.6)].sum() < 0.01


def test_the_free_law_is_vectorised_over_sets_of_prompts():
    one = expected_tally(binom.pmf(np.arange(9), 8, 0.2))
    other = expected_tally(binom.pmf(np.arange(9), 8, 0.7))
    both = Tally(one.n, one.c, np.stack([one.weight, other.weight]), 100)
    assert laws.free_law(both)[1][1] == pytest.approx(laws.free_law(other)[1])


def test_the_free_law_takes_prompts_of_different_sizes():
    rates, masses = laws.free_law(tally([8, 2000, 2000], [2, 500, 500]))
    assert masses @ rates == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("j", "k"), [(1, 1), (4, 4), (8, 8), (1, 8)])
def test_the_mean_covariance_under_a_beta_law(j, k):
    a, b, n = np.array([0.3, 2.0]), np.array([0.6, 5.0]), 8
    found = laws.beta_covariance(a, b, n, j, k)
    for place in range(2):
        law = betabinom(n, a[place], b[place])
        one, other = (pass_at_k(n, np.arange(n + 1), m) for m in (j, k))
        # E[Cov] = E[g_j g_k] - E[q^(j + k)]
        q = np.exp(betaln(a[place], b[place] + j + k) - betaln(a[place], b[place]))
        expected = law.pmf(np.arange(n + 1)) @ ((1 - one) * (1 - other)) - q
        assert found[place] == pytest.approx(expected, rel=1e-8)


def test_the_mean_covariance_under_a_free_law():
    rates, masses = np.array([0.1, 0.6]), np.array([[0.5, 0.5], [1.0, 0.0]])
    found = laws.free_covariance(rates, masses, 8, 3, 3)
    each = pass_at_k_variance(rates, 8, 3)
    assert found == pytest.approx([each.mean(), each[0]])
