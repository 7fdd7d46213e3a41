r"""Gradients folded to a few numbers for each unit, so that those of many folds can be held.

A unit of at most ``length`` numbers is kept as it is. A larger one is cut into rows of ``length``,
with a random sign at each entry, and the rows are added up:

.. math:: (S u)_b = \sum_{j \equiv b} \sigma_j u_j, \qquad
          E \langle S u, S v \rangle = \langle u, v \rangle, \qquad
          \mathrm{sd} \approx \|u\| \|v\| / \sqrt{\mathrm{length}} .

The length is a prime, so that a row or column of a matrix that is larger than others is spread over
all places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

#: of the fold of a unit; an error of about one per cent of the product of the lengths
LENGTH = 8191


class UnitSketch:
    """The fold of gradients in these units; it holds one byte for each number, its sign.

    :param leading: So many axes in front are replications, which are not folded.
    """

    def __init__(
        self, units: Sequence[str], *, leading: int = 0, length: int = LENGTH, seed: int = 0
    ) -> None:
        self.units, self.leading, self.length = tuple(units), leading, length
        self._generator = torch.Generator().manual_seed(seed)
        self._signs: dict[str, Tensor] = {}
        self.widths: dict[str, int] = {}
        """How many numbers the fold of each unit has, known from the first fold on."""

    def fold(self, vector: Mapping[str, Tensor], scales: Mapping[str, Tensor | None]) -> Tensor:
        """The folds of all units side by side, (..., W), each unit times its scale."""
        return torch.cat([self._fold(u, vector[u], scales[u]) for u in self.units], dim=-1)

    def products(self, one: Tensor, other: Tensor) -> Tensor:
        """<one, other> by unit, (..., U), float64, from folds that may be broadcast."""
        found = one.double() * other.double()
        widths = [self.widths[unit] for unit in self.units]
        return torch.stack([piece.sum(-1) for piece in found.split(widths, dim=-1)], dim=-1)

    def _fold(self, unit: str, values: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            values = values * scale.to(values)
        flat = values.reshape(*values.shape[: self.leading], -1)
        size = flat.shape[-1]
        self.widths[unit] = min(size, self.length)
        if size <= self.length:
            return flat.cpu()
        if unit not in self._signs:
            signs = torch.randint(2, (size,), dtype=torch.int8, generator=self._generator)
            self._signs[unit] = signs.mul_(2).sub_(1).to(values.device)
        rows = size // self.length
        whole = rows * self.length
        signed = flat[..., :whole] * self._signs[unit][:whole]
        folded = signed.unflatten(-1, (rows, self.length)).sum(-2)
        rest = flat[..., whole:] * self._signs[unit][whole:]
        folded[..., : size - whole] += rest
        return folded.cpu()
