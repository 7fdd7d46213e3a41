"""Completions from vLLM, on a CPU or on GPUs, in a process of its own.

Importing vLLM changes the process that does it (thread counts, patched libraries, environment
variables), and its engine keeps memory. A worker that ends with the call leaves the caller, often a
notebook kernel, as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passgrad.lm.distributed import without_launcher
from passgrad.lm.rollouts import Completion, Request
from passgrad.progress import Progress, Silent

# What the user has set in the environment stays.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
}

# From here on a core for the scheduler costs less than it saves.
_MANY_CORES = 4


# Seconds between two looks at a worker, and after which silence is broken.
_LOOK, _SILENCE = 2.0, 45.0

# Where what a worker said is kept if it fails.
_KEPT: ContextVar[Path | None] = ContextVar("output of vLLM", default=None)

# The last line of an exception that names a reason, and those that only say that there was one.
_REASON = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): +(\S.*)")
_ECHOES = ("Engine core initialization failed", "See root cause above", "EngineDeadError")


class EngineError(RuntimeError):
    """vLLM did not start, or stopped before it had drawn everything."""


@contextlib.contextmanager
def output_kept_in(file: Path) -> Iterator[None]:
    """Within it, what a worker that fails has said goes to this file, and the error names it."""
    token = _KEPT.set(file)
    try:
        yield
    finally:
        _KEPT.reset(token)


def draw(request: Request, progress: Progress | None = None) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out.

    :param progress: Advanced by the completions that are there, and told now and then that the
        engine still starts.
    :raises EngineError: If the worker fails or dies.
    """
    return [
        [Completion(tuple(ids), reason, logprob) for ids, reason, logprob in row]
        for row in ask(request, progress)["drawn"]
    ]


def ask(request: Request, progress: Progress | None = None) -> dict[str, Any]:
    """The response of :mod:`passgrad.rollouts.vllm_worker` to one request.

    :raises EngineError: If the worker fails or dies.
    """
    with tempfile.TemporaryDirectory(prefix="passgrad-vllm-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "response.json")
        asked.write_text(json.dumps(asdict(request)), encoding="utf-8")
        output = Path(folder, "output.txt")
        status = _run(
            [sys.executable, "-m", "passgrad.rollouts.vllm_worker", str(asked), str(answered)],
            output,
            _Watch(Path(folder, "drawn.txt"), progress or Silent()),
        )
        if answered.is_file():
            response = json.loads(answered.read_text(encoding="utf-8"))
        else:
            response = {
                "error": f"its process ended with status {status} (out of memory if that is -9)"
            }
        if "error" in response:
            raise EngineError(_failure(str(response["error"]), output))
    return response


def _failure(error: str, output: Path) -> str:
    """Why it failed: the reason that the engine's own process gave, if there is one, and where all
    that was said is kept.
    """
    said = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    reasons = [
        f"{kind.rpartition('.')[2]}: {text.strip()}"
        for kind, text in _REASON.findall(said)
        if not any(echo in f"{kind} {text}" for echo in _ECHOES)
    ]
    if reasons and any(echo in error for echo in (*_ECHOES, "its process ended")):
        error = reasons[-1]
    error = textwrap.shorten(error, 300, placeholder=" [...]").rstrip(".")
    kept = _KEPT.get()
    if kept is None or not said.strip():
        return error
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(output, kept)
    return f"{error} (all that vLLM said is in {kept})"


class _Watch:
    """Looks at how many completions the worker has, and tells."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self.file, self.progress, self.drawn = file, progress, 0
        self.begun = self.told = time.monotonic()

    def __call__(self) -> None:
        now, drawn = time.monotonic(), 0
        with contextlib.suppress(OSError, ValueError):
            drawn = int(self.file.read_text())
        if drawn > self.drawn:
            self.progress.advance(drawn - self.drawn)
            self.drawn, self.told = drawn, now
        elif now - self.told > _SILENCE:
            what = "vLLM has no further prompt done yet" if drawn else "vLLM starts, or draws"
            self.progress.note(f"{what} ({now - self.begun:.0f} s)")
            self.told = now


def _run(
    command: list[str], output: Path | None = None, watch: Callable[[], None] | None = None
) -> int:
    """The status of the command, none of whose processes outlives this call.

    :param output: Where it says what it says.
    :param watch: Called every few seconds.

    vLLM starts an engine as a process of its own, which goes on when only the worker is killed.
    The worker leads a session, and whatever is left of it is killed.
    """
    with Path(output or os.devnull).open("wb") as said:
        worker = subprocess.Popen(
            command,
            env=_small_machine() | _ENVIRONMENT | without_launcher(os.environ),
            # The worker ends when this pipe does, also when this process is killed outright.
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        while watch is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return worker.wait(timeout=_LOOK)
            watch()
        return worker.wait()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()


def _small_machine() -> dict[str, str]:
    """On a few cores, all of them for the engine.

    vLLM keeps one core for its scheduler, which is half of a machine with two.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if cores >= _MANY_CORES:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores)}
