"""The files of a log: one, several, a folder, or a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Row
from passgrad.tasks.tables import TextRow, holds_rows, read_table

#: paths, folders and patterns
Paths = str | Path | Sequence[str | Path]


def files_of(paths: Paths) -> list[Path]:
    """The files that these name, each once; those of a folder or pattern in the order of their
    numbers.

    :raises UserError: For a name without files, and a folder without files of rows.
    """
    files: dict[Path, Path] = {}
    for name in [paths] if isinstance(paths, str | Path) else paths:
        for path in _expanded(Path(name)):
            files.setdefault(path.resolve(), path)
    if not files:
        raise UserError("rollouts names no file; give files, folders or patterns")
    return list(files.values())


def _expanded(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = _in_order(some for some in path.iterdir() if some.is_file() and holds_rows(some))
        if inside:
            return inside
        below = next((some for some in sorted(path.iterdir()) if some.is_dir()), None)
        hint = f"; is {below} meant?" if below is not None else ""
        raise UserError(
            f"{path} is a folder without files of samples (.jsonl, .json, .csv, .parquet, and "
            f"these with .gz, .zst, .bz2, .xz){hint}"
        )
    if glob.has_magic(str(path)):
        matches = (Path(some) for some in glob.glob(str(path), recursive=True))
        inside = _in_order(some for some in matches if some.is_file())
        if inside:
            return inside
        raise UserError(f"no file matches {path}; give a pattern that some do")
    raise UserError(f"{path}: no such file; give a file, a folder or a pattern of samples")


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, with the numbers in names as numbers: 2.jsonl before 10.jsonl."""

    def key(path: Path) -> list[tuple[bool, int, str]]:
        pieces = re.split(r"(\d+)", str(path))
        return [
            (piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces
        ]

    return sorted(paths, key=key)


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of these files.

    :raises UserError: If one cannot be read or has no rows.
    """
    rows: list[Row] = []
    for path in paths:
        before = len(rows)
        rows += (Row(at.name, row, isinstance(row, TextRow)) for at, row in read_table(path))
        if len(rows) == before:
            raise UserError(f"{path} has no samples; give a file with at least one completion")
    return rows
