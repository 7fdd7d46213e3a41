"""Completions from vLLM, on a CPU or on GPUs, in a process of its own.

Importing vLLM changes the process that does it (thread counts, patched libraries, environment
variables), and its engine keeps memory. A worker that ends with the call leaves the caller, often a
notebook kernel, as it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passgrad.lm.rollouts import Completion, Sampling

# What the user has set in the environment stays.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
}


class EngineError(RuntimeError):
    """vLLM did not start, or stopped before it had drawn everything."""


def draw(
    place: str,
    prompts: list[list[int]],
    num_samples: int,
    ends: tuple[int, ...],
    max_new_tokens: int,
    settings: Sampling,
    progress: bool,
) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out."""
    request = {
        "model": place,
        "prompts": prompts,
        "num_samples": num_samples,
        "ends": list(ends),
        "max_new_tokens": max_new_tokens,
        "settings": asdict(settings),
        "progress": progress,
    }
    drawn = ask(request)["drawn"]
    return [
        [Completion(tuple(ids), reason, logprob) for ids, reason, logprob in row] for row in drawn
    ]


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """The response of :mod:`passgrad.lm.vllm_worker` to one request.

    :raises EngineError: If the worker fails or dies.
    """
    progress = request["progress"]
    with tempfile.TemporaryDirectory(prefix="passgrad-vllm-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "response.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "passgrad.lm.vllm_worker", str(asked), str(answered)],
            env=_ENVIRONMENT | dict(os.environ),
            stdout=subprocess.DEVNULL,
            stderr=None if progress else subprocess.DEVNULL,
        )
        if not answered.is_file():
            raise EngineError(
                f"its process ended with status {done.returncode} (out of memory if that is -9)"
            )
        response = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in response:
        raise EngineError(response["error"])
    return response
