"""Files of JSON lines, with the line in every error."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
            for number, raw in enumerate(lines, start=1):
                at = Line(path, number)
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    at.fail(f"byte {error.start + 1} is not UTF-8; convert the file to UTF-8")
                if not text.strip():
                    continue
                try:
                    row = json.loads(text, object_pairs_hook=_distinct)
                except _TwiceError as error:
                    at.fail(f"the column {error.args[0]!r} stands twice; keep one")
                except json.JSONDecodeError as error:
                    at.fail(f"not valid JSON ({error.msg}); write one object a line")
                except RecursionError:
                    at.fail("the JSON is nested too deeply; write one flat object a line")
                except ValueError:  # a number of more digits than Python converts
                    at.fail("a number has too many digits; write it as text, in quotes")
                if not isinstance(row, dict):
                    at.fail(
                        f"expected a JSON object, found {kind_of(row)}; write one object a line, "
                        "in braces"
                    )
                yield number, row
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a file that you may read"
        ) from None


class Line:
    """A line of a file, as errors name it."""

    def __init__(self, path: Path, number: int) -> None:
        self.name = f"{path}, line {number}"

    def fail(self, text: str) -> NoReturn:
        """Raises a UserError about this line."""
        raise UserError(f"{self.name}: {text}") from None


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return "null" if value is None else names.get(type(value), "a number")


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
