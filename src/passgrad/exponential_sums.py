r"""Real exponential sums :math:`h(t) = \sum_i c_i e^{-\lambda_i t}`: where they change sign.

The generalised rule of signs (Laguerre, 1883; Polya and Szego, part V): ordered by the rates
:math:`\lambda_i`, the coefficients change sign at least as often as h has real zeros, counted with
their multiplicities, and the difference is even. On t > 0 their partial sums may take the place of
the coefficients, which gives a bound that is never larger.

The roots are isolated by Taylor bounds, not by a scan: between two points of the result nothing
is missed but for rounding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]

_LARGEST_BLOCK = 1 << 22  # entries of a table of exponentials
_NARROWEST = 1e-13  # relative width at which an interval is not halved any more


def sign_changes(sequence: ArrayLike) -> int:
    """How often a sequence changes sign from one term to the next, zeros left out.

    >>> sign_changes([1, 0, -2, -3, 4])
    2
    """
    signs = np.sign(np.asarray(sequence, dtype=np.float64))
    signs = signs[signs != 0]
    return int((signs[1:] != signs[:-1]).sum())


def ordered(rates: ArrayLike, coefficients: ArrayLike) -> tuple[Array, Array]:
    """The sum with increasing rates: terms of equal rate added up, terms of coefficient 0 left out.

    Both results have shape (M,), with M at most the number of terms given.
    """
    rates, coefficients = (np.asarray(v, dtype=np.float64) for v in (rates, coefficients))
    distinct, place = np.unique(rates, return_inverse=True)
    total = np.bincount(place, weights=coefficients, minlength=len(distinct))
    return distinct[total != 0], total[total != 0]


def sign_change_points(rates: ArrayLike, coefficients: ArrayLike, up_to: float) -> Array:
    r"""All t in (0, ``up_to``) at which :math:`h(t) = \sum_i c_i e^{-\lambda_i t}` changes sign.

    ``rates`` are finite, of shape (N,), ``coefficients`` likewise; ``up_to`` may be infinite.
    Beyond some t the term of the smallest rate outweighs all of the opposite sign. Before that,
    intervals are halved until Taylor's formula shows h to have no root in them or to be monotone,
    so that the signs at their ends tell of exactly one root or none. What is left are intervals of
    a relative width of 1e-13 in which h is zero but for rounding: a root of even order is no change
    of sign, and two simple roots as close as that pass for one of even order.
    """
    rates, coefficients = ordered(rates, coefficients)
    if sign_changes(coefficients) == 0:
        return np.empty(0)
    h = _Sum(rates - rates[0], coefficients)  # the factor exp(rates[0] t) does not change signs
    ends = np.unique(np.concatenate(h.isolate(min(h.horizon(), up_to))))
    signs = h.signs(ends)
    ends, signs = ends[signs != 0], signs[signs != 0]
    places = np.flatnonzero(signs[1:] != signs[:-1])
    return np.array([h.root(ends[i], ends[i + 1]) for i in places])


class _Sum:
    """An exponential sum of smallest rate 0 with coefficients of both signs."""

    def __init__(self, rates: Array, coefficients: Array) -> None:
        self.rates, self.coefficients = rates, coefficients
        self.rounding = (16 + math.sqrt(len(rates))) * np.finfo(np.float64).eps

    def horizon(self) -> float:
        """A t at and beyond which the first term is twice all of opposite sign together.

        The factor keeps every root well inside, where rounding does not hide on which side it lies.
        """
        first = self.coefficients[0]
        others = self.coefficients * first < 0
        sizes, rates = np.abs(self.coefficients[others]), self.rates[others]
        t = 1 / self.rates[-1]
        while 2 * (np.exp(-rates * t) @ sizes) >= abs(first):
            t *= 2
        return float(t)

    def moments(self, t: Array, *powers: tuple[int, bool]) -> list[Array]:
        """sum_i c_i rates_i^n exp(-rates_i t) for each (n, whether |c_i| is meant), (len(t),)."""
        columns = np.stack(
            [
                (np.abs(self.coefficients) if absolute else self.coefficients) * self.rates**n
                for n, absolute in powers
            ],
            axis=1,
        )
        rows = max(1, _LARGEST_BLOCK // len(self.rates))
        blocks = [
            np.exp(-np.outer(t[i : i + rows], self.rates)) @ columns for i in range(0, len(t), rows)
        ]
        return list(np.concatenate(blocks).T)

    def signs(self, t: Array) -> Array:
        """The sign of h(t), 0 where rounding leaves it open."""
        value, size = self.moments(t, (0, False), (0, True))
        return np.where(np.abs(value) > self.rounding * size, np.sign(value), 0.0)

    def isolate(self, end: float) -> list[Array]:
        """Ends of intervals that cover (0, end), each of them with at most one root."""
        start = 1e-3 / self.rates[-1]
        doublings = max(0, math.ceil(math.log2(end / start))) if end > start else 0
        cuts = np.concatenate([[0.0], start * 2.0 ** np.arange(doublings), [end]])
        left, right = cuts[:-1], cuts[1:]
        done = [cuts]
        while len(left):
            middle, half = (left + right) / 2, (right - left) / 2
            value, slope, size, slope_size = self.moments(
                middle, (0, False), (1, False), (0, True), (1, True)
            )
            (bend,) = self.moments(left, (2, True))  # bounds |h''|: it falls with t
            no_root = (
                np.abs(value) - self.rounding * size > (np.abs(slope) + bend * half / 2) * half
            )
            monotone = np.abs(slope) - self.rounding * slope_size > bend * half
            split = ~(no_root | monotone | (half <= _NARROWEST * middle))
            done.append(middle[split])
            left, right = (
                np.concatenate([left[split], middle[split]]),
                np.concatenate([middle[split], right[split]]),
            )
        return done

    def root(self, left: float, right: float) -> float:
        """The root between two points of opposite sign."""

        def value(t: float) -> float:
            return float(np.exp(-self.rates * t) @ self.coefficients)

        return float(brentq(value, left, right, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps))
