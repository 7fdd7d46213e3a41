"""The completions of a measurement, drawn a block of prompts at a time.

A block is a start of the engine: what a kill loses, and what one process of several draws.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from passgrad.files import write_atomic
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.progress import Progress, Within
from passgrad.rollouts.sampling import Engine, sample
from passgrad.rollouts.vllm_engine import output_kept_in
from passgrad.tasks.base import Task
from passgrad.tasks.verifiers import Verifier

#: prompts a block
BLOCK = 64


@dataclass(frozen=True)
class Blocks:
    """The completions of a task, a block of prompts at a time."""

    model: str
    task: Task
    num_samples: int
    engine: Engine
    law: Sampling
    folder: Path
    base_url: str | None = None
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def num_blocks(self) -> int:
        """How many times the engine is started."""
        return -(-len(self.task.prompts) // BLOCK)

    def path(self, block: int) -> Path:
        """Where a block is kept."""
        return self.folder / f"part-{block:05d}.parquet"

    def missing(self) -> list[int]:
        """The blocks that are not there yet."""
        return [block for block in range(self.num_blocks) if not self.path(block).is_file()]

    def draw(
        self, blocks: Sequence[int], progress: Progress, stage: str = "drawing completions"
    ) -> None:
        """Draw these blocks, as one stage."""
        if not blocks:
            return
        sizes = [len(self._prompts(block)) * self.num_samples for block in blocks]
        progress.stage(stage, sum(sizes))
        for block in blocks:
            self._draw(block, Within(progress))

    def rollouts(self) -> Rollouts:
        """All blocks together; every one must be there."""
        parts = [Rollouts.read(self.path(block)) for block in range(self.num_blocks)]
        return Rollouts(pa.concat_tables([part.table for part in parts]))

    def incidents(self) -> list[dict[str, Any]]:
        """The completions that the verifier had no ordinary verdict for; they count as wrong."""
        paths = sorted(self.folder.glob("part-*.incidents.json"))
        return [
            incident for path in paths for incident in json.loads(path.read_text(encoding="utf-8"))
        ]

    def _prompts(self, block: int) -> tuple[Any, ...]:
        return self.task.prompts[block * BLOCK : (block + 1) * BLOCK]

    def _draw(self, block: int, progress: Progress) -> None:
        some = replace(self.task, prompts=self._prompts(block))
        # A block has a seed of its own, so that it does not matter which were drawn before.
        law = replace(self.law, seed=self.law.seed + block)
        judge = some.verify if isinstance(some.verify, Verifier) else None
        before = len(judge.incidents) if judge else 0
        with output_kept_in(self.path(block).with_suffix(".vllm.log")):
            drawn = sample(
                self.model, some, num_samples=self.num_samples, engine=self.engine, settings=law,
                base_url=self.base_url, progress=progress, dtype=self.dtype, device=self.device,
            )  # fmt: skip
        new = judge.incidents[before:] if judge else []
        if new:
            names = ("prompt_id", "completion", "answer", "reason")
            rows = [{name: getattr(incident, name) for name in names} for incident in new]
            content = json.dumps(rows, ensure_ascii=False)
            write_atomic(self.path(block).with_suffix(".incidents.json"), content.encode())
        drawn.write(self.path(block))
