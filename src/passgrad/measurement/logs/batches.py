"""Files of a log as batches of rows, whatever their format."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from passgrad.errors import UserError

_PARQUET, _CSV, _JSON = (".parquet", ".pq"), (".csv", ".tsv"), (".jsonl", ".json", ".ndjson")
_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_ROWS, _BYTES = 50_000, 1 << 23
# Long columns that no count needs.
_UNREAD = ("completion", "completion_ids", "completions", "output", "response", "responses")


def files_of(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a folder, a pattern, or several of them stand for, in the order of
    the numbers in their names.

    :raises UserError: For a path that is not there, and a folder without a log.
    """
    several = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files: list[Path] = []
    for given in several:
        path = Path(given)
        if path.is_dir():
            inside = [file for file in path.rglob("*") if file.is_file() and _format(file)]
            if not inside:
                raise UserError(f"{path}: no parquet, csv or JSON-lines file in this folder")
        elif path.is_file():
            inside = [path]
            if not _format(path):
                raise UserError(
                    f"{path}: unknown kind of file; give .parquet, .csv or .jsonl, plain or packed "
                    f"({', '.join(_PACKED)})"
                )
        else:
            inside = [Path(name) for name in glob.glob(str(given), recursive=True)]
            inside = [file for file in inside if file.is_file() and _format(file)]
            if not inside:
                raise UserError(f"{given}: no such file; give the log of a run, or its folder")
        files += sorted(inside, key=_natural)
    return files


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _format(path: Path) -> str:
    """The format: "parquet", "csv", "json", or nothing."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in _PACKED:
        suffixes = suffixes[:-1]
    last = suffixes[-1].lower() if suffixes else ""
    kinds = (("parquet", _PARQUET), ("csv", _CSV), ("json", _JSON))
    return next((kind for kind, endings in kinds if last in endings), "")


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file.

    :raises UserError: If it cannot be read.
    """
    kind = _format(path)
    try:
        if kind == "parquet":
            file = pq.ParquetFile(path)
            names = [name for name in file.schema_arrow.names if name not in _UNREAD]
            yield from file.iter_batches(batch_size=_ROWS, columns=names)
        elif kind == "csv":
            with _opened(path) as stream:
                separator = "\t" if ".tsv" in path.suffixes else ","
                yield from pyarrow.csv.open_csv(
                    stream,
                    read_options=pyarrow.csv.ReadOptions(block_size=_BYTES),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=separator, newlines_in_values=True
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        strings_can_be_null=True, null_values=[""]
                    ),
                )
        else:
            yield from _json_batches(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason})") from None


def _opened(path: Path) -> pa.NativeFile:
    packed = _PACKED.get(path.suffix)
    return pa.input_stream(str(path), compression=packed)


def _json_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows of JSON lines; where a column changes its type, one line at a time."""
    done = 0
    try:
        with _opened(path) as stream:
            reader = pyarrow.json.open_json(
                stream, read_options=pyarrow.json.ReadOptions(block_size=_BYTES)
            )
            for batch in reader:
                yield batch
                done += batch.num_rows
    except pa.ArrowInvalid:
        yield from _slow_batches(path, done)


def _slow_batches(path: Path, skip: int) -> Iterator[pa.RecordBatch]:
    from passgrad.tasks.json_lines import json_lines

    rows = (row for number, (_, row) in enumerate(json_lines(path)) if number >= skip)
    while some := list(islice(rows, _ROWS)):
        names = dict.fromkeys(name for row in some for name in row)
        columns = {name: [row.get(name) for row in some] for name in names}
        yield pa.RecordBatch.from_pydict({name: _array(v) for name, v in columns.items()})


def _array(values: list[object]) -> pa.Array:
    """Values of one type, or as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
