"""Intervals of cosines: never beyond 1, never against the product, and right as often."""

import numpy as np
import pytest
from scipy.stats import t

from passgrad.stats.bands import degrees_of_freedom, intervals
from passgrad.stats.ratio import cosine_intervals


def estimates(cosine, size, noise, generator):
    """<a, b>, |a|^2, |b|^2 of two vectors from M noisy pairs of them, by halves; influences."""
    a = np.array([1.0, 0, 0, 0])
    b = np.array([cosine, (1 - cosine**2) ** 0.5, 0, 0])
    left, right = (v + noise * generator.normal(size=(size, 2, 4)) for v in (a, b))
    x, y = left.mean(0), right.mean(0)
    inner = (x[0] @ y[1] + x[1] @ y[0]) / 2
    by_inner = (left[:, 0] @ y[1] + right[:, 0] @ x[1] + left[:, 1] @ y[0] + right[:, 1] @ x[0]) / 2
    norms = np.array([x[0] @ x[1], y[0] @ y[1]])
    by_norm = np.stack(
        [left[:, 0] @ x[1] + left[:, 1] @ x[0], right[:, 0] @ y[1] + right[:, 1] @ y[0]]
    )
    centre = lambda e: (e - e.mean(-1, keepdims=True))[..., None] / (size * (size - 1)) ** 0.5  # noqa: E731
    e, f = centre(by_inner), centre(by_norm)
    inner, e = np.array([norms[0], inner]), np.stack([f[0], e])
    return inner, e, norms, f


def found(cosine, size, noise, generator, level=0.95):
    inner, e, norms, f = estimates(cosine, size, noise, generator)
    critical = t.ppf((1 + level) / 2, degrees_of_freedom(e))
    return inner, e, cosine_intervals(inner, e, norms, f, 0, critical, level)


@pytest.mark.parametrize("cosine", [-0.6, 0.0, 0.5, 0.95])
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_they_hold_the_cosine(cosine, noise):
    generator = np.random.default_rng(1)
    held = []
    for _ in range(600):
        *_, result = found(cosine, 60, noise, generator)
        held.append(result.low[1] <= cosine <= result.high[1])
    assert np.mean(held) > 0.92, np.mean(held)


@pytest.mark.parametrize("noise", [0.5, 3.0, 20.0])
def test_they_agree_with_the_product_and_stay_within_one(noise):
    generator = np.random.default_rng(2)
    shown = 0
    for _ in range(300):
        inner, e, result = found(0.4, 30, noise, generator)
        low, high = (end[1] for end in intervals(inner, e, 0.95))
        assert (result.low[1] >= 0) == (low > 0)
        assert (result.high[1] <= 0) == (high < 0)
        assert -1 <= result.low[1] <= result.high[1] <= 1
        value = result.value[1]
        assert np.isnan(value) or result.low[1] <= value <= result.high[1]
        shown += not np.isnan(value)
    assert (shown > 250) if noise == 0.5 else (shown < 150)
