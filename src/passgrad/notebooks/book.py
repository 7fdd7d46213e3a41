"""Executed notebooks for the book, looked up by the hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passgrad import paths, provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.notebooks import running
from passgrad.notebooks.modules import imported_modules, python_of
from passgrad.notebooks.parameters import parameters_of, resolve
from passgrad.notebooks.source import find, sources, split
from passgrad.results import PROFILE_VARIABLE, manifest_path

#: how many executed versions of one notebook are kept for the book
KEPT = 3


def book_profile() -> str:
    """Profile that the book is built in: ``PASSGRAD_PROFILE``, "cpu" by default."""
    return os.environ.get(PROFILE_VARIABLE) or "cpu"


def key(path: Path | str, profile: str | None = None) -> str:
    """Hash of all that an executed notebook depends on.

    Its text, the values of its parameters, the code of the modules that it uses and of all that
    these import, the lock file, and the results that ship with the project.
    """
    path = find(path)
    profile = profile or book_profile()
    text = path.read_text(encoding="utf-8")
    total = hashlib.sha256()
    total.update(text.encode())
    total.update(json.dumps([profile, resolve(path, profile)], sort_keys=True).encode())
    modules = imported_modules(python_of(split(text)))
    total.update(provenance.digest(modules).encode())
    for file in (paths.lock(), manifest_path()):
        total.update(provenance.file_sha256(file).encode() if file.is_file() else b"-")
    return total.hexdigest()[:16]


def executed_path(path: Path | str, profile: str | None = None) -> Path:
    """Where the executed notebook of the book lies, or will lie."""
    path = find(path)
    return paths.executed() / f"{path.stem}-{key(path, profile)}.ipynb"


def ensure_executed(path: Path | str, profile: str | None = None, progress: bool = True) -> Path:
    """The executed notebook for the book; runs the notebook when nothing fits."""
    path = find(path)
    profile = profile or book_profile()
    target = executed_path(path, profile)
    if not target.is_file():
        made = running.run_notebook(
            path, profile, output_dir=paths.build() / "notebooks" / profile, progress=progress
        )
        write_atomic(target, made.read_bytes())
        old = sorted(paths.executed().glob(f"{path.stem}-*.ipynb"), key=lambda p: p.stat().st_mtime)
        for stale in old[:-KEPT]:
            stale.unlink(missing_ok=True)
    return target


def executed(text: str) -> Any:
    """The executed notebook whose source is ``text``, with the provenance of the run as its last
    cell.

    This is the reader that the book registers for ``.py`` pages.

    Raises
    ------
    UserError
        When the text is not that of a notebook of the project.
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
