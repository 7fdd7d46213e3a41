"""What each claim says, measured: one plain function a claim, without arguments.

A check returns the measured values by the names that ``claims.yml`` expects. It computes them with
the package where that takes seconds, and reads stored results otherwise. Checks of one subject are
one module; ``module.function`` is the name in ``claims.yml``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from passgrad.errors import UserError

Check = Callable[[], dict[str, float]]


def modules() -> list[str]:
    """The subjects that have checks."""
    folder = Path(__file__).parent
    return sorted(file.stem for file in folder.glob("[a-z]*.py"))


def find(name: str) -> Check:
    """The check of that name, such as ``toy.step``; UserError when there is none."""
    module, _, function = name.partition(".")
    found = None
    if module in modules() and function and not function.startswith("_"):
        home = importlib.import_module(f"{__name__}.{module}")
        found = getattr(home, function, None)
        if getattr(found, "__module__", None) != home.__name__:
            found = None
    if found is None:
        raise UserError(
            f"there is no check {name!r}; they are functions in passgrad_book.experiments.checks: "
            + ", ".join(modules())
        )
    return found
