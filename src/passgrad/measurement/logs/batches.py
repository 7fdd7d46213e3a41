"""Files of a log as batches of rows, so that memory does not grow with the log.

Parquet, CSV and JSON lines are read by Arrow, a block at a time. What it cannot read (a JSON array,
a column that changes its type, another compression) is read row by row, as all files of rows are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from passgrad.errors import UserError
from passgrad.tasks.tables import read_table

_ROWS, _BYTES = 50_000, 1 << 23
_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# Long columns that no count needs.
_UNREAD = ("completion", "completion_ids", "completions", "output", "response", "responses")


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file.

    :raises UserError: If it cannot be read.
    """
    done = 0
    try:
        for batch in _blocks(path):
            yield batch
            done += batch.num_rows
    except (pa.ArrowException, OSError):
        yield from _row_by_row(path, done)


def _blocks(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows in blocks of Arrow's."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = _PACKED.get(suffixes[-1]) if suffixes else None
    kind = suffixes[-2 if packed and len(suffixes) > 1 else -1] if suffixes else ""
    if kind in (".parquet", ".pq") and packed is None:
        file = pq.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if name not in _UNREAD]
        yield from file.iter_batches(batch_size=_ROWS, columns=names)
        return
    with pa.input_stream(str(path), compression=packed) as stream:
        if kind in (".csv", ".tsv"):
            yield from pyarrow.csv.open_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(block_size=_BYTES),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    strings_can_be_null=True, null_values=[""]
                ),
            )
        else:
            yield from pyarrow.json.open_json(
                stream, read_options=pyarrow.json.ReadOptions(block_size=_BYTES)
            )


def _row_by_row(path: Path, skip: int) -> Iterator[pa.RecordBatch]:
    """The rows behind the first ``skip`` ones."""
    rows = (row for number, (_, row) in enumerate(read_table(path)) if number >= skip)
    while some := list(islice(rows, _ROWS)):
        names = dict.fromkeys(name for row in some for name in row if name not in _UNREAD)
        if not names:
            raise UserError(f"{path}: the rows have no column; give the log of a run")
        yield pa.RecordBatch.from_pydict(
            {name: _array([row.get(name) for row in some]) for name in names}
        )


def _array(values: list[object]) -> pa.Array:
    """Values of one type, or as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])
