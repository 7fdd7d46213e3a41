"""Passes over completions that several processes share, each with the whole model.

Every process has all prompts and the model; each computes some of the packed rows. A gradient is
one all-reduce, and of log-probabilities and derivatives along a vector the scalars are exchanged,
so that every process ends with all of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.lm.central import Differences
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes
from passgrad.lm.logprobs import Packed
from passgrad.lm.packing import Packing, Packs
from passgrad.lm.passes import CompletionPasses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DistributedPasses(CompletionPasses):
    """:class:`CompletionPasses` of which each process does its share; the numbers are the same.

    The rows are those of one process, so that log-probabilities are equal to the last bit and
    gradients up to the order of a sum. A process beyond the number of rows has nothing to do. Every
    process must call the same methods in the same order with the same arguments.

    :param group: The processes; alone this is :class:`CompletionPasses`.
    :param options: As of :class:`CompletionPasses`.
    :raises UserError: As :class:`CompletionPasses`; in every process what one of them raises.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        completions: Completions,
        rewards: Any,
        masses: Any = None,
        *,
        group: Processes,
        **options: Any,
    ) -> None:
        self.group = group
        # The sequences that this process has taken, within a pass that is shared.
        self._taken: list[int] | None = None
        with group.together():
            super().__init__(model, completions, rewards, masses, **options)

    def gradient(self, coefficients: Any) -> Tensor:
        """:meth:`CompletionPasses.gradient`, in every process."""
        with self.group.together(), self._sharing():
            total = super().gradient(coefficients)
        return self.group.add(total)

    def _scores(self, members: Sequence[int]) -> Tensor:
        with self.group.together(), self._sharing() as taken:
            values = super()._scores(members)
        return self._exchanged(values, taken, members)

    def _forward(self, directions: Mapping[str, Tensor], members: Sequence[int]) -> Tensor:
        with self.group.together(), self._sharing() as taken:
            values = super()._forward(directions, members)
        return self._exchanged(values, taken, members)

    def _differences(self, *given: Any, **options: Any) -> Differences | None:
        return super()._differences(*given, agree=self.group.agree, **options)

    def _choose_packing(self, wanted: Packs) -> Packing:
        return self.group.from_main(lambda: super(DistributedPasses, self)._choose_packing(wanted))

    def _exchanged(self, values: Tensor, taken: Sequence[int], members: Sequence[int]) -> Tensor:
        """The (S,) values of all processes, of which this one has those it has taken."""
        held = torch.zeros_like(values)
        held[list(taken)] = values[list(taken)]
        return self._placed(members, self.group.add(held)[list(members)])

    @contextmanager
    def _sharing(self) -> Iterator[list[int]]:
        """Within it, rows are those of this process."""
        taken: list[int] = []
        self._taken = taken
        try:
            yield taken
        finally:
            self._taken = None

    def rows(self, members: Sequence[int]) -> list[Packed]:
        """Those of one process; within a pass that is shared, those of this one."""
        rows = super().rows(members)
        if self._taken is None:
            return rows
        mine = balanced([row.num_tokens for row in rows], self.group.size)[self.group.rank]
        self._taken.extend(member for i in mine for member in rows[i].members)
        return [rows[i] for i in mine]


def balanced(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Places of these sizes in so many parts with nearly the same sums: the largest first, each to
    the part with the least so far (Graham, 1969). In the order given within a part.
    """
    loads = [(0, part) for part in range(parts)]
    made: list[list[int]] = [[] for _ in range(parts)]
    for place in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, part = heapq.heappop(loads)
        made[part].append(place)
        heapq.heappush(loads, (load + sizes[place], part))
    return [sorted(part) for part in made]
