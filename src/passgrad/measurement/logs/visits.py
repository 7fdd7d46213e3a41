"""Counts of right answers along a training run: a visit is one prompt at one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Window:
    """The steps from ``first`` to ``last``, both included.

    :raises UserError: For a last step before the first.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise UserError(f"the window {self.first}:{self.last} ends before it begins")

    def __str__(self) -> str:
        one_step = self.first == self.last
        return f"step {self.first}" if one_step else f"steps {self.first} to {self.last}"

    @classmethod
    def parse(cls, text: str) -> Window:
        """A window written as ``0:11``.

        :raises UserError: For another text.
        """
        first, colon, last = text.strip().partition(":")
        if not (colon and first.strip().isdecimal() and last.strip().isdecimal()):
            raise UserError(f"{text!r} is not a window of steps such as 0:11")
        return cls(int(first), int(last))


@dataclass(frozen=True, eq=False)
class Visits:
    """V visits of P prompts.

    :raises UserError: For columns of different lengths, and counts that are no counts.
    """

    prompt: IntArray
    """(V,) the place of the prompt in ``prompt_ids``."""
    step: IntArray
    """(V,)"""
    num_samples: IntArray
    """(V,) answers of the visit, at least 1."""
    num_correct: IntArray
    """(V,) right ones among them."""
    prompt_ids: Sequence[str]
    """(P,)"""
    groups: Sequence[str] = ()
    """(P,) the group of each prompt, or nothing."""
    texts: Sequence[str] = ()
    """(P,) the beginning of each prompt, or nothing."""
    laws: dict[str, dict[str, Window]] = field(default_factory=dict)
    """What the log says of the sampling law: for each setting the values, and between which steps
    each was seen."""

    def __post_init__(self) -> None:
        columns = (self.prompt, self.step, self.num_samples, self.num_correct)
        if len({column.shape for column in columns}) > 1 or self.prompt.ndim != 1:
            raise UserError("the columns of the visits differ in length")
        wrong = (self.num_samples < 1) | (self.num_correct < 0)
        wrong |= self.num_correct > self.num_samples
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"visit {place}: {self.num_correct[place]} right answers of "
                f"{self.num_samples[place]}; give 0 <= num_correct <= num_samples, at least 1 "
                "answer"
            )

    @classmethod
    def of(
        cls,
        prompt: ArrayLike,
        step: ArrayLike,
        num_samples: ArrayLike,
        num_correct: ArrayLike,
        groups: ArrayLike | None = None,
    ) -> Visits:
        """Visits from columns of one length; ``prompt`` may be anything that names a prompt.

        >>> Visits.of(["a", "a", "b"], [0, 1, 0], 8, [3, 4, 0]).num_prompts
        2
        """
        names, places, inverse = np.unique(
            np.asarray(prompt), return_index=True, return_inverse=True
        )
        size = inverse.shape
        return cls(
            inverse.astype(np.int64),
            np.broadcast_to(np.asarray(step, np.int64), size),
            np.broadcast_to(np.asarray(num_samples, np.int64), size),
            np.broadcast_to(np.asarray(num_correct, np.int64), size),
            [str(name) for name in names],
            [] if groups is None else [str(group) for group in np.asarray(groups)[places]],
        )

    @property
    def num_prompts(self) -> int:
        """P."""
        return len(self.prompt_ids)

    def counts(self, window: Window) -> tuple[IntArray, IntArray]:
        """The answers n and the right ones c of each prompt in a window: (P,) each."""
        inside = (self.step >= window.first) & (self.step <= window.last)
        prompt = self.prompt[inside]
        n, c = (
            np.bincount(prompt, weights=column[inside], minlength=self.num_prompts)
            for column in (self.num_samples, self.num_correct)
        )
        return n.astype(np.int64), c.astype(np.int64)

    def split(self, number: int) -> list[Window]:
        """The steps of the log in windows that hold about equally many answers each.

        :raises UserError: For more windows than steps, and fewer than two.
        """
        steps, place = np.unique(self.step, return_inverse=True)
        if not 2 <= number <= len(steps):
            raise UserError(
                f"{number} windows of a log with {len(steps)} steps; a change needs at least 2 "
                "windows, and a window at least one step"
            )
        answers = np.bincount(place, weights=self.num_samples)
        share = (answers.cumsum() - answers / 2) / answers.sum()
        label = np.minimum((share * number).astype(np.int64), number - 1)
        # Every window keeps a step, also where one step holds most of the answers.
        label = np.minimum(label, np.arange(len(steps)))
        label = np.maximum(label, number - len(steps) + np.arange(len(steps)))
        label = np.maximum.accumulate(label)
        label = np.minimum(label, np.concatenate([[0], label[:-1] + 1]))
        return [
            Window(int(steps[label == i][0]), int(steps[label == i][-1])) for i in range(number)
        ]
