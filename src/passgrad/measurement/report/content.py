"""What a report says: plain values, independent of how they were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from passgrad.errors import UserError
from passgrad.stats.interval import Interval

NAN = math.nan
UNKNOWN = Interval(NAN)


@dataclass(frozen=True)
class CurveRow:
    """<grad J_k, grad J_1> at one k, with the interval at this k and the band over all of them.

    nan stands for an end or a cosine that is not known, an infinite end for one that is open.
    """

    k: float
    product: Interval
    cosine: Interval = UNKNOWN
    unsolved: float = NAN
    """The share of the weight of pass@k on prompts that were never solved."""


@dataclass(frozen=True)
class PromptRow:
    """One prompt: its answers counted, and its agreement a(x) = <grad p(x), grad J_1>.

    ``contribution`` is its part of <grad J_k, grad J_1> at the chosen k, in which the parts of all
    prompts add up to the whole; nan where it was not measured. ``right`` and ``wrong`` are one
    answer of each kind, None where there is none.
    """

    id: str
    prompt: str
    num_samples: int
    num_correct: int
    agreement: float
    agreement_error: float = NAN
    contribution: float = NAN
    group: str = ""
    right: str | None = None
    wrong: str | None = None

    @property
    def success(self) -> float:
        """The share of right answers."""
        return self.num_correct / self.num_samples


@dataclass(frozen=True)
class LayerRow:
    """The part of <grad J_k, grad J_1> at the chosen k that lies in one part of the model.

    Rows of the kinds "layer" and "group" divide the model: their parts add up to the whole. Those
    of the kind "final" are readings of what the final layer may be, and do not. ``metric`` is
    "plain" or that of an optimiser; rows of one kind in several metrics are shown side by side.
    nan stands for an end, a product or a cosine that is not known, an infinite end for an open one.
    """

    name: str
    product: Interval
    """With a band for all parts of the kind."""
    kind: str = "layer"
    cosine: float = NAN
    metric: str = "plain"


@dataclass(frozen=True)
class StepRow:
    """The change of pass@k at one k by a step along the gradient of ``step_k``, in [-1, 1].

    ``total`` is the sum of the first and the second order. ``realised`` is what the step did where
    it was taken.
    """

    k: float
    first: float
    second: float
    total: Interval
    realised: Interval = UNKNOWN


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows.

    Raises :class:`UserError` for an empty curve, no prompts, a ``chosen_k`` that the curve lacks,
    a k twice or below 1, more right answers than answers, and a level outside (0, 1).
    """

    verdict: str
    """One sentence."""
    curve: Sequence[CurveRow]
    prompts: Sequence[PromptRow]
    chosen_k: float
    """The k of ``PromptRow.contribution`` and of ``LayerRow.product``."""
    threshold: Interval | None = None
    """The first k at which the inner product turns negative: nan where it does not, with an
    infinite end where nothing bounds it from above."""
    line: Sequence[tuple[float, float]] = ()
    """(k, inner product) at every k that has an estimate without interval; joins the points."""
    layers: Sequence[LayerRow] = ()
    step: Sequence[StepRow] = ()
    step_k: float = NAN
    """The order whose gradient the step goes along."""
    step_verdict: str = ""
    """One sentence about the step."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the answers were sampled and the numbers estimated."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Model, versions, processor, seed, wall time."""
    not_measured: Sequence[str] = ()
    """Sentences."""
    warnings: Sequence[str] = ()
    next_step: str = ""
    """What to do now, a sentence or two."""
    next_command: str = ""
    """The command or argument that does it."""
    level: float = 0.95
    title: str = "Will pass@k training cost pass@1?"

    def __post_init__(self) -> None:
        if not self.curve:
            raise UserError("a report needs at least one k in its curve")
        if not self.prompts:
            raise UserError("a report needs at least one prompt")
        if not 0 < self.level < 1:
            raise UserError(f"level must lie between 0 and 1, got {self.level!r}")
        ks = [row.k for row in self.curve]
        for k in ks:
            if not (math.isfinite(k) and k >= 1):
                raise UserError(f"k must be a number of at least 1, got {k!r}")
        if len(set(ks)) < len(ks):
            raise UserError("a k occurs twice in the curve of the report")
        if self.chosen_k not in ks:
            raise UserError(
                f"chosen_k = {self.chosen_k:g} is not in the curve; it has "
                f"{', '.join(f'{k:g}' for k in sorted(ks))}"
            )
        for row in self.prompts:
            if row.num_samples < 1 or not 0 <= row.num_correct <= row.num_samples:
                raise UserError(
                    f"prompt {row.id!r} has {row.num_correct} right answers out of "
                    f"{row.num_samples}; give 0 <= num_correct <= num_samples, at least 1 sample"
                )
