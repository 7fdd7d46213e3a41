r"""The cosine of two vectors from estimates of their product and their squared norms.

A ratio of noisy numbers may leave [-1, 1], and a linearised interval around it may say what the
product does not. Here the interval is Fieller's set (1954),

.. math:: \{ \rho \in [-1, 1] : |C - \rho S| \le t \, \mathrm{se}(C - \rho S) \}, \qquad
          S = \sqrt{N_1 N_k},

with the influences of S by linearisation. At :math:`\rho = 0` it asks what the interval
:math:`C \pm t \, \mathrm{se}(C)` asks: it holds 0 if and only if that one does. A cosine has no
other values, so the set is that part of Fieller's that lies in [-1, 1], and on the side of C where
the sign of C is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from passgrad.stats.bands import Array, intervals, standard_error
from passgrad.stats.interval import Interval


def cosine_intervals(
    inner: Array,
    by_inner: Array,
    norms: Array,
    by_norm: Array,
    first: int,
    critical: Array,
    level: float,
) -> Interval:
    """The cosines of K vectors with the one in row ``first``.

    A value is nan unless the intervals of both squared norms lie above 0, each by itself at that
    level, and the ratio lies in [-1, 1]. The ends are known in any case: [-1, 1] if nothing is. Of
    row ``first`` itself the cosine is 1, and nan where its norm is not told from 0.

    :param inner: (K,), and ``by_inner`` its influences, (K, M, R), as in
        :mod:`passgrad.stats.bands`.
    :param norms: Squared norms, (K,), with their influences, (K, M, R).
    :param critical: By how many standard errors an interval of ``inner`` reaches, (K,).
    """
    known = intervals(norms, by_norm, level)[0] > 0
    value, low, high = (np.full(len(inner), np.nan) for _ in range(3))
    for row in range(len(inner)):
        if row == first:
            value[row] = low[row] = high[row] = 1.0 if known[first] else np.nan
            continue
        low[row], high[row], ratio = _set(
            float(inner[row]), by_inner[row], norms[[first, row]], by_norm[[first, row]],
            float(critical[row]),
        )  # fmt: skip
        if known[first] and known[row] and abs(ratio) <= 1:
            value[row] = ratio
    return Interval(value, low=low, high=high)


def _set(
    inner: float, by_inner: Array, norms: Array, by_norm: Array, critical: float
) -> tuple[float, float, float]:
    """The ends within [-1, 1], and the ratio itself, nan where a squared norm is not positive."""
    error = float(standard_error(by_inner))
    reach = critical * error if error > 0 else math.inf
    side = (0.0 if inner > reach else -1.0, 0.0 if inner < -reach else 1.0)
    if not (norms > 0).all() or not math.isfinite(reach):
        return *side, math.nan
    scale = math.sqrt(norms[0] * norms[1])
    by_scale = scale / 2 * (by_norm[0] / norms[0] + by_norm[1] / norms[1])
    # (C - rho S)^2 <= t^2 var(C - rho S), a quadratic form in rho.
    squared = critical**2
    a = scale**2 - squared * float((by_scale**2).sum())
    b = inner * scale - squared * float((by_inner * by_scale).sum())
    c = inner**2 - squared * error**2
    ends = _within(a, b, c, side)
    return *(side if ends is None else ends), inner / scale


def _within(a: float, b: float, c: float, side: Sequence[float]) -> tuple[float, float] | None:
    """The hull of the rho in the interval ``side`` with a rho^2 - 2 b rho + c <= 0; None if there
    is none: the estimates then contradict that a cosine is at most 1.
    """
    roots = [root for root in _roots(a, b, c) if side[0] < root < side[1]]
    marks = sorted({side[0], *roots, side[1]})
    pieces = [
        (start, end)
        for start, end in pairwise(marks)
        if a * ((start + end) / 2) ** 2 - b * (start + end) + c <= 0
    ]
    return (pieces[0][0], pieces[-1][1]) if pieces else None


def _roots(a: float, b: float, c: float) -> list[float]:
    if a == 0:
        return [c / (2 * b)] if b else []
    inside = b * b - a * c
    if inside < 0:
        return []
    return [(b - math.sqrt(inside)) / a, (b + math.sqrt(inside)) / a]
