"""From influences to intervals: at one order, at all of them at once, and for the threshold.

The influences of an estimate are R numbers for each of M prompts, of mean 0 and independent over
prompts, whose squares add up to its variance (:mod:`passgrad.measurement.influence`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.stats.interval import Interval
from passgrad.stats.intervals import correlation_of, simultaneous_critical

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def standard_error(influence: ArrayLike) -> Array:
    """The root of the sum of squares: (...) for influences (..., M, R)."""
    squares: Array = np.asarray(influence, dtype=np.float64) ** 2
    error: Array = np.sqrt(squares.sum(axis=(-2, -1)))
    return error


def degrees_of_freedom(influence: ArrayLike) -> Array:
    r"""How many prompts carry the variance of an estimate: (...) for influences (..., M, R).

    :math:`3 (\sum_x V_x)^2 / \sum_x V_x^2` with the parts :math:`V_x` of the variance, held to
    [1, M - 1] where R = 1. By Satterthwaite's rule these are the degrees of freedom of a sum of
    squares of normals whose scales differ, if a part is one square, and fewer than there are if it
    is a mean of several. M - 1 is far too many where a few prompts have nearly all the variance,
    as at large k. nan without any variance.
    """
    parts = (np.asarray(influence, dtype=np.float64) ** 2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = parts / parts.sum(axis=-1, keepdims=True)
        raw = 3 / (share**2).sum(axis=-1)
    # Influences of one prompt each are deviations from a mean, which takes one away.
    centred = np.shape(influence)[-1] == 1
    degrees: Array = np.clip(raw, 1, max(parts.shape[-1] - 1, 1) if centred else None)
    return degrees


def interval(estimate: Array, influence: ArrayLike, level: float) -> Interval:
    """The estimates (K, ...) with their standard errors and :func:`intervals`."""
    return Interval(estimate, standard_error(influence), *intervals(estimate, influence, level))


def intervals(estimate: ArrayLike, influence: ArrayLike, level: float) -> tuple[Array, Array]:
    """The ends (K, ...) of a t interval at each order by itself.

    They are infinite where all influences are zero: such a sample says nothing of its error.
    """
    from scipy.stats import t

    e = np.asarray(influence, dtype=np.float64)
    critical = t.ppf((1 + level) / 2, degrees_of_freedom(e))
    return _ends(np.asarray(estimate, dtype=np.float64), e, critical)


def band(
    estimate: ArrayLike,
    influence: ArrayLike,
    level: float,
    *,
    seed: int = 0,
    draws: int = 20_000,
) -> tuple[Array, Array, Array]:
    """The ends (K, ...) of intervals that hold at all orders at once, and the critical values.

    The Gaussian multiplier bootstrap over influences of the largest studentised deviation, as in
    :func:`passgrad.stats.intervals.simultaneous_critical`. The correlation of the orders and the
    degrees of freedom of each are those of the influences: the quantile is taken on the scale of
    the t law of each order, so that a band over one order is its interval.
    """
    from scipy.stats import norm, t

    e = np.asarray(influence, dtype=np.float64)
    dof = degrees_of_freedom(e)
    normal = simultaneous_critical(correlation(e), _MANY, level, seed=seed, draws=draws)
    critical = -t.ppf(norm.sf(normal), dof)
    low, high = _ends(np.asarray(estimate, dtype=np.float64), e, critical)
    return low, high, critical


_MANY = 10**7  # degrees of freedom of a normal law, for all purposes


def correlation(influence: Array) -> Array:
    """The correlations (..., K, K) of K estimates with influences (K, ..., M, R)."""
    flat = influence.reshape(*influence.shape[:-2], -1)
    length = np.sqrt((flat**2).sum(axis=-1, keepdims=True))
    unit = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
    return correlation_of(np.einsum("j...x,k...x->...jk", unit, unit))


def _ends(estimate: Array, influence: Array, critical: Array) -> tuple[Array, Array]:
    error = standard_error(influence)
    known = error > 0
    half = np.where(known, error * np.where(known, critical, 0.0), np.inf)
    return estimate - half, estimate + half


def first_crossing(ks: ArrayLike, values: ArrayLike) -> float:
    """The first real k at which the line through (k, value) turns negative; nan if it never does.

    The smallest order itself where the first value is negative.
    """
    k, v = np.asarray(ks, dtype=np.float64), np.asarray(values, dtype=np.float64)
    below = np.flatnonzero(v < 0)
    if not below.size:
        return math.nan
    place = below[0]
    if place == 0:
        return float(k[0])
    share = v[place - 1] / (v[place - 1] - v[place])
    return float(k[place - 1] + share * (k[place] - k[place - 1]))


def threshold_interval(ks: ArrayLike, low: ArrayLike, high: ArrayLike) -> tuple[float, float]:
    """The k at which the curve may first turn negative, by inversion of a band over ``ks``.

    All k that the band does not decide: from the last of the orders up to which the band lies
    above zero without a break (1 if there is none: at k = 1 the product is a squared norm) to the
    first at which it lies below zero (infinity if there is none). Where the curve lies in the band
    and no crossing and return hide between two neighbouring orders, the threshold lies in here; an
    infinite end includes that there is no threshold.
    """
    k = np.asarray(ks, dtype=np.float64)
    low, high = np.asarray(low), np.asarray(high)
    above = np.cumprod(low > 0).astype(bool)
    below = np.flatnonzero(high < 0)
    start = float(k[above][-1]) if above.any() else 1.0
    return start, float(k[below[0]]) if below.size else math.inf
