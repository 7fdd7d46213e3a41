"""Passes over the samples of a language model, each kept in a file as soon as it is done.

A measurement is a few passes that take minutes to hours each. Each leaves (M, n) numbers, and
these are all that is kept: a run that was killed goes on behind its last finished pass.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from passgrad.files import write_atomic
from passgrad.lm.passes import CompletionPasses


@dataclass(frozen=True, eq=False)
class Combination:
    """A gradient that is not computed yet: the sum of coefficients times scores, (M, n)."""

    coefficients: Tensor


class StoredPasses:
    """:class:`~passgrad.measurement.samples.SampledGradients` of a language model, in a folder.

    A gradient is computed when a derivative along it is asked for that is not stored, and dropped
    right after: whatever the number of k, there is one at a time. ``done`` is called after each
    pass with the number of answers that it was about.
    """

    def __init__(
        self, passes: CompletionPasses, folder: Path, done: Callable[[int], None] | None = None
    ) -> None:
        self.passes, self.folder, self.done = passes, folder, done

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
        name = hashlib.sha256(coefficients.double().numpy().tobytes() + where.numpy().tobytes())
        path = self.folder / f"{name.hexdigest()[:20]}.npy"
        if path.is_file():
            values = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            vector = self.passes.gradient(coefficients)
            values = self.passes.directional(vector, where=where).nan_to_num(nan=0.0)
            content = io.BytesIO()
            np.save(content, values.numpy(), allow_pickle=False)
            write_atomic(path, content.getvalue())
        if self.done is not None:
            self.done(int(where.sum()))
        return values
