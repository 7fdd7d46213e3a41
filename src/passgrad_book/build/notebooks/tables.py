"""The tables of a run: results that it read or made, and the numbers behind its figures.

A kernel that runs with :data:`passgrad_book.build.results.LOG_VARIABLE` in its environment writes a
line to that file for each result that :func:`passgrad_book.build.results.obtain` or
:func:`passgrad_book.build.results.load` gives. The numbers behind a figure are in what its cell
shows.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.files import write_atomic
from passgrad_book.build import paths

if TYPE_CHECKING:
    import pandas as pd

_CSV = re.compile(r'<a download="([^"]*)\.csv" href="data:text/csv;base64,([A-Za-z0-9+/=]*)"')


def looked_up(log: Path) -> list[dict[str, Any]]:
    """The lines of a log: where a result was looked for, and what was found there."""
    if not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def results_of(log: Path) -> list[dict[str, Any]]:
    """The records of the results in a log, each once, in the order of their first use.

    ``path`` is that of the record, ``origin`` as in :class:`passgrad_book.build.results.Result`.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in looked_up(log):
        # What was made in this run stays "computed" when it is read again.
        if entry["origin"] != "absent":
            found.setdefault(entry["path"], entry)
    return [
        entry | {"record": json.loads(Path(entry["path"]).read_text(encoding="utf-8"))}
        for entry in found.values()
    ]


def copy_results(log: Path, folder: Path) -> list[dict[str, Any]]:
    """Copy the tables of the results in a log into ``folder``; returns what the run's record says
    of them.
    """
    listed = []
    for entry in results_of(log):
        record, source = entry["record"], Path(entry["path"])
        tables = {}
        for table, facts in record["tables"].items():
            content = source.with_name(facts["file"]).read_bytes()
            file = f"{record['experiment']}.{record['name']}.{table}.parquet"
            write_atomic(folder / file, content)
            tables[table] = {
                "file": file,
                "rows": facts["rows"],
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        listed.append(
            {
                "experiment": record["experiment"],
                "name": record["name"],
                "profile": record["profile"],
                "origin": entry["origin"],
                "from": paths.relative(source),
                "digest": record["digest"],
                "model_sha256": record.get("model_sha256"),
                "parameters": record["parameters"],
                "time": record["time"],
                "wall_seconds": record["wall_seconds"],
                "tables": tables,
            }
        )
    return listed


def write_figures(notebook: Any, folder: Path) -> list[dict[str, Any]]:
    """Write the numbers behind each figure as a parquet file; returns what the run's record says
    of them.
    """
    listed = []
    for name, table in figure_tables(notebook):
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        file = f"{name}.parquet"
        write_atomic(folder / file, buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        listed.append({"name": name, "file": file, "rows": len(table), "sha256": digest})
    return listed


def figure_tables(notebook: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and numbers of each figure of :func:`passgrad_book.build.figures.show` with data."""
    import pandas as pd

    taken: set[str] = set()
    for cell in notebook.cells:
        named = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []):
            page = output.get("data", {}).get("text/html", "")
            for name, content in _CSV.findall("".join(page)):
                chosen = stem = (
                    re.sub(r"[^A-Za-z0-9_-]+", "-", named or name).strip("-") or "figure"
                )
                number = 1
                while chosen in taken:
                    number += 1
                    chosen = f"{stem}-{number}"
                taken.add(chosen)
                yield chosen, pd.read_csv(io.BytesIO(base64.b64decode(content)))
