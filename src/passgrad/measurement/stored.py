"""Passes over the samples of a language model, each kept in a file as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from passgrad.lm.distributed import Processes
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.kept import Kept


@dataclass(frozen=True, eq=False)
class Combination:
    """A gradient that is not computed yet: the sum of coefficients times scores, (M, n)."""

    coefficients: Tensor


class StoredPasses:
    """:class:`~passgrad.measurement.samples.SampledGradients` of a language model, in a folder.

    A gradient is computed when a derivative along it is asked for that is not stored, and dropped
    right after: whatever the number of k, there is one at a time. ``done(1)`` is called behind each
    gradient with the derivatives along it.
    """

    def __init__(
        self,
        passes: CompletionPasses,
        folder: Path | None,
        done: Callable[[float], None] | None = None,
        group: Processes | None = None,
    ) -> None:
        self.passes, self.done = passes, done
        self.kept = Kept(folder, group or Processes())

    @property
    def rewards(self) -> Tensor:
        """(M, n)."""
        return self.passes.rewards

    @property
    def masses(self) -> Tensor:
        """(M,)."""
        return self.passes.masses

    def gradients(self, coefficients: Tensor) -> Sequence[Combination]:
        """The L sums, (L, M, n) coefficients, as promises."""
        return [Combination(row) for row in coefficients]

    def directional(self, gradients: Sequence[Combination], where: Tensor) -> Tensor:
        """(L, M, n) float64, 0 outside ``where``."""
        return torch.stack([self._along(one.coefficients, where) for one in gradients])

    def _along(self, coefficients: Tensor, where: Tensor) -> Tensor:
        def compute() -> Tensor:
            vector = self.passes.gradient(coefficients)
            return self.passes.directional(vector, where=where).nan_to_num(nan=0.0)

        values = self.kept.tensor("directional", coefficients.double(), where, compute=compute)
        if self.done is not None:
            self.done(1)
        return values
