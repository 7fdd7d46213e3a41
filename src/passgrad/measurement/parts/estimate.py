r"""Where in the model the conflict sits: <grad J_k, grad J_1> split over parts of the parameters.

The halves A and B, their coefficients and their gradients G are those of
:mod:`passgrad.measurement.crossfit`. A product of two vectors is a sum over coordinates, so that
with :math:`\langle a, b \rangle_S` for the sum over those of part S, in a diagonal metric P,

.. math:: C_S = \tfrac12 \bigl( \langle G_A(1), P^{-1} G_B(k) \rangle_S
                + \langle G_B(1), P^{-1} G_A(k) \rangle_S \bigr),
          \qquad E[C_S \mid P] = \langle g_1, P^{-1} g_k \rangle_S

without bias for every part, and parts that divide the parameters add up to the estimate of
:func:`passgrad.measurement.estimate_conflict`. Likewise :math:`\langle G_A(j), G_B(j) \rangle_S`
for the squared norms.

The error comes from the influences (:mod:`passgrad.measurement.influence`), which here need
gradients instead of scalars, and so are taken of F *folds* of prompts instead of single ones. With
the gradients :math:`G_f` of a fold in half h, and H for what they are held against, that of a fold
is

.. math:: \psi_f = \langle G_f(1), H(k) \rangle_S + \langle G_f(k), H(1) \rangle_S .

- prompts "new": H is the gradient of the other half, and
  :math:`e_f = (\psi_f - |f| / |h| \sum_{f'} \psi_{f'}) / 2`, over
  :math:`(1 - \sum_f |f|^2 / |h|^2)^{1/2}`, for the folds of both halves; the mean of
  :math:`\sum_f e_f^2` is the variance to first order, whatever the sizes of the folds.
- prompts "fixed": both halves have all prompts and independent answers to them. H is the mean of
  the two halves, and :math:`e_f` is the :math:`\psi` of half of their difference in the fold,
  :math:`(G_{f A} - G_{f B}) / 2`, which has the variance of their mean.

Intervals have the t law of about as many degrees of freedom as folds
(:mod:`passgrad.stats.bands`), the bands hold at all parts of one kind at once, and for the choice
of k where it was one of several. Measured for 95 % in a policy of three parameters, each a part,
with 16 answers, k = 4 and 300 replications: for 20, 40 and 100 fixed prompts the intervals held the
truth in 89 to 96 %, for as many new ones in 87 to 97 %, the lower shares where a product is not
larger than twice its error.

**Cost.** One pass (forward and backward) over the answers that have a coefficient, for any number
of orders: the coefficients of binary rewards have one direction for the wrong answers, and one for
the right answers to prompts with as many of them (:func:`passgrad.measurement.parts.terms.directions`),
so that each answer is in one gradient. Gradients of folds are not kept whole but folded to
:data:`passgrad.measurement.parts.sketch.LENGTH` numbers a parameter, which makes their products
exact for smaller parameters, and right on average for larger ones, with an error of about one per
cent of the product of the lengths; it is in the influences. One gradient is in memory at a time.
Each finished fold is kept, so that a run that was killed goes on behind it.

**Adam's metric.** The estimate is unbiased for :math:`\langle g_1, P^{-1} g_k \rangle` *given* P,
whatever P is, if P does not depend on the answers of A and B. One from an optimizer does not, as
long as these answers were not among those that it was trained on. "estimated" keeps a third of the
prompts apart ("fixed": a third of the answers to each), takes the gradients of pass@1 of
minibatches of them, and their mean squares for :math:`\hat v`; halves and folds are those of the
rest. Then the mean is :math:`\langle g_1, E[P^{-1}] g_k \rangle`, with a positive diagonal: a sign
of it is one of a metric. Not unbiased is P itself: as root and reciprocal of a mean of few squares
it is not the P of the mean (Jensen), and it depends on the size of the minibatches, as Adam's does.
Were P taken from A and B, it would be small where their noise happened to be, and the product would
be biased.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.lm.distributed_passes import DistributedPasses
from passgrad.lm.groups import HIDDEN_STATE, OUTPUT_USE, Part, parts_of
from passgrad.lm.head import tied_output, watch_head
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.crossfit import Split
from passgrad.measurement.estimate import check_plan
from passgrad.measurement.metric import PLAIN, Metric
from passgrad.measurement.parts.terms import Folding, PartTerms, part_terms
from passgrad.measurement.samples import PartedGradients, Samples
from passgrad.measurement.store import Kept, StoredPasses
from passgrad.orders import Orders
from passgrad.progress import Progress
from passgrad.stats.bands import Array, IntArray, band, intervals, standard_error
from passgrad.stats.interval import Interval, WithInterval
from passgrad.stats.intervals import Prompts
from passgrad.stats.ratio import cosine_intervals

if TYPE_CHECKING:
    from pandas import DataFrame


class ModelParts(StoredPasses):
    """The samples of a language model: a unit is a parameter, or one of the two at its output.

    A gradient holds d numbers, and V times the width more where the output matrix is tied.
    """

    def __init__(self, passes: CompletionPasses) -> None:
        super().__init__(passes, None)
        self._tied = tied_output(passes.model)
        self.parts: Sequence[Part] = parts_of(passes.layout, tied_output=self._tied)
        self.units: Sequence[str] = list(
            dict.fromkeys(unit for part in self.parts for unit in part.units)
        )

    def gradient(self, coefficients: Tensor) -> dict[str, Tensor]:
        """One forward and backward pass over the answers with a coefficient."""
        with watch_head(self.passes.model, matrix=OUTPUT_USE in self.units) as use:
            vector = self.passes.gradient(coefficients)
        found = self.passes.layout.views(vector)
        found[HIDDEN_STATE] = self._together(use.hidden)
        if use.matrix is not None:
            found[OUTPUT_USE] = self._together(use.matrix)
        return found

    def _together(self, total: Tensor) -> Tensor:
        """The sum over the processes that share the passes."""
        if isinstance(self.passes, DistributedPasses):
            return self.passes.group.add(total)
        return total

    def owner(self, unit: str) -> str | None:
        """The use of a tied matrix moves as the matrix does."""
        return {HIDDEN_STATE: None, OUTPUT_USE: self._tied}.get(unit, unit)

    def check(self, metric: Metric) -> None:
        """Raise UserError for a parameter that the metric lacks, or has in another shape."""
        for name, shape in self.passes.layout.shapes.items():
            found = None if metric.inverse is None else metric.inverse.get(name)
            if metric.inverse is not None and found is None:
                raise UserError(f"the second moments of Adam lack the parameter {name}")
            if found is not None and found.shape != shape:
                raise UserError(
                    f"the second moment of {name} has shape {tuple(found.shape)}, the parameter "
                    f"{tuple(shape)}: they are of another model"
                )


@dataclass(frozen=True, eq=False)
class PartsEstimate(WithInterval):
    """<grad J_k, P^-1 grad J_1> by part; float64 arrays (S, K, P) of metrics, orders and parts."""

    parts: tuple[Part, ...]
    ks: IntArray
    """(K,)."""
    metrics: tuple[str, ...]
    interval: Interval
    """The product, nan where a part has no parameters and the metric is one of parameters; the band
    holds for all parts of one kind at once, at one k in one metric, whichever k of ``choices``."""
    cosine: Array
    """The ratio of the unbiased estimates, nan where the length of a gradient in the part is not
    told from 0, and where the estimates contradict each other, a ratio beyond 1."""
    squared_norm: Array
    """<grad J_k, P^-1 grad J_k>: unbiased, so it may be negative."""
    squared_norm_at_1: Array
    """Of grad J_1, (S, P)."""
    influence: Array
    """e, (S, K, P, F): the sum of their squares is the square of the standard error."""
    prompts: Prompts
    estimator: str
    level: float

    inner_product = property(attrgetter("interval.value"), doc="(S, K, P).")

    def to_frame(self) -> DataFrame:
        """One row for each metric, k and part, in this order."""
        import pandas as pd

        shape = self.inner_product.shape
        places = np.indices(shape).reshape(3, -1)
        parts = [self.parts[p] for p in places[2]]
        norms = np.broadcast_to(self.squared_norm_at_1[:, None], shape)
        return pd.DataFrame(
            {
                "part": [part.name for part in parts],
                "kind": [part.kind for part in parts],
                "metric": [self.metrics[s] for s in places[0]],
                "k": self.ks[places[1]].astype(np.float64),
            }
            | self.interval.columns("inner_product")
            | {
                "cosine": self.cosine.ravel(),
                "squared_norm": self.squared_norm.ravel(),
                "squared_norm_at_1": norms.ravel(),
            }
        )


@dataclass(frozen=True)
class Reading:
    """How intervals are read: for which prompts, at which level, and after which choice."""

    prompts: Prompts = "new"
    """As in :func:`passgrad.measurement.estimate_conflict`, whose halves are taken with the same
    seed: halves of answers for "fixed", of prompts for "new"."""
    level: float = 0.95
    choices: int = 1
    """Of so many orders k was chosen by its product: the bands allow for it (Bonferroni)."""
    draws: int = 20_000
    """Random numbers behind a band."""


def estimate_parts(
    samples: PartedGradients,
    ks: int | Iterable[int],
    *,
    estimator: str | Estimator = "pkpo-loo1",
    reading: Reading | None = None,
    metrics: Sequence[Metric | Literal["estimated"]] = (PLAIN,),
    folding: Folding | None = None,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> PartsEstimate:
    """Estimate <grad J_k, P^-1 grad J_1> by part, with intervals, in one pass over the answers.

    :param samples: Of a language model (:class:`ModelParts`) or of a world with few parameters
        (:class:`passgrad.measurement.ScoreSamples`).
    :param ks: Orders.
    :param metrics: All are computed from the same gradients. "estimated" keeps a third of the
        samples apart for all of them: then the plain parts are those of two thirds.
    :param kept: Where finished folds are kept.
    :param progress: Told of one stage, of so many folds.
    :raises UserError: As :func:`passgrad.measurement.estimate_conflict` does, and for a metric that
        lacks parameters.
    """
    chosen, reading, folding = get_estimator(estimator), reading or Reading(), folding or Folding()
    split: Split = "completions" if reading.prompts == "fixed" else "prompts"
    given = Orders.of(ks)
    shape = Samples.of(samples, replicated=False).shape
    check_plan(*shape, given, estimator=chosen, prompts=reading.prompts, level=reading.level)
    terms = part_terms(
        samples, given, chosen, split, metrics=metrics, folding=folding, kept=kept,
        progress=progress,
    )  # fmt: skip
    parts = tuple(samples.parts)
    rows = [terms.orders.index(k) for k in given]
    inner, norms = terms.inner[:, rows].numpy(), terms.norms.numpy()
    influence = terms.influence[:, rows].numpy()
    return PartsEstimate(
        parts=parts,
        ks=given.array,
        metrics=tuple("adam, estimated" if m == "estimated" else m.name for m in metrics),
        interval=_intervals(parts, inner, influence, reading, folding.seed),
        cosine=_cosines(terms, reading.level)[:, rows],
        squared_norm=norms[:, rows],
        squared_norm_at_1=norms[:, 0],
        influence=influence,
        prompts=reading.prompts,
        estimator=chosen.name,
        level=reading.level,
    )


def _intervals(
    parts: Sequence[Part], inner: Array, influence: Array, reading: Reading, seed: int
) -> Interval:
    """(S, K, P), from influences (S, K, P, F)."""
    low, high = intervals(inner, influence[..., None], reading.level)
    error, level = standard_error(influence[..., None]), 1 - (1 - reading.level) / reading.choices
    band_low, band_high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    for kind in dict.fromkeys(part.kind for part in parts):
        for s, k in np.ndindex(inner.shape[:2]):
            # A part without a number in this metric has no place in a band.
            places = [
                p for p, part in enumerate(parts)
                if part.kind == kind and np.isfinite(inner[s, k, p])
            ]  # fmt: skip
            if places:
                band_low[s, k, places], band_high[s, k, places], _ = band(
                    inner[s, k, places], influence[s, k, places, :, None], level,
                    seed=seed, draws=reading.draws,
                )  # fmt: skip
    unknown = ~np.isfinite(inner)
    error[unknown] = low[unknown] = high[unknown] = np.nan
    return Interval(inner, error, low, high, band_low, band_high)


def _cosines(terms: PartTerms, level: float) -> Array:
    """(S, J, P): nan where the length of a gradient in the part is not told from 0."""
    inner, norms = terms.inner.numpy(), terms.norms.numpy()
    by_inner, by_norm = terms.influence.numpy()[..., None], terms.norm_influence.numpy()[..., None]
    found = np.full(inner.shape, np.nan)
    reach = np.full(inner.shape[1], np.inf)
    for s, p in np.ndindex(inner.shape[0], inner.shape[2]):
        if np.isfinite(inner[s, :, p]).all():
            found[s, :, p] = cosine_intervals(
                inner[s, :, p], by_inner[s, :, p], norms[s, :, p], by_norm[s, :, p], 0, reach, level
            ).value
    return found
