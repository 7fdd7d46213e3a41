r"""Whether a model may be scored in packed rows: measured, not taken from a list of architectures.

Layers with a state (convolutions, state spaces, linear attention) carry one sequence of a row into
the next, some attentions count distances along the row, and some models ignore a mask. Few of them
say so: the log-probabilities are those of another model. So before anything rests on packed rows,
some are compared with plain passes, one sequence each: the fullest rows as they will be used, and
the longest sequence behind another prompt and beside another answer, because a sliding window
shows in nothing shorter than itself. Where they differ by more than rounding, every sequence gets
a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from passgrad.errors import UserError
from passgrad.lm.attention import carries_state
from passgrad.lm.logprobs import Packed, joined, pack, packed_logprobs
from passgrad.lm.tokens import TokenizedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Packs = Literal["auto"] | bool

#: nats over the square root of the tokens of a completion: what two orders of the same sums may
#: differ by. SmolLM2-135M has up to 2e-5 in float32 and 0.15 in bfloat16.
ROUNDING: Final = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 0.1}
_COARSE: Final = 0.5
# Members of each row that are compared.
_EACH = 3


@dataclass(frozen=True)
class Packing:
    """How sequences are laid out, and what speaks for it.

    ``packed``: whether rows hold several sequences. ``gap``: the largest difference between a
    packed log-probability and that of a plain pass, in nats, over ``compared`` sequences; nan where
    the model took no such row, 0 without any to compare. ``reason``: why rows are not packed, a
    half sentence; empty where they are.
    """

    packed: bool
    gap: float = 0.0
    compared: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if not self.packed:
            return f"one sequence a row, because {self.reason}"
        if not self.compared:
            return "packed rows, of which none holds two sequences"
        return (
            f"packed rows, at most {self.gap:.1e} nats from plain passes over {self.compared} "
            "sequences"
        )

    def record(self) -> dict[str, Any]:
        """For a file: a difference that is not known is None."""
        return asdict(self) | {"gap": self.gap if self.gap == self.gap else None}


def choose_packing(
    model: PreTrainedModel,
    sequences: Sequence[TokenizedPrompt],
    rows: Sequence[Packed],
    wanted: Packs = "auto",
) -> Packing:
    """Packed rows where they give what plain passes give.

    :param rows: Packed rows of these sequences; their ``members`` are places in ``sequences``.
    :param wanted: "auto" decides; True insists; False never packs.
    :raises UserError: If True cannot be had.
    """
    if wanted is False:
        return Packing(False, reason="it was asked for")
    packing = (
        Packing(False, reason=f"{type(model).__name__} has layers that go along a row")
        if carries_state(model)
        else _compare(model, sequences, rows)
    )
    if wanted is True and not packing.packed:
        raise UserError(f"rows cannot be packed: {packing.reason}; leave packed at 'auto'")
    return packing


def rounding(model: torch.nn.Module, tokens: int) -> float:
    """What two ways to compute a log-probability of so many tokens may differ by, in nats."""
    coarsest = min(
        (p.dtype for p in model.parameters() if p.is_floating_point()), key=lambda d: d.itemsize
    )
    return ROUNDING.get(coarsest, _COARSE) * max(tokens, 1) ** 0.5


@torch.no_grad()
def _compare(
    model: PreTrainedModel, sequences: Sequence[TokenizedPrompt], rows: Sequence[Packed]
) -> Packing:
    name = type(model).__name__
    plain: dict[int, float] = {}
    gap = 0.0
    for row in _witnesses(sequences, rows):
        try:
            values = packed_logprobs(model, row).tolist()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a model makes of what it does not know
            if "memory" in str(error).lower():
                raise
            what = " ".join(str(error).split())[:120] or type(error).__name__
            return Packing(False, float("nan"), 0, f"{name} does not take packed rows ({what})")
        for place in _chosen(sequences, row):
            member = row.members[place]
            if member not in plain:
                plain[member] = float(packed_logprobs(model, pack([sequences[member]])[0])[0])
            away = abs(values[place] - plain[member])
            if not away <= rounding(model, len(sequences[member].target)):
                return Packing(
                    False, away, len(plain),
                    f"{name} gives log p = {values[place]:.4f} packed and "
                    f"{plain[member]:.4f} alone",
                )  # fmt: skip
            gap = max(gap, away)
    return Packing(True, gap, len(plain))


def _chosen(sequences: Sequence[TokenizedPrompt], row: Packed) -> list[int]:
    """Places in a row: its longest member, the last one, which could see most that it must not, and
    those between.
    """
    places = range(len(row.members))
    longest = max(places, key=lambda i: _length(sequences[row.members[i]]))
    spread = [places[-1], *places[1 :: max(1, len(places) // _EACH)]]
    return list(dict.fromkeys([longest, *spread]))[: _EACH + 1]


def _witnesses(sequences: Sequence[TokenizedPrompt], rows: Sequence[Packed]) -> list[Packed]:
    """Rows in which a mistake of packing shows; none where no row holds two sequences."""
    shared = [row for row in rows if len(row.members) > 1]
    if not shared:
        return []
    fullest = [
        max(shared, key=lambda row: row.num_tokens),
        max(shared, key=lambda row: len(row.members)),
        max(shared, key=lambda row: len(row.segments)),
    ]
    members = [member for row in rows for member in row.members]
    longest = max(members, key=lambda i: _length(sequences[i]))
    first = min(members, key=lambda i: _length(sequences[i]))
    prefix = sequences[longest].prefix
    beside = min(
        (i for i in members if sequences[i].prefix == prefix and i != longest),
        key=lambda i: len(sequences[i].target),
        default=longest,
    )
    made = [[first], list(dict.fromkeys([beside, longest]))]
    if first in made[1]:
        made = made[1:]
    whole = joined([_row(sequences, some) for some in made])
    unique = {id(row): row for row in (*fullest, whole)}
    return [row for row in unique.values() if len(row.members) > 1]


def _row(sequences: Sequence[TokenizedPrompt], members: Sequence[int]) -> Packed:
    """These sequences, which begin alike, in one row, in this order."""
    [row] = pack([sequences[i] for i in members], token_budget=2**62)
    return replace(row, members=tuple(members[i] for i in row.members))


def _length(sequence: TokenizedPrompt) -> int:
    return len(sequence.prefix) + len(sequence.target)
