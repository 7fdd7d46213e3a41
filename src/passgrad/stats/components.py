"""The variance of pass@k over prompts, split: how the prompts differ, how the samples do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.stats import laws
from passgrad.stats.tally import Tally, order_array, tally
from passgrad.stats.variance import pass_at_k_covariance_estimate


@dataclass(frozen=True)
class VarianceComponents:
    """Variance of one prompt's pass@k estimate, split by where it comes from; arrays of shape (K,).

    ``total`` is the sample variance over prompts. ``within`` is the mean over prompts of the
    variance that new samples of the same prompt would show. ``between = total - within`` is the
    variance of the true pass@k over prompts; being a difference of estimates it may come out
    negative, which says that it is small. ``unbiased`` tells for which k the split is without
    bias (2k <= n for every prompt); for the others ``within`` is that of a law of the success rates
    fitted to the counts (:mod:`passgrad.stats.laws`).
    """

    ks: NDArray[np.int64]
    num_prompts: int
    estimate: NDArray[np.float64]
    total: NDArray[np.float64]
    within: NDArray[np.float64]
    unbiased: NDArray[np.bool_]

    @property
    def between(self) -> NDArray[np.float64]:
        """Variance of the true pass@k over prompts."""
        return self.total - self.within

    @property
    def error_fixed(self) -> NDArray[np.float64]:
        """Standard error of the mean when these prompts are kept and their samples drawn anew."""
        return np.sqrt(self.within / self.num_prompts)

    @property
    def error_new(self) -> NDArray[np.float64]:
        """Standard error of the mean when the prompts are drawn anew too."""
        return np.sqrt(self.total / self.num_prompts)


def variance_components(
    num_samples: ArrayLike, num_correct: ArrayLike, ks: ArrayLike
) -> VarianceComponents:
    """The components of the variance of pass@k over P prompts, for each k.

    ``num_samples`` is a number or (P,), ``num_correct`` (P,), ``ks`` one or several orders.

    :raises UserError: For fewer than two prompts and for k beyond the samples of a prompt.

    >>> parts = variance_components(10, [3, 0, 7, 10], (1, 2))
    >>> parts.total.round(4), parts.within.round(4)
    (array([0.1933, 0.2115]), array([0.0117, 0.0139]))
    """
    counts, wanted = tally(num_samples, num_correct), order_array(ks)
    values = counts.values(wanted)
    total = np.diagonal(counts.covariance(values)).copy()
    free = laws.free_law(counts)
    within = np.array([_within(counts, int(k), free) for k in wanted])
    unbiased = 2 * wanted <= counts.n.min()
    return VarianceComponents(
        wanted, counts.num_prompts, counts.mean(values), np.maximum(total, 0), within, unbiased
    )


def _within(
    counts: Tally, k: int, free: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Mean over prompts of the variance within: unbiased if 2k <= n, of the free law otherwise."""
    if 2 * k <= counts.n.min():
        return counts.mean(np.asarray(pass_at_k_covariance_estimate(counts.n, counts.c, k, k)))
    return over_sizes(counts, partial(laws.free_covariance, *free, j=k, k=k))


def over_sizes(counts: Tally, of_size: Callable[[int], NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over prompts of a function of their number of samples alone."""
    result = None
    for n in np.unique(counts.n):
        term = counts.mean((counts.n == n).astype(float)) * of_size(int(n))
        result = term if result is None else result + term
    return np.asarray(result)


def cautious_within(counts: Tally, ks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Variance within for intervals, (..., K): the larger of :func:`_within` and of a beta law's.

    The first is 0 by chance where failures are rare and no prompt shows any; the beta law is not,
    but it is too small for two clusters of prompts.
    """
    free, (a, b) = laws.free_law(counts), laws.beta_law(counts)
    columns = []
    for k in map(int, ks):
        smooth = over_sizes(counts, partial(laws.beta_covariance, a, b, j=k, k=k))
        columns.append(np.maximum(_within(counts, k, free), smooth))
    return np.stack(columns, axis=-1)


def within_covariance(counts: Tally, ks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance over new samples of the pass@k estimates at several k, (..., K, K).

    From the free law at every pair, also where an unbiased estimate exists: a matrix of those
    need not be one of covariances.
    """
    free = laws.free_law(counts)
    size = len(ks)
    entries = {}
    for row in range(size):
        for column in range(row, size):
            j, k = int(ks[row]), int(ks[column])
            entries[row, column] = entries[column, row] = over_sizes(
                counts, partial(laws.free_covariance, *free, j=j, k=k)
            )
    rows = [np.stack([entries[r, s] for s in range(size)], axis=-1) for r in range(size)]
    return np.stack(rows, axis=-2)
