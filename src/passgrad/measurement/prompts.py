"""The prompts of a measurement, in whichever form they are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from passgrad.lm.models import load_tokenizer, resolve
from passgrad.measurement.options import Drawing, Judging
from passgrad.tasks.base import Prompt, Task, as_prompts
from passgrad.tasks.prompt_files import read_prompts, task_by_name
from passgrad.tasks.verifiers import Verifier

GivenPrompts = str | Path | Task | Iterable[Prompt | Sequence[str]]


def as_task(prompts: GivenPrompts, model: str | Path, judging: Judging, drawing: Drawing) -> Task:
    """The task that these prompts are.

    :param prompts: A file of JSON lines, the name of a task, a task, or prompts.
    :param judging, drawing: For a file and for prompts: the verifier, and what ends a completion.
    :raises UserError: For a file or a name that is not there, all that reading refuses, and a
        reference that the verifier cannot judge.
    """
    task = _task(prompts, model, judging, drawing)
    if isinstance(task.verify, Verifier):
        task.verify.check(task.prompts)
    return task


def _task(prompts: GivenPrompts, model: str | Path, judging: Judging, drawing: Drawing) -> Task:
    if isinstance(prompts, Task):
        return prompts
    if isinstance(prompts, str | Path) and not _is_file(prompts):
        return task_by_name(str(prompts))
    if isinstance(prompts, str | Path):
        return read_prompts(
            prompts, tokenizer=load_tokenizer(resolve(model)), verifier=judging.judge(),
            stop=drawing.stop, max_new_tokens=drawing.max_new_tokens,
        )  # fmt: skip
    return Task(
        "prompts", as_prompts(prompts), judging.judge(), drawing.stop, drawing.max_new_tokens
    )


def digest(task: Task) -> str:
    """Of all that makes the completions and their rewards: texts, answers, verifier, stop."""
    judge = task.verify.spec if isinstance(task.verify, Verifier) else task.name
    rows = [[prompt.id, prompt.text, prompt.answer, prompt.group] for prompt in task.prompts]
    content = json.dumps([rows, judge, task.stop, task.max_new_tokens], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _is_file(prompts: str | Path) -> bool:
    path = Path(prompts)
    return path.suffix in (".jsonl", ".json") or path.is_file()
