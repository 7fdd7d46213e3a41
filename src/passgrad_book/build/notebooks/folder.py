"""One run as one folder: the executed notebook, a page, a record and the tables."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passgrad.files import write_atomic
from passgrad_book.build import paths
from passgrad_book.build.notebooks.modules import python_of, used_by
from passgrad_book.build.notebooks.parameters import parameters_of, resolve
from passgrad_book.build.notebooks.running import Executed, NotebookFailed, execute
from passgrad_book.build.notebooks.source import find, split
from passgrad_book.build.notebooks.tables import copy_results, write_figures
from passgrad_book.build.results import LOG_VARIABLE

#: version of the layout of a run's record
SCHEMA = 2


@dataclass(frozen=True)
class Run:
    """What a run left: ``notebook`` (.ipynb), ``page`` (.html, or None), ``record`` (.json) and the
    parquet files.
    """

    notebook: Path
    page: Path | None
    record: Path
    tables: tuple[Path, ...]

    def __iter__(self) -> Any:
        yield self.notebook
        if self.page is not None:
            yield self.page
        yield self.record
        yield from self.tables


def run_digest(
    path: Path | str,
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256 over what a run does: the notebook's text, the code of the modules that it computes
    with and of all that these import, the versions of the experiments whose results it reads, the
    profile and the value of each parameter.
    """
    path = find(path)
    text = path.read_text(encoding="utf-8")
    total = hashlib.sha256(text.encode())
    total.update(used_by(python_of(split(text))).digest().encode())
    values = resolve(path, profile, parameters)
    total.update(json.dumps([profile or "cpu", values], sort_keys=True).encode())
    return total.hexdigest()


def default_folder(
    path: Path | str, profile: str | None = None, parameters: Mapping[str, Any] | None = None
) -> Path:
    """``_build/runs/<name>/<profile>``; other values than those of the profile give a folder of
    their own, ``<profile>-<hash of the values>``.
    """
    path = find(path)
    values, plain = resolve(path, profile, parameters), resolve(path, profile)
    name = profile or "cpu"
    if values != plain:
        text = json.dumps(values, sort_keys=True).encode()
        name += f"-{hashlib.sha256(text).hexdigest()[:8]}"
    return paths.build() / "runs" / path.stem / name


def run_to_folder(
    path: Path | str,
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    output_dir: Path | str | None = None,
    *,
    html: bool = True,
    progress: bool = True,
) -> Run:
    """Execute a notebook and keep the run as files beside each other.

    ``NAME.ipynb``, ``NAME.html``, ``NAME.json`` (circumstances, parameters, results with their
    versions, wall time, exit status), a parquet file for each table of each result that the run
    read or made, ``EXPERIMENT.RESULT.TABLE.parquet``, and one for the numbers behind each figure,
    ``FIGURE.parquet``. The record comes last: a folder with it is a run that ended.

    :param output_dir: Folder of the files; :func:`default_folder` by default.
    :param html: Write the page.
    :raises UserError: As :func:`passgrad_book.build.notebooks.run_notebook`. A cell that fails
        leaves ``NAME.failed.ipynb`` and ``NAME.failed.json``, which has the reason; what an earlier
        run left stays.
    """
    path = find(path)
    parameters_of(path)
    digest = run_digest(path, profile, parameters)
    folder = Path(output_dir) if output_dir is not None else None
    folder = (folder or default_folder(path, profile, parameters)).resolve()
    failed = folder / f"{path.stem}.failed.json"
    facts = {"schema": SCHEMA, "digest": digest}
    with tempfile.TemporaryDirectory(prefix="passgrad-") as scratch:
        log = Path(scratch) / "results.jsonl"
        try:
            made = execute(
                path,
                profile,
                parameters,
                folder,
                variables={LOG_VARIABLE: str(log)},
                progress=progress,
            )
        except NotebookFailed as error:
            entry = error.record | facts | {"exit": 1, "reason": error.reason}
            write_atomic(failed, _json(entry))
            raise
        results = copy_results(log, folder)
    figures = write_figures(made.notebook, folder)
    page = _write_page(made, folder) if html else None
    entry = made.record | facts | {"exit": 0, "results": results, "figures": figures}
    record = folder / f"{path.stem}.json"
    files = _table_files(entry)
    for old in set(_files_of(record)) - set(files):
        (folder / old).unlink(missing_ok=True)
    if page is None:
        record.with_suffix(".html").unlink(missing_ok=True)
    write_atomic(record, _json(entry))
    failed.unlink(missing_ok=True)
    return Run(made.path, page, record, tuple(folder / file for file in files))


def _table_files(entry: Mapping[str, Any]) -> list[str]:
    files = [table["file"] for one in entry["results"] for table in one["tables"].values()]
    return files + [one["file"] for one in entry["figures"]]


def _files_of(record: Path) -> list[str]:
    """The tables of an earlier run in the same folder."""
    try:
        files = _table_files(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [file for file in files if Path(file).name == file and file.endswith(".parquet")]


def _write_page(made: Executed, folder: Path) -> Path:
    from passgrad_book.build.notebooks.page import html_of

    target = folder / f"{made.path.stem}.html"
    write_atomic(target, html_of(made.notebook, made.path.stem).encode())
    return target


def _json(entry: Mapping[str, Any]) -> bytes:
    return (json.dumps(entry, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
