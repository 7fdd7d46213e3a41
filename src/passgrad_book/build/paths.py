"""The folders of the project: this module alone knows where things lie.

Everything is found from the root of the checkout, so a notebook gives the same result whatever its
working directory is.
"""

from __future__ import annotations

import os
from pathlib import Path

from passgrad.errors import UserError

#: set this variable to work on another checkout than the one that the package was installed from
ROOT_VARIABLE = "PASSGRAD_ROOT"

_MARKS = ("pyproject.toml", "_toc.yml")


def _is_root(folder: Path) -> bool:
    return all((folder / mark).is_file() for mark in _MARKS)


def root() -> Path:
    """Root of the checkout: ``PASSGRAD_ROOT``, the editable install, or a parent of the working
    folder.

    :raises UserError: When none of the three is a checkout of the project.
    """
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        folder = Path(named).expanduser().resolve()
        if not _is_root(folder):
            raise UserError(
                f"{ROOT_VARIABLE}={named} is not a checkout of passgrad: it lacks "
                f"{' or '.join(_MARKS)}; "
                "unset it or point it at one"
            )
        return folder
    here = Path(__file__).resolve().parents[3]
    if _is_root(here):
        return here
    cwd = Path.cwd().resolve()
    for folder in (cwd, *cwd.parents):
        if _is_root(folder):
            return folder
    raise UserError(
        "no checkout of passgrad found: run this inside one, or set "
        + ROOT_VARIABLE
        + " to its folder"
    )


def source() -> Path:
    """Folder of the source of both packages, inside the checkout."""
    return root() / "src"


def notebooks() -> Path:
    """Folder of the code chapters (``subject.py``)."""
    return root() / "notebooks"


def profiles() -> Path:
    """Folder of the parameter profiles (``smoke.yml``, ``cpu.yml``, ``gpu.yml``)."""
    return notebooks() / "profiles"


def toc() -> Path:
    """The table of contents: the order of the chapters."""
    return root() / "_toc.yml"


def lock() -> Path:
    """The lock file: every version of the environment."""
    return root() / "requirements" / "lock.txt"


def results() -> Path:
    """Folder of the results that are kept with the project."""
    return root() / "data" / "results"


def witnesses() -> Path:
    """Folder of the small runs whose numbers every version of the code has to give."""
    return root() / "data" / "witnesses"


def attestations() -> Path:
    """The log of the code that gave the numbers of the witnesses, one JSON object a line."""
    return root() / "data" / "attestations.jsonl"


def build() -> Path:
    """Folder of everything that can be made again; git ignores it."""
    return root() / "_build"


def executed() -> Path:
    """Folder of the executed notebooks, one file a key."""
    return build() / "executed"


def local_results() -> Path:
    """Folder of the results that were recomputed here and are not kept with the project."""
    return build() / "results"


def relative(path: Path | str) -> str:
    """``path`` as seen from the root of the checkout, for messages and records (no machine
    paths).
    """
    path = Path(path)
    try:
        return path.resolve().relative_to(root()).as_posix()
    except ValueError:
        return path.name
