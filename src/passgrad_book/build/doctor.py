"""Is this machine ready? One check a thing that the book needs, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from passgrad import provenance
from passgrad.errors import UserError
from passgrad_book.build import paths, results

GIB = 1024**3

#: what the book and the tests need on two cores, as measured, with some room
NEEDED_MEMORY = 6 * GIB
NEEDED_DISK = 4 * GIB

#: the model that the chapters use
MODEL = "smollm2-135m"


# Imports vLLM, and prints what TRL has to say about its version.
_IMPORT_VLLM = """
import vllm, warnings
vllm.LLM; vllm.SamplingParams
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    try:
        from trl.import_utils import is_vllm_available
        is_vllm_available()
    except ImportError:
        pass
for one in heard:
    print(one.message)
"""


@dataclass(frozen=True)
class Check:
    """Outcome of one check: what was looked at, whether it is in order, what was found, what to
    do.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def checks() -> list[Check]:
    """All checks, in the order in which a newcomer meets the things that they look at."""
    return [
        _python(),
        _environment(),
        _kernel(),
        _processor(),
        _memory(),
        _disk(),
        _model(),
        _vllm(),
        _results(),
        _browser(),
    ]


def _python() -> Check:
    version = platform.python_version()
    return Check(
        "python",
        sys.version_info >= (3, 11),
        f"{version} ({platform.system()} {platform.machine()})",
        "install Python 3.11 and run make env",
    )


def locked_versions() -> dict[str, str]:
    """Package -> version, as the lock file has them."""
    if not paths.lock().is_file():
        raise UserError("requirements/lock.txt is missing: restore it with git, or run make lock")
    pins = {}
    for line in paths.lock().read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line)
        if match:
            pins[match.group(1)] = match.group(2)
    return pins


def _environment() -> Check:
    remedy = "run make env"
    try:
        pins = locked_versions()
    except UserError as error:
        return Check("packages", False, str(error), "restore it with git")
    other = []
    for package, wanted in pins.items():
        try:
            found = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            other.append(f"{package} missing")
            continue
        if found != wanted:
            other.append(f"{package} {found} instead of {wanted}")
    shown = ", ".join(
        f"{name} {provenance.version_of(name)}"
        for name in ("torch", "transformers", "vllm", "trl", "jupyter-book", "papermill", "seaborn")
        if provenance.version_of(name)
    )
    if other:
        more = f" and {len(other) - 4} more" if len(other) > 4 else ""
        return Check("packages", False, "; ".join(other[:4]) + more, remedy)
    return Check("packages", True, f"{len(pins)} as in requirements/lock.txt ({shown})")


def _kernel() -> Check:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Check("notebook kernel", False, "jupyter_client is missing", "run make env")
    try:
        KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Check("notebook kernel", False, "no kernel named python3", "run make env")
    return Check("notebook kernel", True, "python3")


def _processor() -> Check:
    cpu = provenance.cpu()
    flags = ", ".join(cpu["flags"]) or "none of " + ", ".join(provenance.CPU_FLAGS)
    return Check("processor", cpu["cores"] >= 1, f"{cpu['model']}, {cpu['cores']} cores, {flags}")


def _memory() -> Check:
    total = available = None
    info = Path("/proc/meminfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        total = int(fields["MemTotal"].split()[0]) * 1024
        available = int(fields["MemAvailable"].split()[0]) * 1024
    elif hasattr(os, "sysconf"):
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total is None or available is None:
        return Check("memory", True, "unknown on this platform")
    return Check(
        "memory",
        available >= NEEDED_MEMORY,
        f"{available / GIB:.1f} GiB available of {total / GIB:.1f}",
        f"free some: the chapters need about {NEEDED_MEMORY / GIB:.0f} GiB",
    )


def _disk() -> Check:
    folder = paths.root()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check(
            "disk", False, "the checkout cannot be written", "give yourself write access to it"
        )
    return Check(
        "disk",
        free >= NEEDED_DISK,
        f"{free / GIB:.1f} GiB free",
        f"free some: environment, model and book need about {NEEDED_DISK / GIB:.0f} GiB",
    )


def _model() -> Check:
    remedy = f"run passgrad models fetch {MODEL}"
    try:
        from passgrad.lm import models
    except ImportError as error:
        return Check(
            "model", False, f"the language-model part does not import: {error}", "run make env"
        )
    if not models.is_fetched(MODEL):
        return Check("model", False, f"{MODEL} is not in the cache", remedy)
    problems = models.check(MODEL)
    if problems:
        return Check("model", False, f"{MODEL}: {problems[0]}", remedy)
    return Check("model", True, f"{MODEL}, present and intact")


def _vllm() -> Check:
    name = "vllm"
    try:
        from passgrad.rollouts.sampling import VLLM_MISSING, vllm_problem
    except ImportError as error:
        return Check(
            name, False, f"the language-model part does not import: {error}", "run make env"
        )
    problem = vllm_problem()
    if problem == VLLM_MISSING:
        return Check(name, False, problem, "run make env")
    if problem is not None:
        return Check(name, True, f"{problem}: rollouts use transformers")
    # In a process of its own: vLLM patches libraries when it is imported.
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT_VLLM],
            capture_output=True,
            text=True,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return Check(name, False, "does not import within five minutes", "run make env")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check(name, False, f"does not import: {reason}", "run make env")
    version = provenance.version_of("vllm")
    if "TRL currently supports" in done.stdout:
        return Check(
            name, True,
            f"{version} imports; TRL warns that it is not among the versions that it supports, "
            "which concerns use_vllm=True of a trainer and nothing else",
        )  # fmt: skip
    return Check(name, True, f"{version} imports")


def _results() -> Check:
    try:
        problems = results.verify()
    except UserError as error:
        problems = [str(error)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Check("results", False, problems[0] + more, "git restore data, or make results")
    return Check("results", True, f"{len(results.manifest())} files as in data/manifest.json")


def _browser() -> Check:
    found = shutil.which("chromium") and shutil.which("chromedriver")
    detail = (
        "chromium and chromedriver" if found else "absent: the browser tests are skipped (optional)"
    )
    return Check("browser", True, detail)
