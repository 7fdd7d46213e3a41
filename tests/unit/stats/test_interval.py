import math

import numpy as np

from passgrad.stats import Interval
from passgrad.stats.bands import band, intervals, standard_error
from passgrad.stats.bands import interval as interval_of
from passgrad.stats.interval import WithInterval

VALUE = np.array([1.0, -2.0])
INFLUENCE = np.array([[[0.1], [-0.3], [0.2]], [[0.5], [0.5], [-1.0]]])


class Result(WithInterval):
    def __init__(self, interval):
        self.interval = interval


def test_the_parts_of_an_estimate():
    ends = band(VALUE, INFLUENCE, 0.9)[:2]
    result = Result(interval_of(VALUE, INFLUENCE, 0.9).with_band(*ends))
    np.testing.assert_array_equal(result.standard_error, standard_error(INFLUENCE))
    np.testing.assert_array_equal([result.low, result.high], intervals(VALUE, INFLUENCE, 0.9))
    np.testing.assert_array_equal([result.band_low, result.band_high], ends)
    second = result.interval[1]
    assert (second.value, second.low, second.band_high) == (-2, result.low[1], ends[1][1])


def test_columns_are_the_parts_that_are_known():
    alone = Interval(VALUE, low=VALUE - 1, high=VALUE + 1)
    assert list(alone.columns("cosine", "cosine_")) == ["cosine", "cosine_low", "cosine_high"]
    assert math.isnan(alone[0].error)
    full = interval_of(VALUE.reshape(1, 2), INFLUENCE[None], 0.9)
    assert list(full.columns("x")) == ["x", "standard_error", "low", "high"]
    assert list(full.columns("x", error=False)) == ["x", "low", "high"]
    assert full.columns("x")["x"].tolist() == [1, -2]
