"""Counts of many prompts as multiplicities of distinct outcomes, the form all intervals work on.

An interval over prompts depends on the prompts only through how many of them had each outcome
(n, c). With the outcomes listed once, means over prompts are products with a matrix, for one set of
prompts or for thousands of simulated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.orders import whole_orders


@dataclass(frozen=True)
class Tally:
    """Outcomes (n, c), each of shape (M,), and how many prompts had each: ``weight`` (..., M)."""

    n: NDArray[np.float64]
    c: NDArray[np.float64]
    weight: NDArray[np.float64]
    num_prompts: int

    def values(self, ks: NDArray[np.int64]) -> NDArray[np.float64]:
        """The unbiased pass@k of each outcome; shape (M, K)."""
        return np.asarray(pass_at_k(self.n[:, None], self.c[:, None], ks))

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over prompts of values of shape (M,) or (M, K)."""
        return self.weight @ values / self.num_prompts

    def covariance(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sample covariance (..., K, K), with P - 1 below, of values of shape (M, K)."""
        mean = self.mean(values)
        pairs = values[:, :, None] * values[:, None, :]
        second = np.tensordot(self.weight, pairs, axes=1) / self.num_prompts
        centred = second - mean[..., :, None] * mean[..., None, :]
        return centred * (self.num_prompts / (self.num_prompts - 1))

    def collapsed(self) -> Tally:
        """The same prompts with equal outcomes put together."""
        cells, place = np.unique(np.stack([self.n, self.c]), axis=1, return_inverse=True)
        members = place.ravel()[:, None] == np.arange(cells.shape[1])
        weight = self.weight @ members.astype(np.float64)
        return Tally(cells[0], cells[1], weight, self.num_prompts)

    def effective(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number of prompts that carry a sum: (sum y)^2 / sum y^2, 0 where all y are 0."""
        total, square = self.weight @ values, self.weight @ values**2
        return np.where(square > 0, total**2 / np.where(square > 0, square, 1), 0.0)


def order_array(ks: ArrayLike) -> NDArray[np.int64]:
    """The orders k in the order given, (K,); UserError for anything else than whole numbers."""
    return np.array(whole_orders(ks), dtype=np.int64)


def check_counts(num_samples: ArrayLike, num_correct: ArrayLike) -> list[NDArray[np.float64]]:
    """The counts n and c of at least two prompts, each of shape (P,); UserError otherwise."""
    rate = np.atleast_1d(np.asarray(pass_at_k(num_samples, num_correct, 1)))
    if rate.ndim != 1 or rate.size < 2:
        raise UserError(
            "an interval over prompts needs the counts of at least 2 prompts, "
            f"got an array of shape {rate.shape}"
        )
    return [
        np.broadcast_to(np.asarray(x, dtype=np.float64), rate.shape)
        for x in (num_samples, num_correct)
    ]


def tally(num_samples: ArrayLike, num_correct: ArrayLike) -> Tally:
    """The tally of the counts of P prompts, n a number or of shape (P,), c of shape (P,)."""
    counts = check_counts(num_samples, num_correct)
    cells, weight = np.unique(np.stack(counts), axis=1, return_counts=True)
    return Tally(cells[0], cells[1], weight.astype(np.float64), int(weight.sum()))
