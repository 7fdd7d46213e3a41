import math

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from passgrad.errors import UserError
from passgrad.stats import success_interval

RATES = np.linspace(0.001, 0.999, 300)


@pytest.mark.parametrize("method", ["exact", "wilson"])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_it_is_the_interval_of_scipy(method, level):
    n = 16
    low, high = success_interval(np.arange(n + 1), n, level=level, method=method)
    for c in range(n + 1):
        expected = binomtest(c, n).proportion_ci(confidence_level=level, method=method)
        assert low[c] == pytest.approx(expected.low, abs=1e-12)
        assert high[c] == pytest.approx(expected.high, abs=1e-12)


def test_jeffreys_takes_the_quantiles_of_its_posterior():
    low, high = success_interval([0, 3, 16], 16, method="jeffreys")
    assert low.tolist()[0] == 0
    assert high.tolist()[-1] == 1
    assert (low[1], high[1]) == pytest.approx(beta.ppf([0.025, 0.975], 3.5, 13.5))
    assert high[0] == pytest.approx(beta.ppf(0.975, 0.5, 16.5))
    assert low[2] == pytest.approx(1 - high[0])


def coverage(method, n, p):
    low, high = success_interval(np.arange(n + 1), n, method=method)
    return binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum()


def test_the_exact_interval_covers_at_least_nominally():
    assert min(coverage("exact", 24, p) for p in RATES) >= 0.95


@pytest.mark.parametrize("method", ["wilson", "jeffreys"])
def test_the_others_cover_nominally_on_average_only(method):
    covered = [coverage(method, 24, p) for p in RATES]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) < 0.95


@pytest.mark.parametrize("method", ["wilson", "jeffreys"])
def test_the_others_are_shorter(method):
    exact, other = (
        np.diff(success_interval(range(25), 24, method=m), axis=0) for m in ("exact", method)
    )
    assert other.mean() < exact.mean()


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
