"""What a notebook uses of the project: modules that it computes with, and stored experiments."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

from passgrad_book.build import paths
from passgrad_book.build.experiment import HOMES, find
from passgrad_book.build.sources import PACKAGES, digest


@dataclass(frozen=True)
class Used:
    """``modules`` whose code a notebook runs itself; ``experiments`` of which it only asks for
    results (``name.result(...)``), so that their code matters through what is stored.
    """

    modules: tuple[str, ...]
    experiments: tuple[str, ...]

    def digest(self) -> str:
        """Changes with the code of the modules and with the version of an experiment."""
        versions = [f"{name}:{find(name).version}" for name in self.experiments]
        return " ".join([digest(self.modules), *versions])


@functools.lru_cache(maxsize=64)
def used_by(text: str) -> Used:
    """What Python code uses of the project, by its import statements, by ``pg.name``, and by the
    words of a command that it starts (``"passgrad.cli", "measure"``).
    """
    import passgrad

    homes = passgrad._HOMES
    tree = ast.parse(text)
    modules: set[str] = set()
    asked: dict[str, str] = {}
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]
                if package in PACKAGES and package != alias.name:
                    modules.add(alias.name)
                if alias.name == "passgrad" or (package == "passgrad" and not alias.asname):
                    aliases.add(alias.asname or package)
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] in PACKAGES
        ):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module == "passgrad" and alias.name in homes:
                    modules.add(homes[alias.name])
                elif f"passgrad_book.{HOMES.get(alias.name)}" == node.module:
                    asked[alias.asname or alias.name] = alias.name
                elif _is_module(inner):
                    modules.add(inner)
                else:
                    modules.add(node.module)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ):
            if node.attr in homes:
                modules.add(homes[node.attr])
            elif _is_module(f"passgrad.{node.attr}"):
                modules.add(f"passgrad.{node.attr}")
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if "passgrad.cli" in words:
        names = {f"passgrad.cli.{word}" for word in words if word.isidentifier()}
        modules |= {name for name in names if _is_module(name)} or {"passgrad.cli"}
    only_results = set(asked) - _called(tree)
    modules |= {f"passgrad_book.{HOMES[asked[name]]}" for name in asked.keys() - only_results}
    experiments = sorted(asked[name] for name in only_results)
    return Used(tuple(sorted(modules - set(PACKAGES))), tuple(experiments))


def _called(tree: ast.AST) -> set[str]:
    """Names that are used otherwise than as ``name.result``."""
    asked = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "result"
    }
    return {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in asked
    }


def _is_module(name: str) -> bool:
    base = paths.source().joinpath(*name.split("."))
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
