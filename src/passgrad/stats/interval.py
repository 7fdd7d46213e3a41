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

    >>> change = Interval(np.array([-0.1, 0.2]), low=np.array([-0.2, 0.1]), high=np.array([0, 0.3]))
    >>> list(change.columns("change"))
    ['change', 'low', 'high']
    >>> float(change[1].low)
    0.1
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
    standard_error = property(attrgetter("interval.error"), doc="Of each estimate.")
    low = property(attrgetter("interval.low"), doc="Lower ends, of each estimate by itself.")
    high = property(attrgetter("interval.high"), doc="Upper ends, of each estimate by itself.")
    band_low = property(attrgetter("interval.band_low"), doc="Lower ends of the band.")
    band_high = property(attrgetter("interval.band_high"), doc="Upper ends of the band.")
