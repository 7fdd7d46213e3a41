"""A task of :mod:`passgrad.tasks` as what TRL trains on: a data set and a reward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from passgrad.errors import UserError
from passgrad.tasks.base import Task


def task_dataset(task: Task) -> Any:
    """A ``datasets.Dataset`` with the columns ``prompt`` (text) and ``place`` in the task."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"prompt": [one.text for one in task.prompts], "place": list(range(len(task.prompts)))}
    )


def task_reward(task: Task) -> Callable[..., list[float]]:
    """The verifier as a reward function of TRL: 1 for a success, 0 otherwise."""

    def success(completions: Sequence[str], place: Sequence[int], **rest: Any) -> list[float]:
        return [
            float(task.verify(text.split(task.stop)[0] if task.stop else text, task.prompts[x]))
            for text, x in zip(completions, place, strict=True)
        ]

    return success


def end_at_stop(model: Any, tokenizer: Any, task: Task) -> None:
    """Let the task's stop end a completion, as one more end token of the model.

    :raises UserError: For a stop that is not one token.
    """
    if task.stop is None:
        return
    ids = tokenizer.encode(task.stop, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(f"the stop {task.stop!r} is {len(ids)} tokens; TRL ends completions at one")
    known = model.generation_config.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or [])
    model.generation_config.eos_token_id = [*ends, *(one for one in ids if one not in ends)]
