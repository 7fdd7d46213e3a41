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

from collections.abc import Callable
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
#: random halvings of the answers, where the error of the answers is wanted
HALVINGS = 20


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


#: the estimates (K, M) of the prompts of a pair at some orders
Estimate = Callable[[Pair, Orders], Array]


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


def across_prompts(values: Array) -> Array:
    """Influences of the mean of (K, M) values over prompts that are a sample: (K, M, 1)."""
    size = values.shape[1]
    deviation = values - values.mean(axis=1, keepdims=True)
    return deviation[..., None] / np.sqrt(size * (size - 1))


def within_prompts(pair: Pair, ks: Orders, of: Estimate, seed: int = 0) -> Array:
    """Influences of the mean over prompts that are all there is: (K, M, R); only answers vary.

    Half of the difference of the estimates from two halves of the answers, for R = 20 random
    halvings. Its mean square is half of the variance of a half, which is at least the variance of
    the whole. nan for orders beyond half of the answers of some prompt.
    """
    rng = np.random.default_rng(seed)
    size = pair.num_prompts
    result = np.full((len(ks), size, HALVINGS), np.nan)
    enough = min(pair.samples_before.min(), 2 * pair.samples_after.min()) // 2
    fitting = [place for place, k in enumerate(ks) if k <= enough]
    if not fitting or pair.samples_after.min() < 2:
        return result
    orders = Orders.of([ks[place] for place in fitting])
    for turn in range(HALVINGS):
        first, second = halves(pair, rng)
        gap = (of(first, orders) - of(second, orders)) / 2
        result[fitting, :, turn] = gap / (size * np.sqrt(HALVINGS))
    return result


def halves(pair: Pair, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """The answers of both windows in two random halves."""

    def split(n: IntArray, c: IntArray) -> tuple[IntArray, ...]:
        half = n // 2
        taken = rng.hypergeometric(c, n - c, half)
        return half, taken, n - half, c - taken

    n, c, n_rest, c_rest = split(pair.samples_before, pair.correct_before)
    m, d, m_rest, d_rest = split(pair.samples_after, pair.correct_after)
    return (
        Pair(pair.before, pair.after, pair.prompt, n, c, m, d),
        Pair(pair.before, pair.after, pair.prompt, n_rest, c_rest, m_rest, d_rest),
    )


def mean_with_band(values: Array, level: float, influences: Array | None = None) -> Interval:
    """Means over prompts of (K, M) values, with intervals at each order and a band over them.

    Orders with nan are left unknown.

    :param influences: (K, M, R); :func:`across_prompts` by default. The interval of an order
        without them is open.
    """
    known = np.isfinite(values).all(axis=1)
    columns = {name: np.full(len(values), np.nan) for name in ("value", "error", "low", "high")}
    band = {"band_low": np.full(len(values), np.nan), "band_high": np.full(len(values), np.nan)}
    if known.any():
        mean = values[known].mean(axis=1)
        influence = (across_prompts(values) if influences is None else influences)[known]
        # Influences that are all zero stand for an error that is not known.
        influence = np.where(np.isfinite(influence), influence, 0.0)
        alone = bands.interval(mean, influence, level)
        for name in columns:
            columns[name][known] = getattr(alone, name)
        low, high, _ = bands.band(mean, influence, level)
        band["band_low"][known], band["band_high"][known] = low, high
    return Interval(**columns, **band)
