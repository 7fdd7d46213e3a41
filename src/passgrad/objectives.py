r"""Objectives :math:`J = E_x[f(p(x))]` of the success rates, and the prompt weights they imply.

Gradient ascent on :math:`J` weighs the prompts by :math:`w(p) = f'(p)`:

.. math:: \nabla J = E_x[w(p(x)) \nabla p(x)].

Some f have an infinite slope at p = 0 or p = 1, or run to minus infinity there. ``value`` and
``weight`` then return that infinity; neither raises, neither returns a nan for p in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.orders import check_k


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
    is what a threshold in k means.

    :raises UserError: For other k.

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
        return self.k * _power_of_failure(p, self.k - 1)


@dataclass(frozen=True)
class ArcsinSqrt:
    r"""f(p) = (2/k) arcsin sqrt(1 - (1 - p)^k): what rewards divided by their deviation ascend.

    The weight is :math:`(1 - p)^{k/2 - 1} / \sqrt{1 - (1 - p)^k}`, that of pass@k divided by
    k times the standard deviation of the pass@k reward. With the default k = 1 it is
    :math:`1 / \sqrt{p (1 - p)}`: GRPO with many samples a prompt (Davis and Recht, 2025,
    Thrampoulidis et al., 2025). Larger k are the limit of pass@k training (Chen et al., 2025,
    arXiv:2508.10751). The factor 2/k makes the weight that of the rewards as they are trained on.

    The weight is infinite at p = 0, and at p = 1 for k < 2; f is concave for k >= 2 only. For
    k = 1 the weight falls to 2 at p = 1/2 and rises again. Any real k >= 1 is taken; raises
    UserError for other k.

    >>> ArcsinSqrt().weight(torch.tensor([0.0, 0.5, 0.8], dtype=torch.float64))
    tensor([   inf, 2.0000, 2.5000], dtype=torch.float64)
    """

    k: float = 1

    def __post_init__(self) -> None:
        check_k(self.k)

    @property
    def label(self) -> str:
        """Such as "arcsin pass@4"."""
        return f"arcsin pass@{self.k:g}"

    def value(self, p: Tensor) -> Tensor:
        """f(p), from 0 to pi / k, in the shape and dtype of p."""
        # The arcsine itself loses half its digits near 1; the two legs of the triangle do not.
        opposite = PassAtK(self.k).value(p).sqrt()
        return 2 / self.k * torch.atan2(opposite, _power_of_failure(p, self.k / 2))

    def weight(self, p: Tensor) -> Tensor:
        """f'(p), in the shape and dtype of p; infinite where f has an infinite slope."""
        return _power_of_failure(p, self.k / 2 - 1) / PassAtK(self.k).value(p).sqrt()


@dataclass(frozen=True)
class Log:
    r"""f(p) = log p, the log-likelihood of being right, with the weight 1 / p.

    It is what rejection sampling followed by maximum likelihood ascends (Davis and Recht, 2025),
    and the limit of MaxRL (Tajwar et al., 2026). With ``order`` = T it is the series in the
    failure rate, cut after T terms: MaxRL, T being one less than its samples a prompt
    (:class:`passgrad.estimators.MaxRL`),

    .. math:: f(p) = -\sum_{j=1}^{T} (1 - p)^j / j, \qquad
              w(p) = \sum_{j=1}^{T} (1 - p)^{j - 1} = \frac{1 - (1 - p)^T}{p},

    which is the mixture :math:`\sum_j f_j / j` of pass@1 to pass@T, less a constant.
    Without an order f(0) is minus infinity and the weight there infinite; with one, the weight is
    at most T. Raises UserError for an order that is not a whole number of at least 1.

    >>> Log(order=3).weight(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    tensor([3.0000, 1.7500, 1.0000], dtype=torch.float64)
    """

    order: int | None = None

    def __post_init__(self) -> None:
        if self.order is None:
            return
        if not isinstance(self.order, Integral) or isinstance(self.order, bool) or self.order < 1:
            raise UserError(f"order must be a whole number of at least 1, got {self.order!r}")

    @property
    def label(self) -> str:
        """Such as "log" and "log to order 8"."""
        return "log" if self.order is None else f"log to order {self.order}"

    def value(self, p: Tensor) -> Tensor:
        """f(p), in the shape and dtype of p."""
        if self.order is None:
            return p.log()
        total = torch.zeros_like(p)
        for j in range(int(self.order), 0, -1):
            total = (1 - p) * (total + 1 / j)
        return -total

    def weight(self, p: Tensor) -> Tensor:
        """f'(p), in the shape and dtype of p."""
        if self.order is None:
            return 1 / p
        # At p = 0 the quotient is 0 / 0; its limit is the order, and w is as good as that long
        # before p is so small that the digits of the numerator go. Double precision holds every
        # order that the failure rate's dtype may not.
        order, rate = float(self.order), p.double()
        epsilon = torch.finfo(rate.dtype).eps
        large = order * rate > epsilon
        positive = torch.where(large, rate, 1.0)
        # Of a subnormal number log1p loses the digits; there -log(1 - p) is p.
        hazard = torch.where(positive > epsilon, -torch.log1p(-positive), positive)
        return torch.where(large, -torch.expm1(-order * hazard) / positive, order).to(p.dtype)


@dataclass(frozen=True)
class LogPassAtK:
    r"""f(p) = log(1 - (1 - p)^k), the log-likelihood of one right answer among k.

    The weight is :math:`k (1 - p)^{k - 1} / (1 - (1 - p)^k)`: as 1 / p for p well below 1 / k,
    and vanishing above. It is the loss of Chen et al. (2025, arXiv:2502.07154) for fine-tuning,
    with p the likelihood of the answer. f(0) is minus infinity and the weight there infinite.
    Any real k >= 1 is taken; raises UserError for other k.

    >>> LogPassAtK(2).weight(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    tensor([   inf, 1.3333, 0.0000], dtype=torch.float64)
    """

    k: float

    def __post_init__(self) -> None:
        check_k(self.k)

    @property
    def label(self) -> str:
        """Such as "log pass@10"."""
        return f"log pass@{self.k:g}"

    def value(self, p: Tensor) -> Tensor:
        """f(p), in the shape and dtype of p."""
        return PassAtK(self.k).value(p).log()

    def weight(self, p: Tensor) -> Tensor:
        """f'(p), in the shape and dtype of p; infinite at p = 0."""
        return PassAtK(self.k).weight(p) / PassAtK(self.k).value(p)


@dataclass(frozen=True)
class Mixture:
    r"""f(p) = sum_m c_m f_m(p) with coefficients c_m >= 0, such as a mixture of pass@k over k.

    The weight is :math:`\sum_m c_m w_m(p)`. The coefficients are taken as they are, not scaled to
    sum to one; an objective with coefficient 0 is left out, infinite weights included.
    Raises UserError for lists of different length, for a coefficient that is negative or not
    finite, and if none is positive.

    >>> Mixture((PassAtK(1), PassAtK(3)), (0.5, 0.5)).label
    '0.5 pass@1 + 0.5 pass@3'
    """

    objectives: tuple[Objective, ...]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        # Tuples, whatever sequence was given, keep the dataclass hashable.
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        if len(self.objectives) != len(self.coefficients):
            raise UserError(
                f"a mixture needs one coefficient for each objective, got {len(self.objectives)} "
                f"objectives and {len(self.coefficients)} coefficients"
            )
        for c in self.coefficients:
            if not (math.isfinite(c) and c >= 0):
                raise UserError(f"a coefficient must be a finite number of at least 0, got {c:g}")
        if not any(self.coefficients):
            raise UserError("a mixture needs at least one positive coefficient")

    @property
    def label(self) -> str:
        """Such as "0.5 pass@1 + 0.5 pass@8"."""
        return " + ".join(f"{c:g} {objective.label}" for c, objective in self._terms())

    def value(self, p: Tensor) -> Tensor:
        """f(p), in the shape and dtype of p."""
        return sum((c * f.value(p) for c, f in self._terms()), torch.zeros_like(p))

    def weight(self, p: Tensor) -> Tensor:
        """f'(p), in the shape and dtype of p."""
        return sum((c * f.weight(p) for c, f in self._terms()), torch.zeros_like(p))

    def _terms(self) -> list[tuple[float, Objective]]:
        pairs = zip(self.coefficients, self.objectives, strict=True)
        return [(c, objective) for c, objective in pairs if c > 0]


def _power_of_failure(p: Tensor, exponent: float) -> Tensor:
    """(1 - p)^exponent, through log(1 - p)."""
    # xlog1py is 0 for the exponent 0, also at p = 1, where the product would be 0 * (-inf) = nan.
    return torch.exp(torch.special.xlog1py(torch.full_like(p, exponent), -p))
