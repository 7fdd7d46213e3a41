"""The orders k of pass@k, checked in one place.

Samples have whole orders (:class:`Orders`, :func:`whole_orders`), formulas real ones
(:func:`real_orders`, :func:`check_k`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Orders(tuple[int, ...]):
    """Distinct whole orders k >= 1, ascending: a tuple of int, made by :meth:`of`.

    >>> Orders.of([8, 1, 2, 8])
    (1, 2, 8)
    """

    __slots__ = ()

    @classmethod
    def of(cls, ks: int | Iterable[int]) -> Orders:
        """One order, or several in any order of any kind of sequence.

        :raises UserError: For none, and for one that is not a whole number of at least 1.
        """
        return ks if isinstance(ks, cls) else cls(sorted(set(whole_orders(ks))))

    @classmethod
    def parse(cls, text: str, name: str = "ks") -> Orders:
        """The orders of a text such as ``1,2,8``.

        :param name: What an error calls the text.
        :raises UserError: For a text of another kind, and as :meth:`of`.
        """
        try:
            ks = [int(part) for part in text.split(",")]
        except ValueError:
            raise UserError(
                f"{name} {text!r} is not a list of whole numbers such as 1,2,8"
            ) from None
        return cls.of(ks)

    def with_one(self) -> Orders:
        """The same with 1 among them, which is then the first."""
        return Orders.of((1, *self))

    @property
    def array(self) -> NDArray[np.int64]:
        """(K,)."""
        import numpy as np

        return np.array(self, dtype=np.int64)


def whole_orders(ks: Any, name: str = "ks") -> tuple[int, ...]:
    """One whole order or several as a tuple, in the order given and with repeats.

    :param name: What an error calls an empty sequence.
    :raises UserError: For none, and for one that is not a whole number of at least 1.
    """
    values = _values(ks)
    several = isinstance(values, Iterable) and not isinstance(values, str)
    return tuple(_whole(k) for k in _some(list(values) if several else [values], name))


def real_orders(ks: Any) -> tuple[float, ...]:
    """Real orders as a tuple of float, in the order given.

    :raises UserError: For no sequence, an empty one, and as :func:`check_k`.
    """
    values = _values(ks)
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise UserError(f"ks must be a sequence of numbers such as [1, 2, 10], got {ks!r}")
    return tuple(check_k(k) for k in _some(list(values), "ks"))


def check_k(k: float) -> float:
    """The number k as a float; raises UserError unless it is a finite real k >= 1."""
    if not isinstance(k, Real) or isinstance(k, bool):
        raise UserError(f"k must be a number, got {k!r}")
    if not (math.isfinite(k) and k >= 1):
        raise UserError(f"k must be a finite number of at least 1, got {k}")
    return float(k)


def _whole(k: Any) -> int:
    real = isinstance(k, Real) and not isinstance(k, bool)
    if not (real and math.isfinite(k) and k >= 1 and k == int(k)):
        raise UserError(f"k must be a whole number of at least 1, got {k!r}")
    return int(k)


def _values(ks: Any) -> Any:
    """Arrays and tensors as lists of numbers."""
    return ks.tolist() if hasattr(ks, "tolist") else ks


def _some(values: list[Any], name: str) -> list[Any]:
    if not values:
        raise UserError(f"{name} is empty: name at least one k")
    return values
