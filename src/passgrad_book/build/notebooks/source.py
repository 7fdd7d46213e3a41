"""The sources of notebooks: Python files in the percent format, found by path or name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from passgrad.errors import UserError
from passgrad_book.build import paths


def sources() -> list[Path]:
    """The notebooks of the project, in the order of ``_toc.yml``; others come last."""
    listed = yaml.safe_load(paths.toc().read_text(encoding="utf-8"))
    pages = [page["file"] for part in listed["parts"] for page in part["chapters"]]
    order = [Path(page).name for page in pages if page.startswith("notebooks/")]
    found = {source.stem: source for source in sorted(paths.notebooks().glob("*.py"))}
    first = [found.pop(name) for name in order if name in found]
    return first + list(found.values())


def find(path: Path | str) -> Path:
    """The source of a notebook: a path, or the name of a notebook of the project.

    :raises UserError: When there is no such notebook; the known ones are listed.
    """
    given = Path(path)
    if given.is_file():
        if given.suffix != ".py":
            raise UserError(
                f"{given.name} is not a .py notebook; give the .py source, not what is made from it"
            )
        return given.resolve()
    known = sources()
    for source in known:
        if str(path) in (source.stem, source.name):
            return source
    names = ", ".join(f"notebooks/{source.name}" for source in known) or "none"
    raise UserError(f"no notebook {str(path)!r}; known notebooks: {names}")


def split(text: str) -> Any:
    """The notebook of a percent-format text; its cells have the same ids each time."""
    import jupytext

    notebook = jupytext.reads(text, fmt="py:percent")
    for index, cell in enumerate(notebook.cells):
        # jupytext draws random ids; these make two conversions of one file equal.
        cell["id"] = f"cell-{index:03d}"
    notebook.metadata.setdefault(
        "kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"}
    )
    return notebook
