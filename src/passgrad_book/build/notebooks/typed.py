"""Values of parameters as they were typed: the declared type reads the text.

Neither Python nor YAML is asked what a text might be: ``010`` is 10 where a whole number is wanted
and text where text is, ``no`` is text or False, and ``1:30`` is no number anywhere.
"""

from __future__ import annotations

import ast
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from passgrad.errors import UserError
from passgrad.plain_yaml import Scalar, read_text

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_WHOLE = re.compile(r"[+-]?(\d+(_\d+)*|0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)", re.ASCII)
_REAL = re.compile(
    r"[+-]?((\d+(_\d+)*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?\.?(inf|infinity)|\.?nan",
    re.ASCII | re.IGNORECASE,
)
# Digits of a whole number that is written with an exponent.
_MOST_DIGITS = 30


class _OtherTypeError(ValueError):
    """The text is none of the type that is wanted."""


def value_of(given: Any, name: str, annotation: str, default: Any) -> Any:
    """What a text, or a tree of :mod:`passgrad.plain_yaml`, gives to a parameter.

    :raises UserError: Where it is of another type.
    """
    try:
        return _read(given, ast.parse(annotation or "Any", mode="eval").body, default)
    except _OtherTypeError as error:
        hint = str(error)
        raise UserError(
            f"the parameter {name} is {annotation} (default {default!r}), got {_shown(given)}"
            f"{hint}; give a value of that type"
        ) from None


def _read(given: Any, kind: ast.expr, default: Any) -> Any:
    names = _alternatives(kind)
    if isinstance(given, str):
        optional = any(_is_none(name) for name in names) or default is None
        empty = given.strip().lower() in ("none", "null", "~", "")
        if optional and empty and not getattr(given, "quoted", False):
            return None
        # Text takes anything, so it comes last.
        for name in sorted(names, key=lambda name: _called(name) == "str"):
            if not _is_none(name):
                try:
                    return _of_kind(given, name, default)
                except _OtherTypeError as error:
                    fault = error
        raise fault if names else _OtherTypeError
    for name in names:
        if _called(name) in ("list", "tuple", "dict", "Any"):
            return _of_kind(given, name, default)
    raise _OtherTypeError


def _alternatives(kind: ast.expr) -> list[ast.expr]:
    """The types of a union."""
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return [*_alternatives(kind.left), *_alternatives(kind.right)]
    if isinstance(kind, ast.Subscript) and _called(kind) in ("Optional", "Union"):
        inside = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        none = [ast.Constant(None)] if _called(kind) == "Optional" else []
        return [*(name for part in inside for name in _alternatives(part)), *none]
    return [kind]


def _called(kind: ast.expr) -> str:
    if isinstance(kind, ast.Subscript):
        kind = kind.value
    if isinstance(kind, ast.Attribute):
        return kind.attr
    return kind.id if isinstance(kind, ast.Name) else ""


def _is_none(kind: ast.expr) -> bool:
    return isinstance(kind, ast.Constant) and kind.value is None


def _of_kind(given: Any, kind: ast.expr, default: Any) -> Any:
    name = _called(kind)
    if name in ("list", "tuple", "Sequence"):
        return _list(given, kind, default)
    if name == "dict" or isinstance(given, dict):
        return _mapping(given)
    if not isinstance(given, str):
        return [_plain(part) for part in given]
    if name == "str":
        return str(given)
    if name == "bool":
        return _truth(given)
    if name == "int":
        return _whole(given)
    if name == "float":
        return _real(given)
    if name == "Literal" and isinstance(kind, ast.Subscript):
        values = ast.literal_eval(kind.slice)
        values = values if isinstance(values, tuple) else (values,)
        for value in values:
            if str(value) == given:
                return value
        raise _OtherTypeError
    return _plain(given)


def _list(given: Any, kind: ast.expr, default: Any) -> list[Any]:
    """Items of the declared type, or else of that of the default's items."""
    if isinstance(given, str):
        text = given.strip()
        if text[:1] == "(" and text[-1:] == ")":
            text = f"[{text[1:-1]}]"
        given = read_text(text if text[:1] == "[" else f"[{text}]")
    if not isinstance(given, list):
        raise _OtherTypeError
    inside = kind.slice if isinstance(kind, ast.Subscript) else None
    if isinstance(inside, ast.Tuple):
        inside = inside.elts[0] if inside.elts else None
    items = default if isinstance(default, list | tuple) else ()
    if inside is None and items:
        kinds = {type(item).__name__ for item in items}
        if len(kinds) > 1 or not kinds <= {"int", "float", "str", "bool", "list", "tuple"}:
            return [_plain(part) for part in given]
        inside = ast.Name(kinds.pop())
    if inside is None:
        return [_plain(part) for part in given]
    first = items[0] if items else None
    return [_read(part, inside, first if first is not None else "") for part in given]


def _mapping(given: Any) -> dict[str, Any]:
    given = read_text(given) if isinstance(given, str) else given
    if not isinstance(given, dict):
        raise _OtherTypeError
    return {key: _plain(part) for key, part in given.items()}


def _plain(given: Any) -> Any:
    """A value of no declared type: a number in digits, true, false, null, or text."""
    if isinstance(given, list):
        return [_plain(part) for part in given]
    if isinstance(given, dict):
        return {key: _plain(part) for key, part in given.items()}
    if getattr(given, "quoted", False):
        return str(given)
    if isinstance(given, str) and not isinstance(given, Scalar) and given.strip()[:1] in ("[", "{"):
        return _plain(read_text(given))
    text = given.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("null", "none", "~", ""):
        return None
    if re.fullmatch(r"[+-]?(0|[1-9]\d*)", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?", text, re.ASCII):
        if re.fullmatch(r"[+-]?0\d+", text, re.ASCII):
            return text
        return float(text)
    return str(given)


def _whole(given: str) -> int:
    text = given.strip()
    if _WHOLE.fullmatch(text):
        sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
        if digits[:2].lower() in ("0x", "0b", "0o"):
            return int(sign + digits, 0)
        return int(text)
    if _REAL.fullmatch(text) and text.isascii():
        try:
            number = Decimal(text.replace("_", ""))
        except InvalidOperation:
            raise _OtherTypeError from None
        small = number.is_finite() and number.adjusted() < _MOST_DIGITS
        if small and number == number.to_integral_value():
            return int(number)
    raise _OtherTypeError


def _real(given: str) -> float:
    text = given.strip()
    if not _REAL.fullmatch(text):
        raise _OtherTypeError
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(value) and "inf" not in text.lower():
        raise _OtherTypeError(" (too large)")
    return value


def _truth(given: str) -> bool:
    text = given.strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise _OtherTypeError(" (write true or false)")


def _shown(given: Any) -> str:
    text = repr(str(given) if isinstance(given, str) else given)
    return text if len(text) <= 60 else f"{text[:57]}..."
