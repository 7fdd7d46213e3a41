"""The prompts of a measurement, in whichever form they are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.lm.models import load_tokenizer, resolve
from passgrad.measurement.applicable import is_task, meant
from passgrad.measurement.options import Drawing, Judging
from passgrad.tasks.base import Prompt, Task, as_prompts
from passgrad.tasks.prompt_files import TASKS, read_prompts, task_by_name
from passgrad.tasks.repeats import distinct
from passgrad.tasks.verifiers import Verifier

GivenPrompts = str | Path | Task | Iterable[Prompt | Sequence[str]]


def as_task(prompts: GivenPrompts, model: str | Path, judging: Judging, drawing: Drawing) -> Task:
    """The task that these prompts are.

    :param prompts: A file, the name of a task, a task, or prompts, of which each counts once.
    :param judging, drawing: For a file and for prompts: the verifier, and what ends a completion.
    :raises UserError: For a file or a name that is not there, all that reading refuses, and a
        reference that the verifier cannot judge.
    """
    task = _task(prompts, model, judging, drawing)
    if isinstance(task.verify, Verifier):
        task.verify.check(task.prompts)
    if drawing.end_tokens:
        task = replace(task, end_tokens=tuple(drawing.end_tokens))
    return task if judging.think is None else replace(task, think=judging.think)


def _task(prompts: GivenPrompts, model: str | Path, judging: Judging, drawing: Drawing) -> Task:
    if isinstance(prompts, Task):
        return prompts
    if isinstance(prompts, str | Path) and not _is_file(prompts):
        if not is_task(str(prompts)):
            raise UserError(
                f"{prompts} is no file and no task{meant(prompts)}; give a file of prompts, or "
                f"one of {', '.join(TASKS)} and gym:NAME"
            )
        return task_by_name(str(prompts))
    if isinstance(prompts, str | Path):
        return read_prompts(
            prompts, tokenizer=load_tokenizer(resolve(model)), verifier=judging.judge(),
            stop=drawing.stop, max_new_tokens=drawing.limit,
        )  # fmt: skip
    return distinct(
        Task("prompts", as_prompts(prompts), judging.judge(), drawing.stop, drawing.limit)
    )


def digest(task: Task, prompts: GivenPrompts, model: str | Path) -> str:
    """Of all that makes the completions and their rewards: texts, answers, verifier, ends.

    Of a file it is the content, and the template that its chats are rendered with: a template may
    write the date.
    """
    source: list[Any]
    if isinstance(prompts, str | Path) and _is_file(prompts):
        template = getattr(load_tokenizer(resolve(model)), "chat_template", None)
        source = [hashlib.sha256(Path(prompts).read_bytes()).hexdigest(), template]
    else:
        source = [[prompt.id, prompt.text, prompt.answer, prompt.group] for prompt in task.prompts]
    judge = task.verify.spec if isinstance(task.verify, Verifier) else task.name
    ends = [task.stop, task.max_new_tokens, list(task.end_tokens), task.think]
    content = json.dumps([source, judge, *ends], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def as_asked(task: Task, file: Path) -> Task:
    """The task with the texts that were asked when drawing began, which the file keeps; it is
    written where it is not there.

    :raises UserError: For a file that is damaged.
    """
    if not file.is_file():
        rows = [
            json.dumps([prompt.id, prompt.context, prompt.question], ensure_ascii=False)
            for prompt in task.prompts
        ]
        write_atomic(file, "".join(row + "\n" for row in rows).encode("utf-8", "surrogatepass"))
        return task
    try:
        lines = file.read_bytes().decode("utf-8", "surrogatepass").rstrip("\n").split("\n")
        asked = {name: (context, question) for name, context, question in map(json.loads, lines)}
        prompts = tuple(
            replace(prompt, context=asked[prompt.id][0], question=asked[prompt.id][1])
            for prompt in task.prompts
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): name another folder") from error
    return replace(task, prompts=prompts)


def _is_file(prompts: str | Path) -> bool:
    return Path(prompts).is_file()
