r"""What a run did to pass@k, to first order and in full, from counts of right answers alone.

With p the success rates of the prompts in one window of steps and p' those in a later one, and
:math:`w_k(p) = k (1 - p)^{k - 1}`,

.. math:: J_k(p') - J_k(p) = E[w_k(p) (p' - p)]
          - \tfrac12 E\bigl[k (k - 1) (1 - \xi)^{k - 2} (p' - p)^2\bigr],

where each :math:`\xi` lies between p and p' (Taylor's theorem with Lagrange's remainder). For a
step of the parameters, :math:`p' - p = \langle \nabla p, \theta' - \theta \rangle + O(\lVert
\theta' - \theta \rVert^2)`, so that the first term is :math:`\langle \nabla J_k, \theta' - \theta
\rangle` up to a remainder of second order: the step of the run against the gradient of every
objective, without a gradient. pass@k is concave in p: what curvature takes away is never negative.

The first term is estimated without bias. From n answers of the first window, c of them right, and
n' of the second, c' right, the estimate of a prompt is

.. math:: k \binom{n - c}{k - 1} \Big/ \binom{n}{k - 1}
          \Bigl(\frac{c'}{n'} - \frac{c}{n - k + 1}\Bigr).

It is the mean over all ways to take k - 1 answers of the first window for the weight and a further
one of it for the rate: an answer never serves for both, and none is left out. It needs n >= k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passgrad.errors import UserError
from passgrad.measurement.logs.visits import IntArray, Visits, Window
from passgrad.metrics import pass_at_k
from passgrad.orders import Orders
from passgrad.stats import bands
from passgrad.stats.interval import Interval

Array = NDArray[np.float64]

#: an interval over fewer prompts is not given
LEAST_PROMPTS = 10


@dataclass(frozen=True, eq=False)
class Pair:
    """The counts of the prompts that two windows share: (M,) each."""

    before: Window
    after: Window
    prompt: IntArray
    """The place of each in :attr:`Visits.prompt_ids`."""
    samples_before: IntArray
    correct_before: IntArray
    samples_after: IntArray
    correct_after: IntArray

    @property
    def num_prompts(self) -> int:
        """M."""
        return len(self.prompt)

    def at(self, places: NDArray[np.bool_] | IntArray) -> Pair:
        """The same of some of the prompts."""
        return Pair(
            self.before, self.after, self.prompt[places],
            self.samples_before[places], self.correct_before[places],
            self.samples_after[places], self.correct_after[places],
        )  # fmt: skip


def pair_of(visits: Visits, before: Window, after: Window, most: int) -> Pair:
    """The prompts with at least ``most`` answers in ``before`` and one in ``after``.

    :raises UserError: For windows that overlap or stand in the other order, and for fewer than
        :data:`LEAST_PROMPTS` such prompts.
    """
    if after.first <= before.last:
        raise UserError(
            f"{after} do not lie behind {before}; give windows that follow each other, such as "
            "0:11 and 24:35"
        )
    (n, c), (n_after, c_after) = visits.counts(before), visits.counts(after)
    shared = np.flatnonzero((n >= most) & (n_after >= 1))
    if len(shared) < LEAST_PROMPTS:
        both = int(((n > 0) & (n_after > 0)).sum())
        raise UserError(
            f"{len(shared)} prompts have {most} answers in {before} and one in {after}, of {both} "
            f"that have any in both; an interval needs {LEAST_PROMPTS}: take wider windows or "
            "smaller orders"
        )
    return Pair(
        before, after, shared, n[shared], c[shared], n_after[shared], c_after[shared]
    )  # fmt: skip


def weights(num_samples: IntArray, num_correct: IntArray, ks: Orders) -> Array:
    """Unbiased estimates of w_k(p): (K, M), from n >= k - 1 answers."""
    n, c = num_samples, num_correct
    one = np.ones(len(n))
    return np.array([k * (one if k == 1 else 1 - pass_at_k(n, c, k - 1)) for k in ks])


def first_order(pair: Pair, ks: Orders) -> Array:
    """Unbiased estimates of w_k(p) (p' - p) of each prompt: (K, M)."""
    rate_after = pair.correct_after / pair.samples_after
    rest = pair.samples_before[None] - ks.array[:, None] + 1
    result: Array = weights(pair.samples_before, pair.correct_before, ks) * (
        rate_after[None] - pair.correct_before[None] / rest
    )
    return result


def realised(pair: Pair, ks: Orders) -> Array:
    """Unbiased estimates of pass@k(p') - pass@k(p) of each prompt: (K, M).

    nan in all of a row whose order is beyond the answers of some prompt in the second window.
    """
    result = np.full((len(ks), pair.num_prompts), np.nan)
    for place, k in enumerate(ks):
        if (pair.samples_after >= k).all():
            result[place] = np.asarray(
                pass_at_k(pair.samples_after, pair.correct_after, k)
            ) - np.asarray(pass_at_k(pair.samples_before, pair.correct_before, k))
    return result


def mean_with_band(values: Array, level: float) -> Interval:
    """Means over prompts of (K, M) values, with intervals over prompts and a band over the orders.

    The prompts count as a sample of a law. Orders with nan are left unknown.
    """
    known = np.isfinite(values).all(axis=1)
    size = values.shape[1]
    columns = {name: np.full(len(values), np.nan) for name in ("value", "error", "low", "high")}
    band = {"band_low": np.full(len(values), np.nan), "band_high": np.full(len(values), np.nan)}
    if known.any():
        mean = values[known].mean(axis=1)
        influence = ((values[known] - mean[:, None]) / np.sqrt(size * (size - 1)))[..., None]
        alone = bands.interval(mean, influence, level)
        for name in columns:
            columns[name][known] = getattr(alone, name)
        low, high, _ = bands.band(mean, influence, level)
        band["band_low"][known], band["band_high"][known] = low, high
    return Interval(**columns, **band)
