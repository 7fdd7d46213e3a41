"""Executed notebooks for the book, looked up by the hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad_book.build import paths
from passgrad_book.build.notebooks import running
from passgrad_book.build.notebooks.modules import python_of, used_by
from passgrad_book.build.notebooks.parameters import parameters_of, resolve
from passgrad_book.build.notebooks.source import find, sources, split
from passgrad_book.build.notebooks.tables import looked_up
from passgrad_book.build.results import LOG_VARIABLE, PROFILE_VARIABLE
from passgrad_book.build.sources import digest

#: how many executed versions of one notebook are kept for the book
KEPT = 3


def book_profile() -> str:
    """Profile that the book is built in: ``PASSGRAD_PROFILE``, "cpu" by default."""
    return os.environ.get(PROFILE_VARIABLE) or "cpu"


def key(path: Path | str, profile: str | None = None) -> str:
    """Hash of all that an executed notebook depends on.

    Its text, the values of its parameters, the code of the modules that it computes with and of all
    that these import, the versions of the numerical packages, and the results that it read, or
    looked for in vain, when it was executed last. A result that it does not read changes nothing.
    """
    path = find(path)
    own = _own_key(path, profile or book_profile())
    total = hashlib.sha256(own.encode())
    for read in _reads(path, own):
        total.update(_state(read).encode())
    return total.hexdigest()[:16]


def _own_key(path: Path, profile: str) -> str:
    """The part of the key that is known before a notebook was ever executed."""
    text = path.read_text(encoding="utf-8")
    total = hashlib.sha256(text.encode())
    total.update(json.dumps([profile, resolve(path, profile)], sort_keys=True).encode())
    total.update(used_by(python_of(split(text))).digest().encode())
    total.update(json.dumps(provenance.versions(), sort_keys=True).encode())
    return total.hexdigest()[:16]


def _reads_path(path: Path, own: str) -> Path:
    return paths.executed() / f"{path.stem}-{own}.reads.json"


def _reads(path: Path, own: str) -> list[dict[str, Any]]:
    """Where a notebook with this own key looked for results: place of the record, what was there,
    and the modules of the code where it was computed here.
    """
    try:
        return list(json.loads(_reads_path(path, own).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _state(read: Mapping[str, Any]) -> str:
    """What lies there now, and the code of a result that was computed here."""
    file = paths.root() / read["path"]
    found = provenance.file_sha256(file) if file.is_file() else "absent"
    return f"{found} {digest(read['modules'])}" if read["modules"] else found


def executed_path(path: Path | str, profile: str | None = None) -> Path:
    """Where the executed notebook of the book lies, or will lie."""
    path = find(path)
    return paths.executed() / f"{path.stem}-{key(path, profile)}.ipynb"


def ensure_executed(path: Path | str, profile: str | None = None, progress: bool = True) -> Path:
    """The executed notebook for the book; runs the notebook when nothing fits."""
    path = find(path)
    profile = profile or book_profile()
    target = executed_path(path, profile)
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(prefix="passgrad-") as scratch:
        log = Path(scratch) / "results.jsonl"
        made = running.execute(
            path,
            profile,
            None,
            paths.build() / "notebooks" / profile,
            variables={LOG_VARIABLE: str(log)},
            progress=progress,
        )
        reads = [
            {"path": paths.relative(path), "modules": modules}
            for path, modules in {x["path"]: x["modules"] for x in looked_up(log)}.items()
        ]
    content = (json.dumps(reads, indent=1) + "\n").encode()
    write_atomic(_reads_path(path, _own_key(path, profile)), content)
    target = executed_path(path, profile)
    write_atomic(target, made.path.read_bytes())
    for suffix in ("ipynb", "reads.json"):
        old = sorted(
            paths.executed().glob(f"{path.stem}-*.{suffix}"), key=lambda p: p.stat().st_mtime
        )
        for stale in old[:-KEPT]:
            stale.unlink(missing_ok=True)
    return target


def executed(text: str) -> Any:
    """The executed notebook whose source is ``text``, with the provenance of the run as its last
    cell.

    This is the reader that the book registers for ``.py`` pages.

    :raises UserError: When the text is not that of a notebook of the project.
    """
    import nbformat

    wanted = text.replace("\r\n", "\n").rstrip("\n")
    for path in sources():
        if path.read_text(encoding="utf-8").replace("\r\n", "\n").rstrip("\n") == wanted:
            break
    else:
        raise UserError(
            "this text is not one of the notebooks in notebooks/; only those can be pages"
        )
    notebook = nbformat.reads(ensure_executed(path).read_text(encoding="utf-8"), as_version=4)
    record = notebook.metadata.pop("passgrad")
    notebook.metadata.pop("jupytext", None)
    footer = nbformat.v4.new_markdown_cell(provenance_markdown(record, path), id="provenance")
    notebook.cells.append(footer)
    return notebook


def provenance_markdown(record: Mapping[str, Any], path: Path | str) -> str:
    """The end of a page: what ran, with which values, when, for how long, on what."""
    known = parameters_of(path)

    def cell(value: Any) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ").replace("$", "\\$")

    rows = "\n".join(
        f"| `{name}` | `{cell(json.dumps(record['parameters'][name], ensure_ascii=False))}` | "
        f"{cell(parameter.comment)} |"
        for name, parameter in known.items()
    )
    cpu = record["cpu"]
    flags = ", ".join(cpu["flags"]) or "none of those that matter here"
    seconds = record["wall_seconds"]
    lasted = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    device = f" GPU: {record['gpu']}." if "gpu" in record else ""
    commit = ""
    if record.get("commit"):
        revision, _, dirty = record["commit"].partition("-")
        commit = f" Commit `{revision[:12]}`{', with changes' if dirty else ''}."
    stem = Path(record["notebook"]).stem
    link = f'<a href="../_notebooks/{stem}.ipynb" download>Download the executed notebook</a>.'
    parameters = f"\n\n| parameter | value | meaning |\n| --- | --- | --- |\n{rows}" if rows else ""
    return f"""\
```{{admonition}} Provenance of this page
:class: note dropdown provenance

Source `{record["notebook"]}`, executed in the `{record["profile"]}` profile on
{record["time"][:10]} in {lasted}.{commit}
{link}

Processor: {cpu["model"]}, {cpu["cores"]} cores, {flags}.{device}
Versions: {packages}.{parameters}
```
"""
