"""What the benchmarks share: interleaved timing, the machine, the figures as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from passgrad import provenance

MODEL = "smollm2-135m"

# Options that several scripts have.
Smoke = Annotated[bool, typer.Option(help="seconds, to see that it runs; figures mean nothing")]
Figures = Annotated[Path | None, typer.Option(help="write the figures here too")]
Model = Annotated[str, typer.Option("--model", help="an embedded model, or a folder with one")]
Device = Annotated[str, typer.Option(help="where the model computes: cpu, cuda")]


def interleaved(
    functions: dict[str, Callable[[], Any]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Wall seconds of each function, A B C A B C ..., so that a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    if warm_up:
        for function in functions.values():
            function()
    for round_number in range(repeats):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if torch.cuda.is_available():  # it may not have ended yet
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begun)
            progress(f"round {round_number + 1}/{repeats}: {name} {seconds[name][-1]:.2f} s")
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def matmul_rate(m: int = 128, k: int = 576, n: int = 1536, seconds: float = 1.0) -> float:
    """Floating-point operations a second of an (m, k) by (k, n) product in float32."""
    a, b = torch.randn(m, k), torch.randn(k, n)
    for _ in range(5):
        a @ b
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        for _ in range(20):
            a @ b
        best = max(best, 20 * 2 * m * k * n / (time.perf_counter() - start))
    return best


def machine() -> dict[str, Any]:
    """The processor, its flags, the threads in use, and how busy it was."""
    cpu = provenance.cpu()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {name: provenance.version_of(name) for name in ("torch", "transformers", "vllm")}
    return {**cpu, "threads": torch.get_num_threads(), "load_before": load, "versions": versions}


def progress(text: str) -> None:
    """A line about what is going on, apart from the figures."""
    print(text, file=sys.stderr, flush=True)


def report(figures: dict[str, Any], path: Path | None) -> None:
    """Print the figures, and write them as JSON if a path is given."""
    text = json.dumps(figures, indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.part")
        scratch.write_text(text + "\n", encoding="utf-8")
        os.replace(scratch, path)
