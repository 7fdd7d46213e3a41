"""What of a completion is the answer, where a model thinks first.

A verifier that sees the thoughts finds right answers in them that the model never gave, above all
where a completion was cut off while it thought.
"""

from __future__ import annotations

#: how models open their thoughts, and what the answer begins behind
MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}


def answer_of(completion: str, prompt: str, think: str | None = None) -> str | None:
    """The part of a completion that is judged; None for one that never came to its answer.

    :param think: Behind its last occurrence the answer begins, at its first sign that is no white
        space. Where the prompt ends with it, the
        thoughts are over (or left out) already, and all of the completion is the answer. Without
        it all of a completion is the answer as well, unless it opens one of :data:`MARKS`, or the
        prompt does at its end, and nothing closes it.
    """
    if think:
        if think in completion:
            return completion.rpartition(think)[2].lstrip()
        return completion if prompt.rstrip().endswith(think) else None
    mark = opened(completion, prompt)
    return None if mark is not None and MARKS[mark] not in completion else completion


def opened(completion: str, prompt: str) -> str | None:
    """The mark with which a completion, or its prompt at the end, opens thoughts."""
    start, end = completion.lstrip(), prompt.rstrip()
    return next((mark for mark in MARKS if start.startswith(mark) or end.endswith(mark)), None)
