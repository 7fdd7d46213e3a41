r"""The completions of M prompts, n each, as the distinct sequences that have to be scored.

Samples of a short answer repeat themselves, and all that is asked of a completion,
:math:`\log \pi(y \mid x)` and its derivatives, is the same for equal ones. So each distinct pair of
prompt and completion is scored once; a sum over completions weighs it by the sum of their
coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, Packed, alone, pack
from passgrad.lm.rollouts import Rollouts
from passgrad.lm.tokens import TokenizedPrompt, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A prompt gives so many completions to a sample of few tokens: its prefix is paid for, and one
# prompt is not the whole law.
_PER_PROMPT = 6


@dataclass(frozen=True, eq=False)
class Completions:
    """Distinct sequences, and which of them each completion is.

    ``sequences``: the S distinct (prompt, completion) pairs as token ids. ``places``: (M, n), the
    sequence of each completion. ``names``: the M prompts, for messages and tables.
    """

    sequences: tuple[TokenizedPrompt, ...]
    places: Tensor
    names: tuple[str, ...]

    @classmethod
    def from_tokens(
        cls,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[Sequence[int]]],
        names: Sequence[str] | None = None,
    ) -> Completions:
        """Completions by token ids, the stop included: ``completions[x][i]`` continues
        ``prompts[x]``.

        :raises UserError: For no prompts, different numbers of completions, or a prompt or
            completion without tokens.
        """
        labels = tuple(map(str, range(len(prompts)))) if names is None else tuple(names)
        if not len(prompts) == len(completions) == len(labels):
            raise UserError(
                f"{len(prompts)} prompts, {len(completions)} lists of completions and "
                f"{len(labels)} names; give one of each for every prompt"
            )
        if not prompts:
            raise UserError("no prompts; give at least one")
        counts = {len(some) for some in completions}
        if len(counts) != 1 or 0 in counts:
            raise UserError(
                f"prompts have between {min(counts)} and {max(counts)} completions; "
                "give the same number for each, at least one"
            )
        numbers: dict[TokenizedPrompt, int] = {}
        places = []
        for label, prompt, some in zip(labels, prompts, completions, strict=True):
            prefix = tuple(map(int, prompt))
            if not prefix:
                raise UserError(f"prompt {label!r} has no tokens; a completion needs one before it")
            for number, ids in enumerate(some):
                sequence = TokenizedPrompt(prefix, tuple(map(int, ids)))
                if not sequence.target:
                    raise UserError(
                        f"completion {number} of prompt {label!r} has no tokens; "
                        "keep the stop token that ended it"
                    )
                places.append(numbers.setdefault(sequence, len(numbers)))
        return cls(tuple(numbers), torch.tensor(places).reshape(len(prompts), -1), labels)

    @classmethod
    def from_rollouts(cls, rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase) -> Completions:
        """The completions of a table of rollouts, in the order of its prompts and rewards."""
        names = rollouts.prompt_ids
        columns = ("prompt_id", "prompt", "completion_ids")
        texts: dict[str, str] = {}
        drawn: dict[str, list[list[int]]] = {name: [] for name in names}
        for name, text, ids in zip(*(rollouts.table[c].to_pylist() for c in columns), strict=True):
            texts[name] = text
            drawn[name].append(ids)
        prompts = [encode(tokenizer, texts[name]) for name in names]
        return cls.from_tokens(prompts, [drawn[name] for name in names], names)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, n)."""
        return self.places.shape[0], self.places.shape[1]

    @property
    def multiplicity(self) -> Tensor:
        """How many completions each sequence stands for: (S,)."""
        return torch.bincount(self.places.flatten(), minlength=len(self.sequences))

    def num_tokens(self, members: Iterable[int] | None = None) -> int:
        """Tokens that are read, were every sequence alone in a row."""
        some = range(len(self.sequences)) if members is None else members
        return sum(len(self.sequences[i].prefix) + len(self.sequences[i].target) - 1 for i in some)

    def spread(self, values: Tensor) -> Tensor:
        """(S,) values of the sequences as (M, n) values of the completions."""
        return values[self.places]

    def gather(self, coefficients: Tensor) -> Tensor:
        """(M, n) coefficients of the completions, summed over equal ones: (S,) float64."""
        if tuple(coefficients.shape) != self.shape:
            raise UserError(
                f"coefficients of shape {tuple(coefficients.shape)}; "
                f"give one for each completion, {self.shape}"
            )
        flat = coefficients.detach().to("cpu", torch.float64).flatten()
        return torch.zeros(len(self.sequences), dtype=torch.float64).index_add(
            0, self.places.flatten(), flat
        )

    def chosen(self, where: Tensor | None = None) -> list[int]:
        """The sequences of the completions where ``where``: (M, n) bool is True; all without it."""
        if where is None:
            return list(range(len(self.sequences)))
        where = torch.as_tensor(where)
        if tuple(where.shape) != self.shape or where.dtype != torch.bool:
            raise UserError(f"where must be {self.shape} of True and False, one for a completion")
        return self.places[where.cpu()].unique().tolist()

    def rows(
        self,
        members: Sequence[int] | None = None,
        *,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        packed: bool = True,
    ) -> list[Packed]:
        """Packed rows that hold these sequences once each; their ``members`` are places in
        ``sequences``.

        Only what is asked for is packed, so a pass over half of the completions costs half.

        :param packed: False gives each sequence a row of its own.
        """
        some = list(range(len(self.sequences))) if members is None else list(members)
        if not some:
            return []
        if not packed:
            rows = alone([self.sequences[i] for i in some])
        else:
            rows = pack([self.sequences[i] for i in some], token_budget=token_budget)
        return [replace(row, members=tuple(some[i] for i in row.members)) for row in rows]

    def sample(self, members: Sequence[int], num_tokens: int) -> list[int]:
        """Some of these sequences, about ``num_tokens`` tokens of them in packed rows: a few of
        each prompt, of prompts spread over the list. At least one sequence; always the same ones.
        """
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for i in members:
            by_prompt.setdefault(self.sequences[i].prefix, []).append(i)
        prefixes = list(by_prompt)
        # The golden section spreads any number of points evenly, in whatever number they come.
        order = sorted(range(len(prefixes)), key=lambda j: (j * 0.6180339887498949) % 1.0)
        taken: list[int] = []
        used = 0
        for j in order:
            used += len(prefixes[j])
            for i in by_prompt[prefixes[j]][:_PER_PROMPT]:
                used += len(self.sequences[i].target) - 1
                if taken and used > num_tokens:
                    return taken
                taken.append(i)
        return taken
