r"""<grad J_k, grad J_1> of a policy from sampled answers: unbiased, for all k, with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.estimators.registry import unbiased_estimator
from passgrad.measurement import influence as terms
from passgrad.measurement.crossfit import Split, check_orders, cross_fit, split_halves
from passgrad.measurement.samples import SampledGradients, Samples
from passgrad.orders import Orders
from passgrad.stats.bands import (
    Array,
    IntArray,
    band,
    degrees_of_freedom,
    first_crossing,
    interval,
    threshold_interval,
)
from passgrad.stats.binomial import check_level
from passgrad.stats.interval import Interval, WithInterval
from passgrad.stats.intervals import Prompts, check_prompts
from passgrad.stats.ratio import cosine_intervals
from passgrad.stats.unsolved import unsolved_weight

if TYPE_CHECKING:
    from pandas import DataFrame


_MOST_ORDERS = 256  # of the point estimate


@dataclass(frozen=True, eq=False)
class ConflictEstimate(WithInterval):
    """Estimated products of grad J_k with grad J_1; float64 arrays.

    Arrays (K,) follow ``ks``, the orders with intervals; (C,) follow ``curve_ks``, all orders that
    have a point estimate; (M,) follow the prompts.
    """

    ks: IntArray
    interval: Interval
    """<grad J_k, grad J_1>, (K,), unbiased, with a band that holds at all of ``ks`` at once."""
    degrees: Array
    """Degrees of freedom of the t laws, (K,): about how many prompts carry the error."""
    squared_norm: Array
    """||grad J_k||^2, (K,), unbiased: negative where noise exceeds the gradient."""
    squared_norm_at_1: float
    cosines: Interval
    """The ratios of the unbiased estimates, (K,): nan where the interval of a squared norm holds 0,
    and where the estimates contradict each other, a ratio beyond 1.

    The bias is of the order of the squared relative errors of the three. The ends hold at all of
    ``ks`` at once and exclude 0 exactly where the band does (:mod:`passgrad.stats.ratio`).
    """
    curve_ks: IntArray
    curve: Array
    """<grad J_k, grad J_1> without intervals, (C,)."""
    success: Array
    """The share of right answers of each prompt, (M,)."""
    agreement: Array
    """a(x) = <grad p(x), grad J_1>, (M,), unbiased."""
    agreement_error: Array
    """Its standard error, (M,), for the direction of grad J_1 as estimated; nan if unknown.

    The error of that direction comes on top; all prompts have it in common.
    """
    contribution: Array
    """What each prompt adds to ``inner_product``, (K, M): it is the sum over prompts."""
    answer_error: Array
    """The part of the standard error that comes from the answers alone, (K,); nan where half of
    the answers are too few."""
    masses: Array
    num_samples: int
    """n, answers to each prompt."""
    influence: Array
    """e, (K, M, R): the sum of their squares is the square of the standard error; R = 1 for new
    prompts (:mod:`passgrad.measurement.influence`)."""
    crossing: Interval
    """The first k at which the curve through ``curve`` turns negative, nan if it does not; from low
    to high all k that the band leaves undecided, :func:`threshold_interval`."""
    prompts: Prompts
    split: Split
    estimator: str
    level: float

    inner_product = property(attrgetter("interval.value"), doc="<grad J_k, grad J_1>, (K,).")
    cosine = property(attrgetter("cosines.value"), doc="Of the two gradients, (K,).")
    cosine_low = property(attrgetter("cosines.low"), doc="Its lower ends, (K,).")
    cosine_high = property(attrgetter("cosines.high"), doc="Its upper ends, (K,).")
    threshold = property(attrgetter("crossing.value"), doc="The first k in conflict, or nan.")
    threshold_low = property(attrgetter("crossing.low"), doc="Its lower end.")
    threshold_high = property(attrgetter("crossing.high"), doc="Its upper end.")

    @cached_property
    def unsolved_weight(self) -> Array:
        """The share of the weight k (1 - p)^(k - 1) that lies on prompts without a right answer,
        which give no gradient in this sample, (K,), estimated (:mod:`passgrad.stats.unsolved`).
        """
        right = np.rint(self.success * self.num_samples)
        return unsolved_weight(right, self.num_samples, self.ks.tolist(), self.masses)

    @property
    def against(self) -> IntArray:
        """The orders where the band lies below zero; not k = 1, which is a squared norm."""
        return self.ks[(self.band_high < 0) & (self.ks > 1)]

    @property
    def open_ks(self) -> IntArray:
        """The orders whose sign the band leaves open; that of k = 1 cannot be."""
        return self.ks[(self.band_low <= 0) & (self.band_high >= 0) & (self.ks > 1)]

    @property
    def verdict(self) -> str:
        """One sentence: where the band shows conflict, where agreement, and where neither."""
        what = "on these prompts" if self.prompts == "fixed" else "on prompts of this kind"
        sure = f"with simultaneous confidence {self.level:.0%}"
        along = self.ks[self.band_low > 0]
        if self.against.size:
            return (
                f"A small step along grad J_k lowers pass@1 {what} for k = {_listed(self.against)},"
                f" {sure}{self._threshold_words()}."
            )
        if along.size and not self.open_ks.size:
            return (
                f"A small step along grad J_k raises pass@1 {what} at every k looked at, "
                f"k = {_listed(self.ks)}, {sure}."
            )
        if not self.open_ks.size:
            return f"Nothing is shown {what}: the gradient of pass@1 is not told from 0."
        lead = f"No conflict is shown {what}: "
        if along.size:
            lead += f"pass@1 rises along grad J_k for k = {_listed(along)} {sure}, and "
        return f"{lead}the sign is open for k = {_listed(self.open_ks)}."

    def _threshold_words(self) -> str:
        low = f"{self.threshold_low:g}"
        return f"; the conflict sets in between k = {low} and k = {self.threshold_high:g}"

    def to_frame(self) -> DataFrame:
        """One row a k of ``ks``."""
        import pandas as pd

        columns = {"k": self.ks.astype(np.float64)} | self.interval.columns("inner_product")
        columns |= self.cosines.columns("cosine", "cosine_")
        frame = pd.DataFrame(columns | {"squared_norm": self.squared_norm, "degrees": self.degrees})
        frame.insert(3, "answer_error", self.answer_error)
        return frame.assign(unsolved_weight=self.unsolved_weight)

    def prompts_frame(self) -> DataFrame:
        """One row a prompt: mass, success, agreement with its error, and at each k what it adds to
        the estimate and its share of the variance.
        """
        import pandas as pd

        names = {"masses": "mass", "success": "success", "agreement": "agreement"}
        columns = {new: getattr(self, old) for old, new in names.items()}
        columns["agreement_error"] = self.agreement_error
        parts = (self.influence**2).sum(axis=2)
        with np.errstate(invalid="ignore"):
            shares = parts / parts.sum(axis=1, keepdims=True)
        rows = {
            f"contribution_{k:g}": row for k, row in zip(self.ks, self.contribution, strict=True)
        }
        rows |= {f"variance_share_{k:g}": row for k, row in zip(self.ks, shares, strict=True)}
        return pd.DataFrame(columns | rows)


def estimate_conflict(
    samples: SampledGradients,
    ks: Iterable[int],
    *,
    estimator: str | Estimator = "pkpo-loo1",
    prompts: Prompts = "new",
    split: Split | None = None,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> ConflictEstimate:
    r"""Estimate <grad J_k, grad J_1> by cross-fitting, with intervals at the orders ``ks``.

    Passes, with J orders in ``ks`` that are not 1: 1 + J gradients of every answer and
    directional derivatives of every answer along 1 + J gradients; the orders other than 1 serve
    the intervals alone, and no gradient of the point estimate depends on how many k there are.
    All gradients of a half and the derivatives along them come from one call each, so that they
    can share their forward pass. Products within prompts cost the same again.

    :param samples: Rewards of n answers to each of M prompts, with their passes.
    :param ks: Orders that get intervals, norms and cosines. The point estimate comes for every k
        that a half allows (for 256 of them, if there are more), at no cost.
    :param estimator: An unbiased one that takes k. The default uses k up to the size of a half.
    :param prompts: "fixed": the gradients of these prompts, with their masses; the error is that of
        the answers. "new": the gradients under the law that the prompts were drawn from; the error
        is that of prompts and answers.
    :param split: What the halves are halves of (:mod:`passgrad.measurement.crossfit`):
        "completions" for fixed prompts, "prompts" (the default) or "completions" for new ones. Only
        "completions" with new prompts needs products within prompts
        (:class:`passgrad.measurement.samples.OwnProducts`).
    :param seed, draws: Of the split, and of the random numbers behind the band.
    :raises UserError: For an estimator that is biased, too few answers or prompts, a k beyond the
        size of a half, and rewards other than 0 and 1.
    """
    chosen = unbiased_estimator(estimator)
    check_level(level)
    check_prompts(prompts)
    orders = Orders.of(ks)
    split = _split(split, prompts)
    checked = Samples.of(samples, replicated=False)
    n = checked.shape[1]
    half = n // 2 if split == "completions" else n
    curve_ks = _curve_orders(half - chosen.spare)
    own = split == "completions" and prompts == "new"
    fit = cross_fit(samples, curve_ks, orders, estimator=chosen, split=split, own=own, seed=seed)
    curve = terms.curve(fit, prompts)
    inner = curve[fit.places(fit.reported)]
    norms = terms.squared_norms(fit, prompts)
    by_inner = terms.influences(fit, prompts, "inner", chosen, seed=seed)
    by_norm = terms.influences(fit, prompts, "norm", chosen, seed=seed)
    # Order 1 has its gradient in any case, but its interval only where it was asked for.
    rows = [fit.reported.index(k) for k in orders]
    inner_at, norms_at = inner[rows].numpy(), norms[rows].numpy()
    e = by_inner[rows].numpy()
    *band_ends, critical = band(inner_at, e, level, seed=seed, draws=draws)
    reach = np.full(len(fit.reported), np.inf)
    reach[rows] = critical
    cosines = cosine_intervals(
        inner.numpy(), by_inner.numpy(), norms.numpy(), by_norm.numpy(), 0, reach, level
    )
    start, end = threshold_interval(orders, *band_ends)
    return ConflictEstimate(
        ks=orders.array,
        interval=interval(inner_at, e, level).with_band(*band_ends),
        degrees=degrees_of_freedom(e),
        squared_norm=norms_at,
        squared_norm_at_1=float(norms[0]),
        cosines=cosines[rows],
        curve_ks=fit.curve.array,
        curve=curve.numpy(),
        success=checked.rewards.mean(dim=1).cpu().numpy(),
        agreement=terms.agreement(fit, prompts).numpy(),
        agreement_error=terms.agreement_error(fit, chosen).numpy(),
        contribution=terms.contributions(fit, prompts)[rows].numpy(),
        answer_error=terms.answer_error(fit, chosen, seed=seed)[rows].numpy(),
        masses=checked.masses.cpu().numpy(),
        num_samples=n,
        influence=e,
        crossing=Interval(first_crossing(fit.curve, curve.numpy()), low=start, high=end),
        prompts=prompts,
        split=split,
        estimator=chosen.name,
        level=level,
    )


def check_plan(
    num_prompts: int,
    num_samples: int,
    ks: Iterable[int],
    *,
    estimator: str | Estimator = "pkpo-loo1",
    prompts: Prompts = "new",
    split: Split | None = None,
    level: float = 0.95,
) -> None:
    """Raise the UserError that :func:`estimate_conflict` would, before anything is sampled."""
    check_level(level)
    check_prompts(prompts)
    halves = split_halves(num_prompts, num_samples, _split(split, prompts), seed=0)
    check_orders(Orders.of(ks), halves, _split(split, prompts), unbiased_estimator(estimator))


def _curve_orders(largest: int) -> list[int]:
    """All orders where they are few; else some that lie equally dense on a logarithmic scale."""
    if largest <= _MOST_ORDERS:
        return list(range(1, max(largest, 1) + 1))
    return np.unique(np.geomspace(1, largest, _MOST_ORDERS).round().astype(int)).tolist()


def _split(split: Split | None, prompts: Prompts) -> Split:
    if split is None:
        return "completions" if prompts == "fixed" else "prompts"
    if split == "prompts" and prompts == "fixed":
        raise UserError('fixed prompts need split="completions": halves of prompts differ')
    return split


def _listed(ks: IntArray) -> str:
    return ", ".join(f"{k:g}" for k in ks)
