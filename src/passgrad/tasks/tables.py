"""Rows of a file in whichever form it comes: JSON lines, a JSON array, CSV, parquet; compressed.

What a file is, its first bytes say; the name decides only between kinds of text.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from passgrad.errors import UserError
from passgrad.tasks.json_lines import Line, decode, kind_of, parse, parse_lines

#: names of files that hold rows; compressed ones have a second ending
ENDINGS = (".jsonl", ".json", ".ndjson", ".parquet", ".pq", ".csv", ".tsv")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_MAGIC = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
#: names of the index that pandas writes beside the columns
PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+|")
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


class TextRow(dict[str, Any]):
    """A row of a file whose cells are text, whatever they mean."""


def holds_rows(path: Path) -> bool:
    """Whether the name is that of a file of rows."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith(ENDINGS) and not path.name.startswith((".", "_"))


def read_table(path: str | Path) -> Iterator[tuple[Line, dict[str, Any]]]:
    """(place, row) for each row of a file; the place is what errors name.

    A column of pandas' index is left out. In CSV an empty cell is None.

    :raises UserError: In one line with file and row, for a file that is not there, cannot be read,
        or is damaged, and for rows that are no objects.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give a file of JSON lines, a JSON array, CSV or parquet"
        )
    try:
        with path.open("rb") as plain:
            yield from _rows(path, _unpacked(plain))
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); give a file that is whole") from None


def _unpacked(plain: BinaryIO) -> BinaryIO:
    start = plain.read(8)
    plain.seek(0)
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
    if kind == "zst":
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(plain, "zstd")))  # type: ignore[type-var]
    opened: dict[str, Callable[[BinaryIO], Any]] = {
        "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open,
    }  # fmt: skip
    return cast(BinaryIO, opened[kind](plain)) if kind else plain


def _rows(path: Path, stream: BinaryIO) -> Iterator[tuple[Line, dict[str, Any]]]:
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    first = next(iter(stream), b"")
    if first.startswith(b"PAR1"):
        yield from _parquet(path, first + stream.read())
    elif name.endswith((".parquet", ".pq")):
        raise UserError(
            f"{path} cannot be read as parquet (it does not begin as one does); write it again"
        )
    elif name.endswith((".csv", ".tsv")):
        yield from _csv(path, first + stream.read(), "\t" if name.endswith(".tsv") else ",")
    elif first.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" or _is_cut(first):
        yield from _whole(path, first + stream.read())
    else:
        for number, row in parse_lines(path, itertools.chain([first], stream)):
            yield Line(path, number), row


def _is_cut(line: bytes) -> bool:
    """Whether an object begins on this line and does not end there, as in indented JSON."""
    return line.lstrip(b"\xef\xbb\xbf \t").rstrip() == b"{"


def _whole(path: Path, raw: bytes) -> Iterator[tuple[Line, dict[str, Any]]]:
    """A file that is one JSON value: an array of objects, or one object."""
    at = Line(path, 1)
    value = parse(decode(raw, at), at, "give an array of objects, or one object a line")
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        place = Line(path, number, "row")
        if not isinstance(row, dict):
            place.fail(f"expected a JSON object, found {kind_of(row)}; give an array of objects")
        yield place, row


def _parquet(path: Path, raw: bytes) -> Iterator[tuple[Line, dict[str, Any]]]:
    # Not read_table, which makes columns of folders that are called name=value.
    try:
        table = pq.ParquetFile(pa.BufferReader(raw)).read()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path} cannot be read as parquet ({reason}); write it again") from None
    names = [name for name in table.column_names if not PANDAS_INDEX.fullmatch(name)]
    twice = next((name for name in names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the column {twice!r} stands twice; keep one")
    number = 0
    for batch in table.select(names).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            number += 1
            yield Line(path, number, "row"), row


def _csv(path: Path, raw: bytes, delimiter: str) -> Iterator[tuple[Line, dict[str, Any]]]:
    text = decode(raw, Line(path, 1))
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names: list[str] | None = None
        for cells in reader:
            at = Line(path, reader.line_num)
            if not cells:
                continue
            if names is None:
                names = cells
                twice = next((name for name in names if name and names.count(name) > 1), None)
                if twice is not None:
                    at.fail(f"the column {twice!r} stands twice; keep one")
                continue
            if len(cells) != len(names):
                at.fail(
                    f"{len(cells)} cells, and the first line names {len(names)} columns; put cells "
                    "that hold the separator or a line break into quotes"
                )
            yield (
                at,
                TextRow(
                    (name, cell or None)
                    for name, cell in zip(names, cells, strict=True)
                    if not PANDAS_INDEX.fullmatch(name)
                ),
            )
    except csv.Error as error:
        Line(path, reader.line_num).fail(f"not valid CSV ({error}); quote cells as pandas does")
    finally:
        csv.field_size_limit(limit)
