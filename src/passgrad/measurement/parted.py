"""Samples whose gradients come in pieces, so that their products can be split by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.distributed_passes import DistributedPasses
from passgrad.lm.groups import HIDDEN_STATE, OUTPUT_USE, Part, parts_of
from passgrad.lm.head import tied_output, watch_head
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.metric import Metric


class PartedGradients(Protocol):
    """Sampled answers with gradients in named pieces ("units").

    Axes of replications may stand in front of all tensors.
    """

    @property
    def rewards(self) -> Tensor:
        """(M, n), 0 for a wrong answer and 1 for a right one."""
        ...

    @property
    def masses(self) -> Tensor:
        """D(x), (M,), positive, adding up to 1."""
        ...

    @property
    def units(self) -> Sequence[str]:
        """The names of the pieces."""
        ...

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, each of some units."""
        ...

    def gradient(self, coefficients: Tensor) -> Mapping[str, Tensor]:
        """The sum of coefficients (M, n) times scores, in its units."""
        ...

    def owner(self, unit: str) -> str | None:
        """The name under which a metric has 1 / P for a unit; None for one without parameters."""
        ...

    def check(self, metric: Metric) -> None:
        """Raise UserError for a metric that is of other parameters."""
        ...


@dataclass(frozen=True, eq=False)
class ScoreParts:
    """Samples whose scores are written down, (..., M, n, d): each coordinate is a unit, named by
    its number, and by default a layer.
    """

    rewards: Tensor
    scores: Tensor
    masses: Tensor
    division: Sequence[Part] = field(default=())

    @property
    def units(self) -> Sequence[str]:
        """The numbers from 0 to d - 1."""
        return [str(place) for place in range(self.scores.shape[-1])]

    @property
    def parts(self) -> Sequence[Part]:
        """The whole, and the division that was given or that by coordinates."""
        layers = self.division or [Part("layer", name, (name,)) for name in self.units]
        return [Part("whole", "all parameters", tuple(self.units)), *layers]

    def gradient(self, coefficients: Tensor) -> dict[str, Tensor]:
        """(...) for each unit."""
        total = torch.einsum("...xi,...xid->...d", coefficients, self.scores)
        return dict(zip(self.units, total.unbind(-1), strict=True))

    def owner(self, unit: str) -> str | None:
        """Itself."""
        return unit

    def check(self, metric: Metric) -> None:
        """Raise UserError for a coordinate that the metric lacks."""
        inverse = metric.inverse
        missing = [] if inverse is None else [u for u in self.units if u not in inverse]
        if missing:
            raise UserError(f"the metric lacks the parameter {missing[0]}")


class ModelParts:
    """The samples of a language model: a unit is a parameter, or one of the two at its output.

    A gradient holds d numbers, and V times the width more where the output matrix is tied.
    """

    def __init__(self, passes: CompletionPasses) -> None:
        self.passes = passes
        self._tied = tied_output(passes.model)
        self.parts: Sequence[Part] = parts_of(passes.layout, tied_output=self._tied)
        self.units: Sequence[str] = list(
            dict.fromkeys(unit for part in self.parts for unit in part.units)
        )

    @property
    def rewards(self) -> Tensor:
        """(M, n)."""
        return self.passes.rewards

    @property
    def masses(self) -> Tensor:
        """(M,)."""
        return self.passes.masses

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
