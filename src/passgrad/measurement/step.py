r"""What a step along grad J_k would do to pass@1 and pass@k: predicted to second order.

The vector v is the estimate of :math:`\nabla J_k` from half A of the samples. Half B is independent
of it, so that the derivatives along v

.. math:: J_j(\theta + \eta v) - J_j(\theta) = \eta \, D_v J_j + \tfrac{\eta^2}{2} D_v^2 J_j
          + O(\eta^3)

are estimated from B without bias given v (:mod:`passgrad.measurement.second_order`), for every j.
The step is then one step along one vector, which can be taken
(:mod:`passgrad.measurement.realised`), and not a mean over two.

Halves are of prompts if the prompts stand for others like them ("new"), and of the answers to every
prompt if they stand for themselves ("fixed"), with the seed of
:func:`passgrad.measurement.estimate_conflict`: the prediction then shares its passes. The errors are
given v:

- "new": each prompt of B adds a number of its own, and the error is that of their mean.
- "fixed": the answers of B are split again, R times at random. Half of the difference of two halves
  has the variance of their mean. That exceeds the variance of U, which uses all answers at once, by
  E[(mean - U)^2], since U is the mean of such means over all splits. Half of this excess is taken
  off: all of it would leave no bias, but where few answers decide, as at large j, U and such a
  variance come out small together. It takes two groups of j answers in B;
  orders j beyond have a prediction, and no interval.

:class:`StepSize` says how long a step is. The default is the step that raises pass@k by one point
to first order: what is then read off is the price of this point at pass@1.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.estimators.registry import unbiased_estimator
from passgrad.measurement.crossfit import (
    Split,
    check_orders,
    order_advantages,
    split_halves,
)
from passgrad.measurement.samples import Samples, StepSamples
from passgrad.measurement.second_order import path_derivatives
from passgrad.orders import Orders
from passgrad.stats.bands import IntArray, band, interval, standard_error
from passgrad.stats.binomial import check_level
from passgrad.stats.interval import Interval
from passgrad.stats.intervals import Prompts, check_prompts

if TYPE_CHECKING:
    from pandas import DataFrame

Unit = Literal["points", "length", "eta"]
#: beyond this share of the first order the second one says that the series has not settled
BENT = 0.5


@dataclass(frozen=True)
class StepSize:
    r"""How long the step is, in one of three units.

    - "points": the step whose first-order rise of pass@k is so many percentage points. Where the
      slope is less than its standard error, this error takes its place, so that a direction that is
      not known gives a shorter step and no infinite one.
    - "length": :math:`\|\eta v\| / \|\theta\|`, the length of the step over that of all weights.
    - "eta": the factor :math:`\eta` of the gradient, the learning rate of plain gradient ascent.

    Raises UserError for an unknown unit, and a value that is not finite and positive.
    """

    value: float = 1.0
    unit: Unit = "points"

    def __post_init__(self) -> None:
        if self.unit not in ("points", "length", "eta"):
            raise UserError(f"a step is given in points, length or eta, not in {self.unit!r}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise UserError(f"the size of a step must be finite and positive, got {self.value}")

    @classmethod
    def parse(cls, text: str) -> StepSize:
        """``points=1``, ``length=1e-5`` or ``eta=0.02``; a number alone is points."""
        unit, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise UserError(
                f"{text!r} is no size of a step: give points=1, length=1e-5 or eta=0.02, say"
            ) from None
        return cls(value, unit or "points")  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class StepDerivatives:
    """Derivatives of pass@j along v, for orders j in ``ks``, with what each prompt adds.

    ``first`` and ``second`` are (K, ...); the influences (K, ..., P, R) follow the prompts of half
    B, and the sum of their squares is the variance given v.
    """

    ks: Orders
    first: Tensor
    second: Tensor
    first_influence: Tensor
    second_influence: Tensor
    length: Tensor
    """||v||."""
    origin: Tensor
    """||theta||."""
    prompts_used: Tensor
    """The prompts of half B, (P,): all of them for fixed prompts."""
    coefficients: Tensor
    """v is the sum of these, (..., M, n), times the scores."""


def step_derivatives(
    samples: StepSamples,
    along: int,
    ks: Iterable[int],
    *,
    estimator: str | Estimator = "pkpo-loo1",
    prompts: Prompts = "new",
    resplits: int = 32,
    seed: int = 0,
) -> StepDerivatives:
    """The derivatives along the estimate of grad J_k, k = ``along``; replications stand in front.

    Raises UserError for an estimator that is biased, too few answers or prompts, and orders that a
    half is too small for.
    """
    chosen = unbiased_estimator(estimator)
    check_prompts(prompts)
    orders = Orders.of((along, *ks)).with_one()
    checked = Samples.of(samples)
    rewards, masses = checked.rewards, checked.masses
    split: Split = "completions" if prompts == "fixed" else "prompts"
    size, n = checked.shape
    halves = split_halves(size, n, split, seed=seed)
    check_orders(orders, halves, split, chosen)
    first, second = halves
    share = [masses[half.prompts] * size / len(half.prompts) for half in halves]
    scale = masses.new_zeros(size)
    scale[first.prompts] = share[0]
    weights = order_advantages(first.take(rewards), [along], chosen)[0]
    coefficients = first.put(weights, (size, n)) * scale[:, None]
    here = second.take(rewards)
    derivatives = samples.along(coefficients, second.put(_needed(here), (size, n)))
    slopes, bends = second.take(derivatives.slopes), second.take(derivatives.curvatures)
    values = path_derivatives(here, slopes, bends, orders, chosen)
    if prompts == "new":
        errors = [_centred(value * share[1] * len(share[1])) for value in values]
    else:
        errors = _resplit(values, here, slopes, bends, orders, chosen, share[1], resplits, seed)
    return StepDerivatives(
        orders,
        values[0] @ share[1],
        values[1] @ share[1],
        errors[0],
        errors[1],
        derivatives.length,
        derivatives.origin,
        second.prompts,
        coefficients,
    )


def _needed(rewards: Tensor) -> Tensor:
    """The answers that a derivative is needed of: of prompts with right and wrong ones."""
    right = rewards.mean(-1, keepdim=True)
    # Of two answers that are right a pair still counts: nothing is left for a baseline.
    mixed = ((right > 0) & (right < 1)) | (rewards.shape[-1] == 2)
    return mixed.expand_as(rewards)


def _centred(values: Tensor) -> Tensor:
    """Influences (..., P, 1) of the mean of (..., P) values."""
    size = values.shape[-1]
    return ((values - values.mean(-1, keepdim=True)) / (size * (size - 1)) ** 0.5)[..., None]


def _resplit(
    values: tuple[Tensor, Tensor], rewards: Tensor, slopes: Tensor, bends: Tensor,
    orders: Orders, estimator: Estimator, masses: Tensor, resplits: int, seed: int,
) -> list[Tensor]:  # fmt: skip
    """Influences (K, ..., P, R) for both orders; 0 where a half of half B is too small."""
    size, n = rewards.shape[-2:]
    possible = [place for place, k in enumerate(orders) if k + estimator.spare <= n // 2]
    shape = (len(orders), *rewards.shape[:-1], resplits)
    result = [rewards.new_zeros(shape) for _ in range(2)]
    if not possible or n < 4:
        return result
    some = [orders[place] for place in possible]
    away = [torch.zeros_like(values[0][possible]) for _ in range(2)]
    for turn in range(resplits):
        # Other seeds than that of the first split.
        again = split_halves(size, n, "completions", seed=seed + (turn + 1) * 1_000_003)
        one, other = (
            path_derivatives(
                half.take(rewards), half.take(slopes), half.take(bends), some, estimator
            )
            for half in again
        )
        for place in range(2):
            difference = masses * (one[place] - other[place]) / 2
            result[place][possible, ..., turn] = difference / resplits**0.5
            mean = (one[place] + other[place]) / 2
            away[place] += (masses * (values[place][possible] - mean)).square() / resplits
    for place in range(2):
        halves = result[place][possible].square().sum((-1, -2))
        excess = away[place].sum(-1) / halves.clamp(min=1e-300)
        scale = (1 - excess / 2).clamp(min=0.5).sqrt()
        result[place][possible] *= scale[..., None, None]
    return result


@dataclass(frozen=True, eq=False)
class StepPrediction:
    """The change of pass@k by one step, at the orders ``ks``: arrays (K,), of [0, 1] as pass@k is.

    ``first`` and ``second`` are the terms of the series, ``total`` their sum. Intervals are of each
    number by itself, the band of ``total`` holds at all orders at once; all of them given v.
    """

    ks: IntArray
    along: int
    """k: the step goes along the estimate of grad J_k."""
    eta: float
    length: float
    """||eta v||."""
    relative_length: float
    """Over ||theta||."""
    first: Interval
    second: Interval
    total: Interval
    prompts: Prompts
    level: float
    derivatives: StepDerivatives
    """What the prediction is made of, for any eta."""

    @property
    def verdict(self) -> str:
        """What the step would do to pass@1 and pass@k, in one sentence."""
        return self.told()

    def told(self, ks: IntArray | None = None, change: Interval | None = None) -> str:
        """The verdict, with the change at the orders ``ks`` that the step made, if it was taken."""
        shown = sorted({1, self.along})
        rows = np.flatnonzero(np.isin(self.ks, shown))
        text = (
            f"A step of {self.relative_length:.2g} of the length of the weights along "
            f"grad J_{self.along} is predicted to change {_changes(shown, self.total[rows])}"
        )
        if ks is not None and change is not None:
            text += f"; it changed {_changes(shown, change[np.flatnonzero(np.isin(ks, shown))])}"
        with np.errstate(invalid="ignore"):
            first, second = (np.abs(term.value[rows]) for term in (self.first, self.second))
            bent = bool((second > BENT * first).any())
        if bent:
            text += (
                "; its second order is not small against the first: a shorter step would be "
                "predicted better"
            )
        return text + "."

    def to_frame(self) -> DataFrame:
        """One row a k."""
        import pandas as pd

        columns = {"k": self.ks.astype(np.float64), "eta": self.eta}
        columns |= self.first.columns("first", "first_", error=False)
        columns |= self.second.columns("second", "second_", error=False)
        return pd.DataFrame(columns | self.total.columns("total", error=False))

    def at(self, size: StepSize) -> StepPrediction:
        """The prediction for a step of another size along the same v."""
        return _predicted(self.derivatives, self.along, size, self.prompts, self.level)


def predict_step(
    samples: StepSamples,
    along: int,
    ks: Iterable[int] = (),
    *,
    size: StepSize | None = None,
    estimator: str | Estimator = "pkpo-loo1",
    prompts: Prompts = "new",
    level: float = 0.95,
    seed: int = 0,
) -> StepPrediction:
    """Predict the changes of pass@j, j in ``ks`` and 1 and k, by a step along grad J_k.

    Passes over a language model: one gradient over half of the answers, two directional ones of
    first order over the other half, and for the second order about eight (forward mode over forward
    mode).

    :param samples: Of a language model (:class:`passgrad.measurement.second_order.ModelSteps`) or
        of a world with few parameters (:class:`passgrad.measurement.ScoreSamples`).
    :param along: k: the direction is the estimate of grad J_k from one half of the samples.
    :param size: By default one point of pass@k, :class:`StepSize`.
    :param prompts, estimator, seed: As in :func:`passgrad.measurement.estimate_conflict`.
    :raises UserError: As :func:`step_derivatives`, and where no answer gives a gradient.
    """
    check_level(level)
    derivatives = step_derivatives(
        samples, along, ks, estimator=estimator, prompts=prompts, seed=seed
    )
    if not float(derivatives.length) > 0:
        raise UserError(
            "no prompt of one half has right and wrong answers, so that there is no direction to "
            "step along: draw more samples"
        )
    return _predicted(derivatives, along, size or StepSize(), prompts, level)


def _predicted(
    made: StepDerivatives, along: int, size: StepSize, prompts: Prompts, level: float
) -> StepPrediction:
    first, second = made.first.numpy(), made.second.numpy()
    e1, e2 = made.first_influence.numpy(), made.second_influence.numpy()
    row = made.ks.index(along)
    v, theta = float(made.length), float(made.origin)
    eta = _eta(size, float(first[row]), float(standard_error(e1[row])), v, theta)
    one, two = eta * first, eta**2 / 2 * second
    total, e = one + two, eta * e1 + eta**2 / 2 * e2
    band_low, band_high = np.full_like(total, -np.inf), np.full_like(total, np.inf)
    known = standard_error(e) > 0
    if known.any():
        band_low[known], band_high[known], _ = band(total[known], e[known], level)
    return StepPrediction(
        ks=made.ks.array,
        along=along,
        eta=eta,
        length=eta * v,
        relative_length=eta * v / theta if theta > 0 else math.inf,
        first=interval(one, eta * e1, level),
        second=interval(two, eta**2 / 2 * e2, level),
        total=interval(total, e, level).with_band(band_low, band_high),
        prompts=prompts,
        level=level,
        derivatives=made,
    )


def _eta(size: StepSize, slope: float, error: float, v: float, theta: float) -> float:
    if size.unit == "eta":
        return size.value
    if size.unit == "length":
        return size.value * theta / v
    steepest = max(slope, error)
    if not steepest > 0:
        raise UserError(
            "the samples do not say how steep pass@k is: give the step as a length or as eta"
        )
    return size.value / 100 / steepest


def _changes(ks: list[int], changes: Interval) -> str:
    parts = [
        f"pass@{k} by {100 * value:+.2g} points ({_end(low)} to {_end(high)})"
        if np.isfinite([low, high]).all()
        else f"pass@{k} by {100 * value:+.2g} points (error unknown)"
        for k, value, low, high in zip(ks, changes.value, changes.low, changes.high, strict=True)
    ]
    return " and ".join(parts)


def _end(value: float) -> str:
    return f"{100 * value:+.2g}"
