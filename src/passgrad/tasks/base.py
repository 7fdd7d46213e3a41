"""A task: prompts, and the verifier r(x, y) in {0, 1} that judges a completion y of a prompt x."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from passgrad.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """What the model reads (``context + question``) and the reference answer.

    ``context`` is what several prompts share, such as worked examples: it is computed once for all
    of them. ``group`` labels the kind of prompt in tables and figures, ``id`` the prompt itself.
    """

    context: str
    question: str
    answer: str
    group: str = ""
    id: str = ""

    @property
    def text(self) -> str:
        """All that the model is given."""
        return self.context + self.question


@dataclass(frozen=True)
class Task:
    """Prompts with one verifier and the point at which a completion ends.

    ``verify(completion, prompt)`` says whether a completion (text before the stop) is a success.
    ``stop`` ends a completion and is itself sampled; without it the model's end tokens do, or these
    ``end_tokens``. Behind ``think``, if it is given, the answer begins: that alone is judged
    (:mod:`passgrad.tasks.thinking`).
    """

    name: str
    prompts: tuple[Prompt, ...]
    verify: Callable[[str, Prompt], bool]
    stop: str | None
    max_new_tokens: int
    end_tokens: tuple[str, ...] = ()
    think: str | None = None


def as_prompts(prompts: Iterable[Prompt | Sequence[str]]) -> tuple[Prompt, ...]:
    """Prompts from :class:`Prompt` objects or from (context, question, answer) triples; ids are
    filled in.

    :raises UserError: If there are none, if one is not a triple of strings, or if an id stands
        twice.
    """
    result = []
    for place, item in enumerate(prompts):
        if not isinstance(item, Prompt):
            if (
                isinstance(item, str)
                or not isinstance(item, Sequence)
                or len(item) != 3
                or not all(isinstance(part, str) for part in item)
            ):
                raise UserError(
                    f"prompt {place} is {item!r}; "
                    "give a (context, question, answer) triple of strings"
                )
            item = Prompt(*item)
        result.append(
            item
            if item.id
            else Prompt(item.context, item.question, item.answer, item.group, str(place))
        )
    if not result:
        raise UserError(
            "the list of prompts is empty; give at least one (context, question, answer) triple"
        )
    ids = [prompt.id for prompt in result]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"two prompts have the id {twice!r}; make the ids distinct")
    return tuple(result)


def exact_match(completion: str, prompt: Prompt) -> bool:
    """Whether the completion is the answer, character for character.

    For prompts whose answer is one token sequence, the probability of this event is what
    :class:`passgrad.LanguageWorld` computes.
    """
    return completion == prompt.answer
