"""The modules of the package that a notebook uses."""

from __future__ import annotations

import ast
from typing import Any

from passgrad import paths


def imported_modules(text: str) -> list[str]:
    """Modules of the package that a notebook uses, by its import statements and by ``pg.name``."""
    import passgrad

    homes = passgrad._HOMES
    tree = ast.parse(text)
    found: set[str] = set()
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "passgrad":
                    aliases.add(alias.asname or alias.name)
                elif alias.name.startswith("passgrad."):
                    found.add(alias.name)
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "passgrad"
        ):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module == "passgrad" and alias.name in homes:
                    found.add(homes[alias.name])
                elif _is_module(inner):
                    found.add(inner)
                else:
                    found.add(node.module)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ):
            if node.attr in homes:
                found.add(homes[node.attr])
            elif _is_module(f"passgrad.{node.attr}"):
                found.add(f"passgrad.{node.attr}")
    return sorted(found - {"passgrad"})


def _is_module(name: str) -> bool:
    base = paths.source().parent.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def python_of(notebook: Any) -> str:
    """The code of a notebook as one module, without magic commands."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return "\n".join(
        "\n".join(
            "" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines()
        )
        for cell in cells
    )
