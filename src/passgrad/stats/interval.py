"""An estimate with its standard error, its interval and its simultaneous band, as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Interval:
    """Estimates with their errors and ends: numbers, or arrays of one shape.

    ``low`` and ``high`` are the interval of each estimate by itself, ``band_low`` and ``band_high``
    one that holds for several at once. A part that is not known is the number nan, an end that is
    open is infinite.
    """

    value: Any
    error: Any = math.nan
    low: Any = math.nan
    high: Any = math.nan
    band_low: Any = math.nan
    band_high: Any = math.nan

    def with_band(self, low: Any, high: Any) -> Interval:
        """The same with this band."""
        return replace(self, band_low=low, band_high=high)

    def __getitem__(self, place: Any) -> Interval:
        """The estimates at these places of the arrays."""
        parts = (getattr(self, part.name) for part in fields(self))
        return Interval(*(part[place] if np.ndim(part) else part for part in parts))

    def columns(self, value: str, prefix: str = "", *, error: bool = True) -> dict[str, Any]:
        """The parts that are known as columns of a table, in this order: the estimates under the
        name ``value``, and behind the prefix standard_error, low, high, band_low and band_high.

        :param error: Whether the standard error is among them.
        """
        parts = {
            value: self.value,
            f"{prefix}standard_error": self.error if error else math.nan,
            f"{prefix}low": self.low,
            f"{prefix}high": self.high,
            f"{prefix}band_low": self.band_low,
            f"{prefix}band_high": self.band_high,
        }
        return {name: np.ravel(part) for name, part in parts.items() if np.ndim(part)}


class WithInterval:
    """A result that has its error and its ends as attributes, from its ``interval``."""

    interval: Interval
    standard_error = property(attrgetter("interval.error"), doc="Of each estimate by itself.")
    low = property(attrgetter("interval.low"))
    high = property(attrgetter("interval.high"))
    band_low = property(attrgetter("interval.band_low"))
    band_high = property(attrgetter("interval.band_high"))
