r"""How much of the weight of pass@k lies on prompts that no sample has solved.

pass@k weighs a prompt by :math:`w_k(p) = k (1 - p)^{k - 1}`. A prompt without a right answer gives
no gradient in the sample, whatever its weight is: what is measured is measured on the others. The
weight of a prompt with c right answers of n is its mean under the law of the success rate that is
fitted to all prompts (:func:`passgrad.stats.laws.free_law`), given c: c = 0 does not mean p = 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from passgrad.stats import laws
from passgrad.stats.bands import Array
from passgrad.stats.tally import tally


def expected_weights(num_correct: ArrayLike, num_samples: int, ks: Sequence[float]) -> Array:
    """E[w_k(p) | c] of each prompt, (K, M)."""
    counts = np.asarray(num_correct, dtype=np.int64)
    rates, masses = laws.free_law(tally(np.full(len(counts), num_samples), counts))
    right = np.arange(num_samples + 1)[:, None]
    logs = right * np.log(rates) + (num_samples - right) * np.log1p(-rates)
    logs += np.log(np.maximum(np.ravel(masses), 1e-300))
    posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    weights = np.stack([k * (1 - rates) ** (k - 1) for k in ks])
    found: Array = (weights @ posterior.T)[:, counts]
    return found


def unsolved_weight(
    num_correct: ArrayLike, num_samples: int, ks: Sequence[float], masses: ArrayLike | None = None
) -> Array:
    """The share of the weight of pass@k on prompts without a right answer, (K,).

    >>> unsolved_weight([0, 0, 16, 32], 32, [1, 8]).round(2)
    array([0.5, 1. ])
    """
    counts = np.asarray(num_correct)
    law = np.full(len(counts), 1 / len(counts)) if masses is None else np.asarray(masses)
    weights = expected_weights(counts, num_samples, ks) * law
    share: Array = weights[:, counts == 0].sum(axis=1) / weights.sum(axis=1)
    return share
