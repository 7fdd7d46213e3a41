"""Completions from vLLM, on a CPU or on GPUs, in a process of its own.

Importing vLLM changes the process that does it (thread counts, patched libraries, environment
variables), and its engine keeps memory. A worker that ends with the call leaves the caller, often a
notebook kernel, as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passgrad.lm.distributed import without_launcher
from passgrad.lm.rollouts import Completion, Request

# What the user has set in the environment stays.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
}

# From here on a core for the scheduler costs less than it saves.
_MANY_CORES = 4


class EngineError(RuntimeError):
    """vLLM did not start, or stopped before it had drawn everything."""


def draw(request: Request) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out.

    :raises EngineError: If the worker fails or dies.
    """
    return [
        [Completion(tuple(ids), reason, logprob) for ids, reason, logprob in row]
        for row in ask(request)["drawn"]
    ]


def ask(request: Request) -> dict[str, Any]:
    """The response of :mod:`passgrad.rollouts.vllm_worker` to one request.

    :raises EngineError: If the worker fails or dies.
    """
    with tempfile.TemporaryDirectory(prefix="passgrad-vllm-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "response.json")
        asked.write_text(json.dumps(asdict(request)), encoding="utf-8")
        status = _run(
            [sys.executable, "-m", "passgrad.rollouts.vllm_worker", str(asked), str(answered)],
        )
        if not answered.is_file():
            raise EngineError(
                f"its process ended with status {status} (out of memory if that is -9)"
            )
        response = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in response:
        raise EngineError(response["error"])
    return response


def _run(command: list[str]) -> int:
    """The status of the command, none of whose processes outlives this call.

    vLLM starts an engine as a process of its own, which goes on when only the worker is killed.
    The worker leads a session, and whatever is left of it is killed.
    """
    worker = subprocess.Popen(
        command,
        env=_small_machine() | _ENVIRONMENT | without_launcher(os.environ),
        # The worker ends when this pipe does, also when this process is killed outright.
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
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
