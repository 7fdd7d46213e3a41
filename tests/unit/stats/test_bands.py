import math

import numpy as np
import pytest
from scipy.stats import t

from passgrad.stats import bands

RNG = np.random.default_rng(2)


def test_degrees_of_freedom_count_the_prompts_that_carry_the_variance():
    equal = RNG.standard_normal((40, 200, 1))
    assert bands.degrees_of_freedom(equal).mean() > 170
    few = equal * np.where(np.arange(200)[:, None] < 5, 1.0, 1e-3)
    assert bands.degrees_of_freedom(few).mean() < 10
    assert bands.degrees_of_freedom([[[1.0], [0], [0]]])[0] == 2  # 3, held to M - 1
    # Nothing is centred where a prompt has several.
    assert bands.degrees_of_freedom([[[1.0, -1.0], [0, 0]]])[0] == 3
    tiny = bands.degrees_of_freedom(equal * 1e-120)
    np.testing.assert_allclose(tiny, bands.degrees_of_freedom(equal))


def test_an_interval_is_the_t_interval_of_the_influences():
    e = RNG.standard_normal((3, 25, 2)) / 50
    low, high = bands.intervals([0.1, 0.2, 0.3], e, 0.9)
    error = np.sqrt((e**2).sum((1, 2)))
    np.testing.assert_allclose((low + high) / 2, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(high - low, 2 * t.ppf(0.95, bands.degrees_of_freedom(e)) * error)


def test_a_sample_without_influence_knows_nothing():
    low, high = bands.intervals([0.0, 0.0], np.zeros((2, 9, 1)), 0.95)
    assert (low == -np.inf).all()
    assert (high == np.inf).all()
    e = np.zeros((2, 9, 1))
    e[0] = RNG.standard_normal((9, 1))
    low, high, _ = bands.band([0.0, 0.0], e, 0.95)
    assert np.isfinite(low[0])
    assert low[1] == -np.inf


def test_a_band_over_one_order_or_over_equal_ones_is_its_interval():
    e = RNG.standard_normal((1, 60, 1))
    for rows in (e, np.repeat(e, 4, axis=0)):
        at = np.zeros(len(rows))
        single, joint = bands.intervals(at, rows, 0.95), bands.band(at, rows, 0.95, draws=100_000)
        np.testing.assert_allclose(joint[0], single[0], rtol=0.02)
        np.testing.assert_allclose(joint[1], single[1], rtol=0.02)


def test_a_band_over_independent_orders_is_that_of_sidak():
    e = np.kron(np.eye(4), RNG.choice([-1.0, 1.0], 4000))[..., None]
    _, _, critical = bands.band(np.zeros(4), e, 0.95, draws=200_000)
    sidak = t.ppf((1 + 0.95**0.25) / 2, bands.degrees_of_freedom(e))
    np.testing.assert_allclose(critical, sidak, rtol=0.01)


def test_bands_of_replications_are_those_one_by_one():
    e = RNG.standard_normal((3, 5, 20, 2))
    estimate = RNG.standard_normal((3, 5))
    low, high, _ = bands.band(estimate, e, 0.95, seed=1, draws=500)
    for place in range(5):
        one = bands.band(estimate[:, place], e[:, place], 0.95, seed=1, draws=500)
        np.testing.assert_allclose((low[:, place], high[:, place]), one[:2])


@pytest.mark.parametrize(
    ("ks", "values", "expected"),
    [
        ([1, 2, 3], [3.0, 1.0, -1.0], 2.5),
        ([1, 2, 4], [1.0, 0.0, -1.0], 2.0),
        ([1, 2], [-1.0, 2.0], 1.0),
        ([1, 2, 4, 8], [1.0, -1.0, 1.0, -1.0], 1.5),
        ([1, 8], [2.0, 0.0], math.nan),
    ],
)
def test_the_first_crossing(ks, values, expected):
    assert bands.first_crossing(ks, values) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([2, 1, -1, -3], [4, 3, 1, -1], (2, 8)),
        ([2, 1, 1, 1], [4, 3, 2, 2], (8, math.inf)),
        ([-1, -2, -2, -2], [4, 3, 2, -1], (1, 8)),
        ([-1, -2, -2, -2], [4, 3, 2, 1], (1, math.inf)),
        ([-1, 1, 1, -2], [4, 3, 2, 1], (1, math.inf)),  # open at 1, whatever comes later
        ([-4, -4, 1, 1], [-1, -1, 2, 2], (1, 1)),
        ([1, -4, 1, 1], [2, -1, 2, 2], (1, 2)),
    ],
)
def test_the_interval_of_the_threshold(low, high, expected):
    assert bands.threshold_interval([1, 2, 4, 8], low, high) == expected
