"""The code as data: a digest of what the modules of the project do, and of all they import.

Comments, docstrings and layout do not enter a digest.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad_book.build import paths

#: the two packages of the project
PACKAGES = ("passgrad", "passgrad_book")

#: module -> modules that it starts as programs, which no import names
PROGRAMS = {
    "passgrad.rollouts.vllm_engine": ("passgrad.rollouts.vllm_worker",),
    "passgrad.tasks.verifiers": ("passgrad.tasks.verifier_worker",),
}


def _serialise(node: Any) -> str:
    """A syntax tree as text, without positions, comments and docstrings.

    Empty and missing fields are left out, so that a newer Python, which has more of them, gives the
    same text for the same code.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind", "type_comment"):
                continue
            if name == "body" and isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                value = _without_docstring(value)
            if value is None and not isinstance(node, ast.Constant):
                continue
            if isinstance(value, list) and not value:
                continue
            fields.append(f"{name}={_serialise(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return "[" + ",".join(_serialise(item) for item in node) + "]"
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return body[1:]
    return body


def code_digest(text: str) -> str:
    """SHA-256 of what a Python source does: of its syntax tree without comments and docstrings."""
    return hashlib.sha256(_serialise(ast.parse(text)).encode()).hexdigest()


@functools.lru_cache(maxsize=4)
def _graph(root: Path, stamp: tuple[tuple[str, int, int], ...]) -> Any:
    import grimp

    # cache_dir=None: the graph of a package this small is built in a fraction of a second.
    return grimp.build_graph(*PACKAGES, cache_dir=None, exclude_type_checking_imports=True)


def module_file(module: str) -> Path:
    """The source of a module of the project; UserError when there is none."""
    base = paths.source().joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise UserError(f"no module {module!r} in the project; see src for the names")


def dependencies(modules: Iterable[str]) -> list[str]:
    """The given modules and all modules of the project that they import or start as programs,
    directly or not, sorted.
    """
    source = paths.source()
    files = sorted(source.rglob("*.py"))
    stamp = tuple(
        (str(f.relative_to(source)), f.stat().st_mtime_ns, f.stat().st_size) for f in files
    )
    graph = _graph(source, stamp)
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        module_file(module)
        reached = {module} | graph.find_upstream_modules(module)
        waiting += [program for name in reached for program in PROGRAMS.get(name, ())]
        found |= reached
    # The root packages hold names and the version, and compute nothing.
    return sorted(found - set(PACKAGES))


def digest(modules: Sequence[str]) -> str:
    """SHA-256 over the code of these modules of the project and of all that they import from it.

    :raises UserError: For a module that does not exist.
    """
    total = hashlib.sha256()
    for module in dependencies(modules):
        code = code_digest(module_file(module).read_text(encoding="utf-8"))
        total.update(f"{module}:{code}\n".encode())
    return total.hexdigest()
