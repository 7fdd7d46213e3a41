"""Files of JSON lines, with the line in every error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from passgrad.errors import UserError


def json_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each non-blank line; every fault is named with its line.

    Files come from anywhere: a byte order mark is skipped, and a column that stands twice in one
    line, nesting without end, and numbers that Python refuses are errors of the file.

    :raises UserError: If the file is missing or cannot be read, is not UTF-8, or a line is not a
        JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the path of a JSON-lines file, one object a line"
        )
    try:
        with path.open("rb") as lines:
            yield from parse_lines(path, lines)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a file that you may read"
        ) from None


def parse_lines(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """As :func:`json_lines`, of lines that are read already; the path is for errors."""
    for number, raw in enumerate(lines, start=1):
        at = Line(path, number)
        text = decode(raw, at, first=number == 1)
        if not text.strip():
            continue
        row = parse(text, at, "write one object a line")
        if not isinstance(row, dict):
            at.fail(
                f"expected a JSON object, found {kind_of(row)}; write one object a line, in braces"
            )
        yield number, row


def decode(raw: bytes, at: Line, *, first: bool = True) -> str:
    """Bytes as text.

    :param first: Whether a byte order mark may stand in front.
    :raises UserError: For bytes that are not UTF-8.
    """
    if first and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        at.fail("the file is UTF-16; convert it to UTF-8")
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        at.fail(f"byte {error.start + 1} is not UTF-8; convert the file to UTF-8")


def parse(text: str, at: Line, remedy: str) -> Any:
    """The value that a JSON text stands for.

    :raises UserError: For text that is no JSON, a column that stands twice in an object, nesting
        without end, and numbers that Python refuses.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except _TwiceError as error:
        at.fail(f"the column {error.args[0]!r} stands twice; keep one")
    except json.JSONDecodeError as error:
        at.fail(f"not valid JSON ({error.msg}); {remedy}")
    except RecursionError:
        at.fail("the JSON is nested too deeply; write one flat object a line")
    except ValueError:  # a number of more digits than Python converts
        at.fail("a number has too many digits; write it as text, in quotes")


class Line:
    """A line of a file, as errors name it."""

    def __init__(self, path: Path, number: int | str, kind: str = "line") -> None:
        self.name = f"{path}, {kind} {number}"

    def fail(self, text: str) -> NoReturn:
        """Raises a UserError about this line."""
        raise UserError(f"{self.name}: {text}") from None


def kind_of(value: Any) -> str:
    """What a value of JSON or of a table is, in words."""
    names = {
        dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number",
        float: "a number", Decimal: "a number", bytes: "bytes", datetime: "a time", date: "a date",
    }  # fmt: skip
    if isinstance(value, list) and not value:
        return "an empty list"
    return "null" if value is None else names.get(type(value), type(value).__name__)


class _TwiceError(Exception):
    """A key that stands twice in one JSON object."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return row
