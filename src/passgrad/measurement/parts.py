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
the gradients :math:`G_f` of a fold in half h, and h' for the other half, that of a fold is

.. math:: \psi_f = \langle G_f(1), G_{h'}(k) \rangle_S + \langle G_f(k), G_{h'}(1) \rangle_S .

- prompts "new": :math:`e_f = (\psi_f - |f| / |h| \sum_{f'} \psi_{f'}) / 2`, over
  :math:`(1 - \sum_f |f|^2 / |h|^2)^{1/2}`, for the folds of both halves; the mean of
  :math:`\sum_f e_f^2` is the variance to first order, whatever the sizes of the folds.
- prompts "fixed": the answers are split again at random into A' and B', and
  :math:`e_f = \sum_h (\psi_{f \cap h, A'} - \psi_{f \cap h, B'}) / 2`, with one split.

Intervals have the t law of about as many degrees of freedom as folds
(:mod:`passgrad.stats.bands`), the bands hold at all parts of one kind at once. Measured for
95 % in a policy with three parts of 20 parameters each, 20 to 100 prompts, 16 answers, k = 4, 200
replications: intervals of fixed prompts held the truth in 91 to 99 % and bands in 91 to 97 %, those
of new prompts in 93 to 100 % and in 95 to 97 %. A part of a single parameter is harder: for new
prompts 88 % where its product is not larger than its error, 92 to 97 % from three errors on.

**Cost.** With J orders, 1 among them, a gradient of every answer for each order, twice: for the
totals of the halves, and in folds. One k takes four training passes (forward and backward) over the
answers, less those whose coefficients are zero, and 2 J vectors of gradients, four for one k, in
memory. Each finished fold leaves its scalars, so that a run that was killed goes on with them.

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
"""

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
from passgrad.measurement._part_terms import part_terms
from passgrad.measurement.crossfit import Split
from passgrad.measurement.estimate import check_plan
from passgrad.measurement.metric import PLAIN, Metric
from passgrad.measurement.samples import PartedGradients, Samples
from passgrad.measurement.store import Kept, StoredPasses
from passgrad.orders import Orders
from passgrad.progress import Progress
from passgrad.stats.bands import Array, IntArray, band, intervals, standard_error
from passgrad.stats.interval import Interval, WithInterval
from passgrad.stats.intervals import Prompts

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
    holds for all parts of one kind at once, at one k in one metric."""
    cosine: Array
    """The ratio of the unbiased estimates, nan where a squared norm is not positive."""
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


def estimate_parts(
    samples: PartedGradients,
    ks: int | Iterable[int],
    *,
    estimator: str | Estimator = "pkpo-loo1",
    prompts: Prompts = "new",
    metrics: Sequence[Metric | Literal["estimated"]] = (PLAIN,),
    folds: int = 16,
    batches: int = 8,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> PartsEstimate:
    """Estimate <grad J_k, P^-1 grad J_1> by part, with intervals.

    :param samples: Of a language model (:class:`ModelParts`) or of a world with few parameters
        (:class:`passgrad.measurement.ScoreSamples`).
    :param ks: Orders. Each one takes as long as the first: one is usual.
    :param prompts: As in :func:`passgrad.measurement.estimate_conflict`, whose halves are taken
        with the same seed: halves of answers for "fixed", of prompts for "new".
    :param metrics: All are computed from the same gradients. "estimated" keeps a third of the
        samples apart for all of them: then the plain parts are those of two thirds.
    :param folds: Of the prompts of a half, at least 2.
    :param batches: Minibatches behind the metric that is "estimated".
    :param kept: Where the numbers of finished folds are kept.
    :param progress: Told of one stage, of so many pieces of work.
    :raises UserError: As :func:`passgrad.measurement.estimate_conflict` does, for less than two
        folds, and for a metric that lacks parameters.
    """
    chosen = get_estimator(estimator)
    split: Split = "completions" if prompts == "fixed" else "prompts"
    given = Orders.of(ks)
    shape = Samples.of(samples, replicated=False).shape
    check_plan(*shape, given, estimator=chosen, prompts=prompts, level=level)
    terms = part_terms(
        samples, given, chosen, split, metrics=metrics, folds=folds, batches=batches, seed=seed,
        kept=kept or Kept(), progress=progress,
    )  # fmt: skip
    parts = tuple(samples.parts)
    rows = [terms.orders.index(k) for k in given]
    inner, norms = terms.inner[:, rows].numpy(), terms.norms.numpy()
    influence = terms.influence[:, rows].numpy()
    low, high = intervals(inner, influence[..., None], level)
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
                    seed=seed, draws=draws,
                )  # fmt: skip
    scale = norms[:, rows] * norms[:, :1]
    positive = (norms[:, rows] > 0) & (norms[:, :1] > 0)
    cosine = inner / np.sqrt(np.where(positive, scale, np.nan))
    # A ratio of estimates beyond one says that the norms are not known.
    cosine[np.abs(cosine) > 1 + 1e-9] = np.nan
    unknown = ~np.isfinite(inner)
    error = standard_error(influence[..., None])
    error[unknown] = low[unknown] = high[unknown] = np.nan
    return PartsEstimate(
        parts=parts,
        ks=given.array,
        metrics=tuple("adam, estimated" if m == "estimated" else m.name for m in metrics),
        interval=Interval(inner, error, low, high, band_low, band_high),
        cosine=cosine,
        squared_norm=norms[:, rows],
        squared_norm_at_1=norms[:, 0],
        influence=influence,
        prompts=prompts,
        estimator=chosen.name,
        level=level,
    )
