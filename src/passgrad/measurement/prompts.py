"""The prompts of a measurement, in whichever form they are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.lm.models import load_tokenizer, resolve
from passgrad.tasks.base import Prompt, Task, as_prompts
from passgrad.tasks.prompt_files import read_prompts, task_by_name
from passgrad.tasks.verifiers import Verifier

GivenPrompts = str | Path | Task | Iterable[Prompt | Sequence[str]]


def as_task(
    prompts: GivenPrompts,
    model: str | Path,
    *,
    verifier: str | Callable[[str, str], Any] = "exact",
    verifier_seconds: float = 5.0,
    verifier_memory: int = 1024,
    stop: str | None = None,
    max_new_tokens: int = 512,
) -> Task:
    """The task that these prompts are.

    :param prompts: A file of JSON lines, the name of a task, a task, or prompts.
    :param verifier: For a file and for prompts: how a completion is judged, as for
        :class:`passgrad.tasks.verifiers.Verifier`.
    :param verifier_seconds: What a verdict may take, in seconds.
    :param verifier_memory: What a verifier may take, in MiB.
    :param stop: For a file and for prompts: what ends a completion; None is the model's end token.
    :param max_new_tokens: For a file and for prompts.
    :raises UserError: For a file or a name that is not there, and all that reading refuses.
    """
    if isinstance(prompts, Task):
        return prompts
    if isinstance(prompts, str | Path) and not _is_file(prompts):
        return task_by_name(str(prompts))
    judge = Verifier(verifier, seconds=verifier_seconds, memory_mib=verifier_memory)
    if isinstance(prompts, str | Path):
        return read_prompts(
            prompts, tokenizer=load_tokenizer(resolve(model)), verifier=judge, stop=stop,
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; give at least 1")
    return Task("prompts", as_prompts(prompts), judge, stop, max_new_tokens)


def digest(task: Task) -> str:
    """Of all that makes the completions and their rewards: texts, answers, verifier, stop."""
    judge = task.verify.spec if isinstance(task.verify, Verifier) else task.name
    rows = [[one.id, one.text, one.answer, one.group] for one in task.prompts]
    content = json.dumps([rows, judge, task.stop, task.max_new_tokens], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _is_file(prompts: str | Path) -> bool:
    path = Path(prompts)
    return path.suffix in (".jsonl", ".json") or path.is_file()
