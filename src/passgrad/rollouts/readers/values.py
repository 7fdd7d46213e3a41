"""Single values of a log: numbers, token ids, texts and labels, or one line that names the row."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np

from passgrad.errors import UserError

# What a 64-bit float holds exactly.
_EXACT = 2**53
_HALVES = re.compile("[\ud800-\udfff]")


def refuse(where: str, text: str) -> NoReturn:
    """Raises a UserError about this place."""
    raise UserError(f"{where}: {text}")


def shown(value: Any) -> str:
    """A value in a message: its beginning, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def number(value: Any, where: str, name: str, *, text: bool = False) -> float | None:
    """A number, NaN included; None where there is nothing.

    :param text: Whether the file has only text, so that text may be a number.
    """
    if value is None:
        return None
    if type(value) is float and math.isfinite(value):
        return value
    if text and isinstance(value, str):
        try:
            value = json.loads(value.strip().lower(), parse_constant=float)
        except ValueError:
            refuse(where, f"{name} is {shown(value)}; give a number")
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float | Decimal):
        refuse(where, f"{name} is {shown(value)}; give a number")
    try:
        plain = float(value)
    except (OverflowError, ValueError):
        refuse(where, f"{name} is {shown(value)}; give a number that a float holds")
    if math.isinf(plain):
        refuse(where, f"{name} is {plain}; give a finite number")
    return plain


def setting(value: Any, where: str, name: str, *, text: bool = False) -> float | None:
    """A number of the sampling law; NaN is none, since that is how pandas writes it."""
    plain = number(value, where, name, text=text)
    if isinstance(value, bool | np.bool_):
        refuse(where, f"{name} is {value}; give a number")
    return None if plain is None or math.isnan(plain) else plain


def whole(value: Any, where: str, name: str, *, text: bool = False) -> int | None:
    """A whole number, which may be written as 512.0."""
    plain = None if missing(value) else setting(value, where, name, text=text)
    if plain is None:
        return None
    if plain != int(plain) or abs(plain) > _EXACT:
        refuse(where, f"{name} is {shown(value)}; give a whole number")
    return int(value) if isinstance(value, int) else int(plain)


def ids(value: Any, where: str, *, text: bool = False) -> list[int] | None:
    """Token ids."""
    if missing(value):
        return None
    if text and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not all(
        isinstance(token, int | np.integer) and not isinstance(token, bool) for token in value
    ):
        refuse(where, "the token ids are no list of whole numbers; leave them out")
    return [int(token) for token in value]


def label(value: Any, where: str, name: str) -> str | None:
    """Text or a whole number as text; None where there is nothing."""
    if missing(value):
        return None
    if isinstance(value, str):
        return clean(value, where, name)
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    if isinstance(plain, float | Decimal):
        real = number(plain, where, name)
        if real is not None and math.isfinite(real) and real == int(real):
            return str(int(real))
    refuse(where, f"{name} is {shown(value)}; give text or a whole number")


def clean(value: str, where: str, name: str) -> str:
    """Text that a tokenizer and a table take.

    :raises UserError: For halves of surrogate pairs, which JSON may hold.
    """
    if _HALVES.search(value):
        refuse(where, f"{name} holds half of a surrogate pair; write whole characters")
    return value


def summed(values: Any) -> float | None:
    """The sum of log-probabilities; None if one is missing or is no number."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values:
        return None
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return math.fsum(values)
