"""The estimators by name, the one function that trainers call, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators.base import Estimator, GivenOrders
from passgrad.estimators.group import GRPO, RLOO, MaxRL, PassKTraining, VerlPassK
from passgrad.estimators.pass_at_k import (
    PKPO,
    CentredL2O,
    PKPOLeaveOneOut,
    PKPOLooMinusOne,
    ReinforceMax,
    TangLeaveOneOut,
)
from passgrad.estimators.plug_in import (
    PlugIn,
    PlugInCentred,
    PlugInLeaveOneOut,
    TangCentred,
    UWeight,
)
from passgrad.objectives import Mixture, PassAtK

if TYPE_CHECKING:
    from pandas import DataFrame

_ALL: tuple[Estimator, ...] = (
    ReinforceMax(),
    PKPO(),
    PKPOLeaveOneOut(),
    PKPOLooMinusOne(),
    TangLeaveOneOut(),
    CentredL2O(),
    RLOO(),
    PlugIn(),
    PlugInLeaveOneOut(),
    UWeight(),
    PlugInCentred(),
    TangCentred(),
    PassKTraining(),
    PassKTraining(standardise=False),
    GRPO(),
    MaxRL(),
    MaxRL(zero_without_success=False),
    VerlPassK(),
)

#: name -> estimator with its default options
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({one.name: one for one in _ALL})
#: the names of those that are unbiased for pass@k of every k
_UNBIASED = tuple(one.name for one in _ALL if one.unbiased and one.takes == "k")


def get_estimator(estimator: str | Estimator) -> Estimator:
    """The estimator of that name, or the one given; raises UserError with the known names."""
    if isinstance(estimator, Estimator):
        return estimator
    if not isinstance(estimator, str) or estimator not in ESTIMATORS:
        raise UserError(
            f"there is no estimator {estimator!r}; known are {', '.join(sorted(ESTIMATORS))}"
        )
    return ESTIMATORS[estimator]


def advantages(
    rewards: Any,
    k: GivenOrders | PassAtK | Mixture = None,
    *,
    estimator: str | Estimator = "pkpo-loo1",
    weights: Sequence[float] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    r"""Advantages A with which :math:`\sum_i A_i \nabla \log \pi(y_i)` ascends an objective.

    The dtype and device are those of floating rewards, else float64.

    :param rewards: (P, n): n samples for each of P prompts, 0 and 1 or graded.
    :param k: An order gives (P, n); a sequence of K orders gives (K, P, n); a ``Mixture`` of
        ``PassAtK`` gives the (P, n) advantages of its gradient :math:`\sum_m c_m \nabla J_{k_m}`.
        Estimators whose order is the number of samples, or that have none, need no k.
    :param estimator: A name in ``ESTIMATORS``, or an :class:`Estimator` with options of your own.
    :param weights: The coefficients c_m for a sequence of orders, any finite numbers: the result is
        then the mixture, (P, n). Only unbiased estimators can be mixed, since others would bring a
        scale of their own to each order.
    :param out: Takes the result, in its shape and dtype: a large result costs less in memory that
        was used before.
    :returns: (P, n), or (K, P, n) for a sequence of K orders without weights.
    :raises UserError: For nan, for fewer samples than the estimator needs, for rewards that were
        standardised within groups, and for graded rewards where only 0 and 1 make sense.

    >>> advantages([[1, 0, 0, 0], [1, 1, 0, 0]], k=2, estimator="pkpo-loo1")
    tensor([[0.5000, 0.0000, 0.0000, 0.0000],
            [0.3333, 0.3333, 0.0000, 0.0000]], dtype=torch.float64)
    """
    chosen = get_estimator(estimator)
    if isinstance(k, PassAtK | Mixture):
        if weights is not None:
            raise UserError("a mixture has its own coefficients: leave weights out")
        k, weights = _orders_of(k)
    if weights is None:
        return chosen.advantages(rewards, k, out=out)
    mixed = _Mixed(chosen, k, weights)
    return mixed.advantages(rewards, 1, out=out)


def unbiased_estimator(estimator: str | Estimator) -> Estimator:
    """The estimator, :func:`get_estimator`, if it is unbiased for pass@k of every k.

    :raises UserError: For another one, with the names of those that are.
    """
    chosen = get_estimator(estimator)
    if not chosen.unbiased or chosen.takes != "k":
        raise UserError(
            f"{chosen.name} is no unbiased estimator of every pass@k: take one of "
            f"{', '.join(_UNBIASED)}"
        )
    return chosen


class _Mixed(Estimator):
    """The weighted sum of one unbiased estimator over orders, as an estimator of its own.

    The coefficients are mixed, not the advantages: a mixture costs what a single order costs.
    """

    def __init__(self, estimator: Estimator, k: Any, weights: Sequence[float]) -> None:
        if not estimator.unbiased or estimator.takes != "k":
            raise UserError(
                f"{estimator.name} cannot mix orders: its scale depends on k; "
                f"take one of {', '.join(_UNBIASED)}"
            )
        self.inner, self.ks = estimator, k
        self.name = estimator.name  # type: ignore[misc]
        self.fewest = estimator.fewest  # type: ignore[misc]
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        size = len(k) if hasattr(k, "__len__") else 0
        if self.weights.shape != (size,) or not torch.isfinite(self.weights).all():
            raise UserError(f"weights must hold one finite number for each of the orders k = {k!r}")

    def orders(self, n: int, k: Any, *, strict: bool = False) -> tuple[tuple[int, ...], bool]:
        self.inner.orders(n, self.ks, strict=strict)
        return (1,), True

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        orders, _ = self.inner.orders(n, self.ks)
        plus, minus = self.inner.tables(n, orders)
        return self.weights[None] @ plus, self.weights[None] @ minus


def _orders_of(objective: PassAtK | Mixture) -> tuple[list[Any], list[float]]:
    """GivenOrders and coefficients of a pass@k objective or a mixture of them."""
    if isinstance(objective, PassAtK):
        members, coefficients = (objective,), (1.0,)
    else:
        members, coefficients = objective.objectives, objective.coefficients  # type: ignore
    orders: list[Any] = []
    for member in members:
        if not isinstance(member, PassAtK) or member.k != int(member.k):
            raise UserError(
                f"advantages mix pass@k of whole k only, got {member.label}: no number of samples "
                "gives an unbiased gradient of an objective that is no polynomial in p"
            )
        orders.append(int(member.k))
    return orders, list(coefficients)


def estimator_table() -> DataFrame:
    """All estimators, one a row: coefficients, objective, bias, needs, source; cells in Markdown.

    The columns "right" and "wrong" are ``A_+(c)`` and ``A_-(c)``, "samples" how many are needed,
    "graded" whether rewards other than 0 and 1 are taken, "sum 0" whether the advantages are
    centred.
    """
    import pandas as pd

    def needs(one: Estimator) -> str:
        if one.takes == "n":
            return "$n = k$"
        if one.takes == "none":
            return rf"$n \ge {one.fewest}$"
        return r"$n \ge k + 1$" if one.spare else r"$n \ge k$"

    return pd.DataFrame(
        {
            "estimator": f"`{one.name}`",
            "right": one.plus,
            "wrong": one.minus,
            "ascends": one.ascends,
            "bias factor": one.bias,
            "samples": needs(one),
            "graded": "no" if one.binary_only else "yes",
            "sum 0": "yes" if one.centred else "no",
            "source": one.source,
        }
        for one in _ALL
    )
