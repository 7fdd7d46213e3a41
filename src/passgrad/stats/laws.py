"""Laws of the success rate over prompts, fitted to counts: what the samples alone do not show.

With 2k > n the variance of a prompt's pass@k estimate has no unbiased estimate, and with few
failures the unbiased one is often 0 by chance. Both gaps are filled from a law of the success rate
that is fitted to all prompts at once. Two fits are kept, because one alone fails: a beta law misses
two clusters, a free law on a grid misses what no prompt has shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from passgrad.stats.tally import Tally
from passgrad.stats.variance import overlap_law, pass_at_k_covariance

_GRID = 41  # success rates of the free law, equally spaced in arcsin sqrt p
_STEPS = 20  # of expectation maximisation: few, so that the law stays smooth
_SPREADS = (0.05, 1000.0)  # limits of a + b of the beta law


def beta_law(tally: Tally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The parameters (a, b) of the beta law with the unbiased first two moments of p; shape (...).

    E[p] is estimated by the mean of c / n and E[p^2] by that of c (c - 1) / (n (n - 1)). Without
    a prompt of two samples, nothing is known of the spread, and none is assumed: it is the law for
    which the samples vary most.
    """
    n, c = tally.n, tally.c
    mean = tally.mean(c / n)
    twice = np.where(n > 1, c * (c - 1) / (n * np.maximum(n - 1, 1)), 0.0)
    several = tally.mean((n > 1).astype(float))
    square = np.where(several > 0, tally.mean(twice) / np.where(several > 0, several, 1), mean**2)
    total = tally.mean(n) * tally.num_prompts
    mean = np.clip(mean, 0.5 / total, 1 - 0.5 / total)  # all or none correct: half a sample off
    spread = np.maximum(square - mean**2, 1e-3 * mean * (1 - mean))
    size = np.clip(mean * (1 - mean) / spread - 1, *_SPREADS)
    return mean * size, (1 - mean) * size


def free_law(tally: Tally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Success rates (G,) and their masses (..., G): a law of free shape, smoothed.

    Expectation maximisation of the mixture of binomials (Laird, 1978) from the arcsine law,
    stopped early.
    """
    rates = np.sin((np.arange(_GRID) + 0.5) / _GRID * np.pi / 2) ** 2
    c, n = tally.c[:, None], tally.n[:, None]
    log_likelihood = c * np.log(rates) + (n - c) * np.log1p(-rates)
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    share = tally.weight / tally.num_prompts
    masses = np.full((*share.shape[:-1], _GRID), 1 / _GRID)
    for _ in range(_STEPS):
        masses = masses * ((share / (masses @ likelihood.T)) @ likelihood)
    return rates, masses


def beta_covariance(
    a: NDArray[np.float64], b: NDArray[np.float64], n: int, j: int, k: int
) -> NDArray[np.float64]:
    """The mean over p ~ Beta(a, b) of the covariance of the pass@j and pass@k estimates; (...)."""
    from scipy.special import betaln

    i, law = overlap_law(n, j, k)
    log_norm = betaln(a, b)[..., None]

    def moment(order: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(betaln(a[..., None], b[..., None] + order) - log_norm))

    return np.maximum(moment(j + k - i) @ law - moment(np.array([j + k]))[..., 0], 0.0)


def free_covariance(
    rates: NDArray[np.float64], masses: NDArray[np.float64], n: int, j: int, k: int
) -> NDArray[np.float64]:
    """The mean under a law on a grid of the covariance of the pass@j and pass@k estimates."""
    mean: NDArray[np.float64] = masses @ np.asarray(pass_at_k_covariance(rates, n, j, k))
    return mean
