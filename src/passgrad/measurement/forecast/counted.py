"""How many tokens a measurement passes over: the measurement itself, with passes that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from passgrad.lm.completions import Completions
from passgrad.lm.groups import Part
from passgrad.lm.logprobs import Packed
from passgrad.measurement.metric import Metric
from passgrad.measurement.samples import Along


@dataclass(eq=False)
class Counted:
    """Samples of a language model whose gradients are random numbers, and whose passes are counted
    in tokens of packed rows.
    """

    completions: Completions
    rewards: Tensor
    masses: Tensor
    rows: Callable[[Sequence[int]], list[Packed]]
    gradient_tokens: int = 0
    """Read forward and backward."""
    derivative_tokens: int = 0
    """Differentiated along a vector."""
    curvature_tokens: int = 0
    """Differentiated twice along one."""
    units: Sequence[str] = ("all",)
    parts: Sequence[Part] = (Part("whole", "all parameters", ("all",)),)
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def _tokens(self, where: Tensor) -> int:
        members = self.completions.chosen(where)
        return sum(row.num_tokens for row in self.rows(members))

    def _random(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, generator=self._generator, dtype=torch.float64) + 0.5

    def gradients(self, coefficients: Tensor) -> Tensor:
        """The coefficients."""
        return coefficients

    def directional(self, gradients: Tensor, where: Tensor) -> Tensor:
        """A gradient and derivatives along it, for each row of coefficients."""
        for coefficients in gradients:
            self.gradient_tokens += self._tokens(coefficients != 0)
            self.derivative_tokens += self._tokens(where)
        return self._random((len(gradients), *where.shape)) * where

    def gradient(self, coefficients: Tensor) -> Mapping[str, Tensor]:
        """A gradient, of the parts."""
        self.gradient_tokens += self._tokens(coefficients != 0)
        return {"all": self._random((1,))}

    def owner(self, unit: str) -> str | None:
        """Itself."""
        return unit

    def check(self, metric: Metric) -> None:
        """Every metric will do."""

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """A gradient once more; the derivatives along it are those of the product."""
        self.gradient_tokens += self._tokens(coefficients != 0)
        self.curvature_tokens += self._tokens(where)
        one = torch.ones((), dtype=torch.float64)
        values = self._random(where.shape) * where
        return Along(values, values, one, one)
