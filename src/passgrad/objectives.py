r"""Objectives :math:`J = E_x[f(p(x))]` of the success rates, and the prompt weights they imply.

Gradient ascent on :math:`J` weighs the prompts by :math:`w(p) = f'(p)`:

.. math:: \nabla J = E_x[w(p(x)) \nabla p(x)].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError


class Objective(Protocol):
    """A differentiable function f of a success rate, elementwise on tensors of any shape."""

    @property
    def label(self) -> str:
        """What figures and tables call it."""
        ...

    def value(self, p: Tensor) -> Tensor:
        """f(p), in the dtype of p."""
        ...

    def weight(self, p: Tensor) -> Tensor:
        """w(p) = f'(p), in the dtype of p."""
        ...


@dataclass(frozen=True)
class PassAtK:
    r"""f_k(p) = 1 - (1 - p)^k, the chance that one of k independent answers is right.

    The weight is :math:`w_k(p) = k (1 - p)^{k - 1}` (paper, eq. 3).
    Both are computed through log(1 - p), so that f_k keeps its relative accuracy at small p,
    where 1 - (1 - p)^k would cancel. Any real k >= 1 is taken: what holds between the integers
    is what a threshold in k means. Raises UserError for other k.

    >>> PassAtK(10).value(torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64))
    tensor([0.0000, 0.6513, 1.0000], dtype=torch.float64)
    """

    k: float

    def __post_init__(self) -> None:
        check_k(self.k)

    @property
    def label(self) -> str:
        """Such as "pass@10"."""
        return f"pass@{self.k:g}"

    def value(self, p: Tensor) -> Tensor:
        """f_k(p), in the shape and dtype of p."""
        return -torch.expm1(self.k * torch.log1p(-p))

    def weight(self, p: Tensor) -> Tensor:
        """w_k(p) = k (1 - p)^(k - 1), in the shape and dtype of p."""
        # xlog1py is 0 where k = 1, also at p = 1, where the product would be 0 * (-inf) = nan.
        exponent = torch.full_like(p, self.k - 1)
        return self.k * torch.exp(torch.special.xlog1py(exponent, -p))


def check_k(k: float) -> float:
    """The number k as a float; raises UserError unless it is a finite real k >= 1."""
    if not isinstance(k, Real) or isinstance(k, bool):
        raise UserError(f"k must be a number, got {k!r}")
    if not (math.isfinite(k) and k >= 1):
        raise UserError(f"k must be a finite number of at least 1, got {k}")
    return float(k)
