"""The variance of pass@k over prompts is a part between them and a part within them."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from passgrad.metrics import pass_at_k
from passgrad.stats import pass_at_k_variance, variance_components

pytestmark = pytest.mark.statement("prop-pass-at-k-components")

RATES, MASSES = np.array([0.05, 0.4, 0.9]), np.array([0.5, 0.3, 0.2])


def marginal(n):
    """The law of the count of one prompt whose rate is drawn from the law above."""
    return MASSES @ binom.pmf(np.arange(n + 1), n, RATES[:, None])


@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (4, 4), (9, 3), (9, 9)])
def test_the_total_is_the_sum_of_the_parts(n, k):
    estimates, law = pass_at_k(n, np.arange(n + 1), k), marginal(n)
    total = law @ (estimates - law @ estimates) ** 2
    true = 1 - (1 - RATES) ** k
    between = MASSES @ (true - MASSES @ true) ** 2
    within = MASSES @ pass_at_k_variance(RATES, n, k)
    assert total == pytest.approx(between + within, rel=1e-12)


@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (6, 3)])
def test_their_estimates_are_without_bias(n, k):
    law = marginal(n)
    sums = np.zeros(3)
    for counts in itertools.product(range(n + 1), repeat=3):
        found = variance_components(n, counts, k)
        assert found.unbiased.all()
        parts = [found.total[0], found.within[0], found.between[0]]
        sums += np.prod(law[list(counts)]) * np.array(parts)
    true = 1 - (1 - RATES) ** k
    between = MASSES @ (true - MASSES @ true) ** 2
    within = MASSES @ pass_at_k_variance(RATES, n, k)
    assert sums == pytest.approx([between + within, within, between], rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(3, 1), (3, 3)])
def test_the_mean_of_fixed_prompts_varies_by_the_part_within_alone(n, k):
    fixed = RATES[[0, 1, 1]]
    laws = binom.pmf(np.arange(n + 1), n, fixed[:, None])
    values = pass_at_k(n, np.arange(n + 1), k)
    first = second = 0.0
    for counts in itertools.product(range(n + 1), repeat=3):
        chance = np.prod([laws[i, c] for i, c in enumerate(counts)])
        mean = values[list(counts)].mean()
        first, second = first + chance * mean, second + chance * mean**2
    assert first == pytest.approx((1 - (1 - fixed) ** k).mean())
    assert second - first**2 == pytest.approx(pass_at_k_variance(fixed, n, k).mean() / 3)
