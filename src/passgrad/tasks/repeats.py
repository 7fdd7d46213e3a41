"""Prompts that stand several times: each is one prompt, however often it is written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.json_lines import Line


class RepeatedPromptsWarning(UserWarning):
    """Several rows were the same prompt, which is measured once."""


@dataclass
class Repeats:
    """Distinct prompts from rows, among which some may be the same.

    The rows of a prompt are no independent draws of prompts: were they counted as such, an interval
    would be too short. So each distinct prompt counts once, and all count alike.
    """

    prompts: list[Prompt] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """How many rows were this prompt, by its text."""
    _by_text: dict[str, tuple[Prompt, Line | None]] = field(default_factory=dict)
    _by_id: dict[str, tuple[Prompt, Line | None]] = field(default_factory=dict)

    def add(self, prompt: Prompt, at: Line | None = None) -> None:
        """One more row.

        :param at: Where it stands; without one nothing is refused.
        :raises UserError: For another prompt with the same id, and for the same prompt with another
            answer.
        """
        self.counts[prompt.text] = self.counts.get(prompt.text, 0) + 1
        first, place = self._by_text.get(prompt.text, (None, None))
        if first is not None and first.answer == prompt.answer:
            return
        if at is not None:
            if first is not None and place is not None:
                at.fail(
                    f"the same prompt stands on {_short(place)} with another answer; keep one of "
                    "the two"
                )
            other, there = self._by_id.get(prompt.id, (None, None))
            if other is not None and there is not None:
                at.fail(
                    f"the id {prompt.id!r} stands on {_short(there)} too; make the ids distinct"
                )
        self._by_text.setdefault(prompt.text, (prompt, at))
        self._by_id.setdefault(prompt.id, (prompt, at))
        self.prompts.append(prompt)

    def warn(self, name: str) -> None:
        """Say how many rows were one prompt, if any were."""
        rows = sum(self.counts.values())
        if rows == len(self.prompts):
            return
        least, most = min(self.counts.values()), max(self.counts.values())
        times = f"{least}" if least == most else f"{least} to {most}"
        warnings.warn(
            f"{name}: {rows} rows hold {len(self.prompts)} distinct prompts, {times} times each; a "
            "prompt is measured once however often it stands there, and intervals are those of the "
            "distinct prompts",
            RepeatedPromptsWarning,
            stacklevel=3,
        )


def _short(place: Line) -> str:
    return place.name.rpartition(", ")[2]


def distinct(task: Task) -> Task:
    """The task with each of its prompts once.

    :warns RepeatedPromptsWarning: If some stood several times.
    """
    repeats = Repeats()
    for prompt in task.prompts:
        repeats.add(prompt)
    repeats.warn(task.name)
    return replace(task, prompts=tuple(repeats.prompts))
