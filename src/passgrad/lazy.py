"""Public names of a package that are imported from their modules when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from passgrad.errors import UserError


def lazy_names(
    namespace: dict[str, Any],
    homes: Mapping[str, str],
    *,
    extra: str | None = None,
    packages: Collection[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package.

    :param namespace: The ``globals()`` of the package.
    :param homes: The module that defines each name.
    :param extra: The extra of this project that installs ``packages``: a UserError names it where
        one of them is missing.
    """
    package = namespace["__name__"]

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            if error.name in packages:
                raise UserError(
                    f"{name} needs {error.name}: install passgrad with the extra [{extra}]"
                ) from error
            raise
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *namespace["__all__"]})

    return attribute, names
