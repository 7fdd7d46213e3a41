r"""Intervals for pass@k over prompts: at one k, and at all k at once.

The estimates of the prompts lie in [0, 1], so their variance is at most mu (1 - mu), mu being their
mean. Writing it phi mu (1 - mu), the score interval solves (estimate - mu)^2 = t^2 phi mu (1 - mu)
/ P for mu, which is Wilson's interval (1927) for a sample of P / phi coins (Korn and Graubard,
1998). It keeps a length near 0 and 1, where a normal or a bootstrap interval shrinks to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.stats import components
from passgrad.stats.binomial import check_level
from passgrad.stats.interval import Interval, WithInterval
from passgrad.stats.tally import Tally, order_array, tally

if TYPE_CHECKING:
    import pandas as pd

Prompts = Literal["new", "fixed"]


def score_interval(
    mean: NDArray[np.float64],
    phi: NDArray[np.float64],
    num_prompts: int,
    critical: NDArray[np.float64] | float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends (low, high) of the score interval of a mean of P values in [0, 1]; broadcasts."""
    slack = np.asarray(critical) ** 2 * phi / num_prompts
    half = np.sqrt(slack * (mean * (1 - mean) + slack / 4)) / (1 + slack)
    centre = (mean + slack / 2) / (1 + slack)
    # At a mean of 0 or 1 the end is 0 or 1 itself, but for rounding.
    low = np.where(mean > 0, np.maximum(centre - half, 0), 0.0)
    return low, np.where(mean < 1, np.minimum(centre + half, 1), 1.0)


def dispersion(counts: Tally, ks: NDArray[np.int64], prompts: Prompts) -> NDArray[np.float64]:
    r"""The factor phi of each order, (..., K): the variance of an estimate over mu (1 - mu).

    For new prompts it is the sample variance over m (1 - m), moved towards its largest value 1 by
    a share max(1 / (1 + K), 1 / (1 + E)^2), where E is the sum of the estimates, or of what they
    lack to 1 if that is less, and K the number of prompts that carry this sum. Both are large in a
    sample that shows its variance. Where every prompt but one or two is solved they are small, and
    a worse prompt may well have been missed; with no failure at all phi is 1.
    """
    values = counts.values(ks)
    mean = counts.mean(values)
    bound = mean * (1 - mean)
    known = bound > 1e-14
    if prompts == "fixed":
        variance = components.cautious_within(counts, ks)
    else:
        variance = np.diagonal(counts.covariance(values), axis1=-2, axis2=-1)
    phi = np.clip(np.where(known, variance / np.where(known, bound, 1), 1.0), 0.0, 1.0)
    if prompts == "fixed":
        return phi
    carriers = np.minimum(counts.effective(values), counts.effective(1 - values))
    events = counts.num_prompts * np.minimum(mean, 1 - mean)
    share = np.maximum(1 / (1 + carriers), 1 / (1 + events) ** 2)
    widened: NDArray[np.float64] = phi + (1 - phi) * share
    return widened


def correlation_of(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlations of covariance matrices (..., K, K); rows without variance uncorrelated."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    alive = variance > 1e-14
    scale = np.where(alive, 1 / np.sqrt(np.where(alive, variance, 1)), 0.0)
    result = covariance * scale[..., :, None] * scale[..., None, :]
    places = np.arange(covariance.shape[-1])
    result[..., places, places] = 1.0
    clipped: NDArray[np.float64] = np.clip(result, -1.0, 1.0)
    return clipped


def simultaneous_critical(
    correlation: NDArray[np.float64],
    degrees: int,
    level: float,
    *,
    seed: int = 0,
    draws: int = 20_000,
) -> NDArray[np.float64]:
    """The ``level`` quantile of max_k |T_k| for correlated T_k of the t law, shape (...).

    It is the multiplier bootstrap of the largest studentised deviation with Gaussian multipliers,
    whose law given the data is the maximum of normals with the correlation of the data
    (Chernozhukov, Chetverikov and Kato, 2013), over the root of a chi-square for small P.
    """
    from scipy.stats import t

    size = correlation.shape[-1]
    if size == 1:
        return np.full(correlation.shape[:-2], t.ppf((1 + level) / 2, degrees))
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((draws, size))
    scale = np.sqrt(rng.chisquare(degrees, draws) / degrees)
    values, vectors = np.linalg.eigh(correlation)
    roots = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    flat = roots.reshape(-1, size, size)
    result = np.empty(len(flat))
    for place, root in enumerate(flat):
        largest = np.abs(normal @ root.T).max(axis=1) / scale
        result[place] = np.quantile(largest, level)
    return result.reshape(correlation.shape[:-2])


def check_prompts(prompts: str) -> None:
    """Raise UserError for another reading than the two."""
    if prompts not in ("new", "fixed"):
        raise UserError(
            f'prompts must be "new" (they are a sample) or "fixed" (only samples vary), '
            f"got {prompts!r}"
        )


def pass_at_k_interval(
    num_samples: ArrayLike,
    num_correct: ArrayLike,
    k: int,
    *,
    level: float = 0.95,
    prompts: Prompts = "new",
    method: Literal["score", "bootstrap"] = "score",
    seed: int = 0,
    num_resamples: int = 2000,
) -> tuple[float, float, float]:
    """The mean over prompts of the unbiased pass@k, with an interval: (mean, low, high).

    With ``prompts="new"`` the interval is for the mean of pass@k under the law that the P prompts
    were drawn from; a prompt's estimate is then an independent draw whose spread holds both sources
    of noise. With ``prompts="fixed"`` it is for the mean of pass@k of these prompts, and only the
    variance within prompts enters (:mod:`passgrad.stats.components`).

    "score" is the interval of this module, with t quantiles of P - 1 degrees. "bootstrap" is the
    percentile bootstrap over prompts, for comparison: its length is 0 when all estimates are equal,
    and it is too short whenever nearly all are 1. Resampling the samples as well would turn the
    estimate into the plug-in. The first chapter of the book measures the coverage.

    :raises UserError: For fewer than two prompts and for k beyond the samples of a prompt.

    >>> mean, low, high = pass_at_k_interval(10, [3, 0, 7, 10], 2)
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (0.617, 0.119, 0.95)
    """
    check_level(level)
    check_prompts(prompts)
    counts, ks = tally(num_samples, num_correct), order_array(k)
    if ks.size != 1:
        raise UserError("pass_at_k_interval takes one k; for several at once use pass_at_k_band")
    if method == "bootstrap":
        if prompts == "fixed":
            raise UserError('the bootstrap resamples prompts: it has no reading prompts="fixed"')
        low, high = bootstrap_interval(counts, ks, level, seed=seed, num_resamples=num_resamples)
    elif method == "score":
        low, high = intervals(counts, ks, level, prompts)
    else:
        raise UserError(f'method must be "score" or "bootstrap", got {method!r}')
    return float(counts.mean(counts.values(ks))[0]), float(low[0]), float(high[0])


def intervals(
    counts: Tally, ks: NDArray[np.int64], level: float, prompts: Prompts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the score interval at each k by itself, (..., K)."""
    from scipy.stats import t

    critical = t.ppf((1 + level) / 2, counts.num_prompts - 1)
    phi = dispersion(counts, ks, prompts)
    return score_interval(counts.mean(counts.values(ks)), phi, counts.num_prompts, critical)


def band(
    counts: Tally, ks: NDArray[np.int64], level: float, prompts: Prompts, **draw: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The ends (..., K) of the score intervals that hold at all k at once; the critical value."""
    values = counts.values(ks)
    if prompts == "new":
        correlation = correlation_of(counts.covariance(values))
    else:
        correlation = correlation_of(components.within_covariance(counts, ks))
    critical = simultaneous_critical(correlation, counts.num_prompts - 1, level, **draw)
    phi = dispersion(counts, ks, prompts)
    low, high = score_interval(counts.mean(values), phi, counts.num_prompts, critical[..., None])
    return *monotone(low, high, ks), critical


def monotone(
    low: NDArray[np.float64], high: NDArray[np.float64], ks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of a band (..., K) in which a curve that does not fall with k can lie.

    pass@k does not fall with k. So a curve in the band is at each k at least as high as all lower
    ends before it, and at most as high as all upper ends after it: no coverage is lost.
    """
    order = np.argsort(ks, kind="stable")
    low, high = low.copy(), high.copy()
    low[..., order] = np.maximum.accumulate(low[..., order], axis=-1)
    high[..., order[::-1]] = np.minimum.accumulate(high[..., order[::-1]], axis=-1)
    return low, high


def bootstrap_interval(
    counts: Tally, ks: NDArray[np.int64], level: float, *, seed: int, num_resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends (K,) of the percentile bootstrap over prompts, for one set of prompts."""
    rng = np.random.default_rng(seed)
    share = counts.weight / counts.num_prompts
    again = rng.multinomial(counts.num_prompts, share, size=num_resamples)
    means = again @ counts.values(ks) / counts.num_prompts
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class PassAtKBand(WithInterval):
    """pass@k at several k with ends ``low`` and ``high`` that hold at all of them at once; (K,).

    ``critical`` is the number of standard errors that the band takes in place of the t quantile.
    """

    ks: NDArray[np.int64]
    interval: Interval
    critical: float
    level: float

    @property
    def estimate(self) -> NDArray[np.float64]:
        """The means over prompts."""
        return np.asarray(self.interval.value)

    def to_frame(self) -> pd.DataFrame:
        """One row a k: k, estimate, low, high."""
        import pandas as pd

        return pd.DataFrame({"k": self.ks} | self.interval.columns("estimate"))


def pass_at_k_band(
    num_samples: ArrayLike,
    num_correct: ArrayLike,
    ks: ArrayLike,
    *,
    level: float = 0.95,
    prompts: Prompts = "new",
    seed: int = 0,
    draws: int = 20_000,
) -> PassAtKBand:
    """pass@k at each of ``ks`` with a simultaneous band: the whole curve lies in it with
    probability ``level``.

    Score intervals as in :func:`pass_at_k_interval`, with the quantile of the largest studentised
    deviation over ``ks`` in place of the t quantile, cut to what a curve that does not fall with k
    can reach; ``seed`` and ``draws`` are of the random numbers that give this quantile.

    :raises UserError: As :func:`pass_at_k_interval`.

    >>> pass_at_k_band(10, [3, 0, 7, 10], (1, 2, 4)).low.round(3)
    array([0.071, 0.096, 0.118])
    """
    check_level(level)
    check_prompts(prompts)
    counts, wanted = tally(num_samples, num_correct), order_array(ks)
    low, high, critical = band(counts, wanted, level, prompts, seed=seed, draws=draws)
    interval = Interval(counts.mean(counts.values(wanted)), low=low, high=high)
    return PassAtKBand(wanted, interval, float(critical), level)
