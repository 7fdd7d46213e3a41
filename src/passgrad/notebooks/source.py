"""The sources of notebooks: Python files in the percent format, found by path, name or number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from passgrad import paths
from passgrad.errors import UserError


def sources() -> list[Path]:
    """The notebooks of the project, in their order."""
    return sorted(paths.notebooks().glob("[0-9][0-9]_*.py"))


def find(path: Path | str) -> Path:
    """The source of a notebook: a path, or the name or number of a notebook of the project.

    Raises
    ------
    UserError
        When there is no such notebook; the known ones are listed.
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
        if str(path) in (source.stem, source.name, source.stem.split("_")[0]):
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
