"""What the ends of completions say, in sentences for a reader of the measurement: of thoughts
without an answer, and turns that go on behind their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from passgrad.lm.models import closing_token
from passgrad.lm.rollouts import Rollouts
from passgrad.lm.tokens import decode
from passgrad.tasks.base import Task
from passgrad.tasks.thinking import MARKS, answer_of, opened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def past_a_turn(tokenizer: PreTrainedTokenizerBase, task: Task, ends: Sequence[int]) -> list[str]:
    """Whether the chat template closes a turn with a token that ends no completion."""
    closing = closing_token(tokenizer)
    if task.stop is not None or task.end_tokens or closing is None or closing in ends:
        return []
    mark = decode(tokenizer, [closing])
    if not any(mark in prompt.text for prompt in task.prompts):
        return []
    return [
        f"The chat template closes a turn with {mark!r}, which the model's files do not name as an "
        f"end token, so completions go on behind it; --end-token {mark!r} (end_tokens=) ends them "
        "there."
    ]


def remarks_on_thoughts(rollouts: Rollouts, think: str | None, *, judged: bool) -> list[str]:
    """Of thoughts.

    :param think: Behind it an answer begins, as in :func:`passgrad.tasks.thinking.answer_of`.
    :param judged: Whether the rewards are verdicts on the text, not those of a log.
    """
    names = ("prompt", "completion", "reward", "finish_reason")
    rows = list(zip(*(rollouts.table[name].to_pylist() for name in names), strict=True))
    total, cut, silent, seen, rewarded = len(rows), 0, 0, 0, 0
    marks: dict[str, None] = {}
    for prompt, completion, reward, reason in rows:
        text = completion or ""
        if answer_of(text, prompt, think) is None:
            cut += reason != "stop"
            silent += reason == "stop"
            rewarded += reward == 1
        elif think is None and (mark := opened(text, prompt)) is not None:
            marks[MARKS[mark]] = None
            seen += 1
    sentences = []
    if cut or silent:
        ways = []
        if cut:
            ways.append(f"{cut} of {total} completions were cut off while thinking")
        if silent:
            ways.append(f"{silent} of {total} completions ended without an answer behind thoughts")
        ending = f"{rewarded} of them have a reward of 1" if rewarded else "they count as wrong"
        more = "; more max_new_tokens would show more answers" if cut else ""
        sentences.append(f"{', and '.join(ways)}; {ending}{more}.")
    if seen and judged:
        close = next(iter(marks))
        sentences.append(
            f"{seen} of {total} completions think before they answer, and the verifier was shown "
            f"the thoughts too; --think {close!r} (think=) shows it the answer alone."
        )
    return sentences
