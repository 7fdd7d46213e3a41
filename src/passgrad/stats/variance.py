r"""Variance of the unbiased pass@k estimate of one prompt: exact, and estimated from counts.

Write q = 1 - p and g_k = C(n - c, k) / C(n, k), the share of the k-subsets of the samples in which
every sample fails, so that the estimate of pass@k is 1 - g_k and E[g_k] = q^k. The covariance of
the estimates of pass@j and pass@k from the same n samples is that of g_j and g_k. A product of the
two averages over pairs of subsets, and a pair with i samples in common fails with probability
q^(j + k - i):

.. math:: \mathrm{Cov}(g_j, g_k) = \sum_i h_i \, (q^{j+k-i} - q^{j+k}), \qquad
    h_i = \binom{j}{i} \binom{n-j}{k-i} \Big/ \binom{n}{k}.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k

_CHUNK = 1 << 21  # entries of the table of prompts by overlaps that are held at once


def plug_in_pass_at_k(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike
) -> float | NDArray[np.float64]:
    """The plug-in 1 - (1 - c/n)^k for pass@k, which is biased down for every k > 1.

    It is also the mean over bootstrap resamples of the n samples, drawn with replacement, of the
    unbiased estimate: such a resample repeats samples, and k repeated samples are fewer than k.

    :raises UserError: For the same counts as :func:`passgrad.metrics.pass_at_k`, k > n included.

    >>> round(plug_in_pass_at_k(16, 1, 16), 3)
    0.644
    """
    unbiased = np.asarray(pass_at_k(num_samples, num_correct, k))  # validates the counts
    n, c, orders = (
        np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(num_samples, num_correct, k)
    )
    with np.errstate(divide="ignore"):
        value = -np.expm1(orders * np.log1p(-c / n)) + 0.0
    return float(value) if unbiased.ndim == 0 else value


def overlap_law(n: int, j: int, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sizes i of the overlap of a j-subset and a k-subset of n samples, and their law h_i.

    Products of the ratios of neighbours, away from the most likely size, then normalised: the
    logarithms of the binomial coefficients, which are huge and cancel, are never formed.
    """
    i = np.arange(max(0, j + k - n), min(j, k) + 1, dtype=np.float64)
    here = i[:-1]
    ratio = np.log((j - here) * (k - here)) - np.log((here + 1) * (n - j - k + here + 1))
    mode = int(np.sum(ratio > 0))  # the ratios decrease
    up = np.concatenate([[0.0], np.cumsum(ratio[mode:])])
    down = -np.cumsum(ratio[:mode][::-1])[::-1]
    law = np.exp(np.concatenate([down, up]))
    return i, law / law.sum()


def pass_at_k_covariance(p: ArrayLike, n: int, j: int, k: int) -> float | NDArray[np.float64]:
    """The covariance of the unbiased estimates of pass@j and pass@k from the same n samples.

    ``p`` has any shape, the result has the same; all terms are positive, nothing cancels, and the
    relative accuracy is kept for n of a million. O(min(j, k)) work for each p.

    :raises UserError: Unless 1 <= j, k <= n are whole numbers and 0 <= p <= 1.
    """
    pass_at_k(n, 0, [j, k])
    rates = np.asarray(p, dtype=np.float64)
    if not np.all((rates >= 0) & (rates <= 1)):
        raise UserError("success rates p must lie between 0 and 1")
    n, j, k = int(n), int(j), int(k)
    i, law = overlap_law(n, j, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log1p(-rates.ravel())
        result = np.zeros(log_q.size)
        step = max(1, _CHUNK // i.size)
        for start in range(0, log_q.size, step):
            part = log_q[start : start + step, None]
            # At i = 0 the term is 0; computed, it would be -inf * 0 where q = 0.
            terms = np.where(i > 0, np.exp((j + k - i) * part) * -np.expm1(i * part), 0.0)
            result[start : start + step] = terms @ law
    return float(result[0]) if rates.ndim == 0 else result.reshape(rates.shape)


def pass_at_k_variance(p: ArrayLike, n: ArrayLike, k: ArrayLike) -> float | NDArray[np.float64]:
    r"""The variance of the unbiased estimate of pass@k from n samples of success rate p.

    .. math:: \mathrm{Var} = \sum_{i=1}^{k} \frac{\binom{k}{i}\binom{n-k}{k-i}}{\binom{n}{k}}
        \, (q^{2k-i} - q^{2k}), \qquad q = 1 - p.

    The arguments broadcast; see :func:`pass_at_k_covariance` for accuracy, cost and errors.

    >>> round(pass_at_k_variance(0.25, 10, 1), 12)  # p (1 - p) / n
    0.01875
    """
    rates, sizes, orders = np.broadcast_arrays(
        np.asarray(p, dtype=np.float64), np.asarray(n), np.asarray(k)
    )
    result = np.empty(rates.shape)
    for size, order in {(m, o) for m, o in zip(sizes.flat, orders.flat, strict=True)}:
        here = (sizes == size) & (orders == order)
        result[here] = pass_at_k_covariance(rates[here], size, order, order)
    return float(result) if result.ndim == 0 else result


def pass_at_k_covariance_estimate(
    num_samples: ArrayLike, num_correct: ArrayLike, j: ArrayLike, k: ArrayLike
) -> float | NDArray[np.float64]:
    """The unbiased estimate g_j g_k - g_(j+k) of :func:`pass_at_k_covariance` from c of n.

    It needs j + k <= n, and no unbiased estimate exists beyond: an expectation under Bin(n, p) is
    a polynomial in p of degree n at most, and the covariance is one of degree j + k then.
    Never negative. The arguments broadcast.

    :raises UserError: For j + k > n.
    """
    n, c, one, other = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (num_samples, num_correct, j, k))
    )
    beyond = one + other > n
    if beyond.any():
        a, b, size = (int(x[beyond][0]) for x in (one, other, n))
        wanted = f"of pass@{a}" if a == b else f"between pass@{a} and pass@{b}"
        raise UserError(
            f"no unbiased estimate of the variance {wanted} exists for {size} samples: "
            f"draw at least {a + b}, or use variance_components, which models the success rates"
        )
    fails = [1 - np.asarray(pass_at_k(n, c, order)) for order in (one, other, one + other)]
    value = np.maximum(fails[0] * fails[1] - fails[2], 0.0)  # rounding alone makes it negative
    return float(value) if value.ndim == 0 else value


def pass_at_k_variance_estimate(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike
) -> float | NDArray[np.float64]:
    """The unbiased estimate g_k^2 - g_2k of :func:`pass_at_k_variance` from c of n; needs 2k <= n.

    See :func:`pass_at_k_covariance_estimate`.
    """
    return pass_at_k_covariance_estimate(num_samples, num_correct, k, k)
