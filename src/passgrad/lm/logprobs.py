r"""Log-probabilities of target tokens, :math:`\log \pi_\theta(\text{target} \mid \text{prefix})`,
for many sequences at once.

Sequences that begin alike are packed into one row: the common prefix stands once, the tails follow
each other, and a tail sees the prefix and itself only (:mod:`passgrad.lm.attention`; a block mask
where a model cannot use that). Position ids restart behind the prefix in each tail. The values are
those of one sequence at a time; the prefix is computed (and differentiated) once instead of once a
sequence, and logits exist only where a target token is predicted.

A backward pass writes a gradient as large as the model whatever the number of tokens, so rows that
leave half of the token budget empty pay it twice as often: :func:`join` puts rows with different
prefixes one behind the other, as segments that do not see each other.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.attention import Segment, carries_state, segmented, supports, tails_of
from passgrad.lm.directional import padding_counts
from passgrad.lm.tokens import TokenizedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Longer rows share a prefix among more sequences and hold more activations: at 1,024 tokens a
# gradient of SmolLM2-135M takes about 1.5 GB of them, and a prefix of 100 tokens is a tenth.
DEFAULT_TOKEN_BUDGET = 1024


@dataclass(frozen=True, eq=False)
class Packed:
    """One row of tokens holding several sequences.

    ``input_ids``, ``position_ids``: (1, L). ``segments``: what sees each other, one behind the
    other; L tokens in all. Sequences of one segment have a common prefix.
    ``predictors``: (T,) positions whose logits predict the target tokens ``targets`` (T,), which
    belong to sequence ``owners`` (T,), an index into ``members``. ``members``: places of the
    sequences in the caller's list.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    predictors: Tensor
    targets: Tensor
    owners: Tensor
    members: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    @property
    def is_plain(self) -> bool:
        """Whether the row is one sequence, which every causal LM masks by itself."""
        return len(self.segments) == 1 and self.segments[0].tails is None

    def visible(self) -> Tensor:
        """(L, L) bool, query sees key: the block mask that says the same as ``segments``."""
        return torch.block_diag(*(segment.visible() for segment in self.segments))


def pack(
    prompts: Sequence[TokenizedPrompt], *, token_budget: int = DEFAULT_TOKEN_BUDGET
) -> list[Packed]:
    """Rows of at most ``token_budget`` tokens (a single longer sequence gets a row of its own).

    Sequences are grouped by their prefix up to the last common token of a group; see
    :func:`share_prefixes`.

    :raises UserError: If ``prompts`` is empty or the budget is not positive.
    """
    if not prompts:
        raise UserError("no prompts to score; give at least one")
    if token_budget < 1:
        raise UserError(f"token_budget is {token_budget}; give a positive number of tokens a row")
    rows = []
    for shared, members in share_prefixes(prompts):
        room: list[int] = []
        used = shared
        for member in members:
            tail = len(prompts[member].prefix) - shared + len(prompts[member].target) - 1
            if room and used + tail > token_budget:
                rows.append(_pack_row(prompts, room, shared))
                room, used = [], shared
            room.append(member)
            used += tail
        rows.append(_pack_row(prompts, room, shared))
    return rows


def alone(prompts: Sequence[TokenizedPrompt]) -> list[Packed]:
    """A row for each sequence, in their order."""
    return [replace(pack([one])[0], members=(place,)) for place, one in enumerate(prompts)]


def share_prefixes(prompts: Sequence[TokenizedPrompt]) -> list[tuple[int, list[int]]]:
    """Partition into groups with a long common prefix: (its length in tokens, places of the
    members).

    In sorted order neighbours share most. A prompt joins the running group when at least half of
    its prefix is the group's, and when that saves no fewer tokens than the others lose by the
    shorter common prefix.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].prefix)
    groups: list[tuple[int, list[int]]] = []
    for i in order:
        prefix = prompts[i].prefix
        if groups:
            shared, members = groups[-1]
            common = _common_length(prompts[members[-1]].prefix, prefix, limit=shared)
            if 2 * common >= len(prefix) and common >= (shared - common) * (len(members) - 1):
                groups[-1] = (common, [*members, i])
                continue
        groups.append((len(prefix), [i]))
    return groups


def _common_length(a: Sequence[int], b: Sequence[int], *, limit: int) -> int:
    n = min(len(a), len(b), limit)
    return next((i for i in range(n) if a[i] != b[i]), n)


def _pack_row(prompts: Sequence[TokenizedPrompt], members: Sequence[int], shared: int) -> Packed:
    ids = list(prompts[members[0]].prefix[:shared])
    positions = list(range(shared))
    lengths: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, member in enumerate(members):
        prompt = prompts[member]
        # The last target token is predicted but never read, so it is left out of the row.
        tail = prompt.prefix[shared:] + prompt.target[:-1]
        first = len(ids) + len(prompt.prefix) - shared - 1
        # Without question tokens of its own, a sequence's first target is predicted by the last
        # shared token.
        where = [first if len(prompt.prefix) > shared else shared - 1]
        where += range(first + 1, first + len(prompt.target))
        predictors += where
        targets += prompt.target
        owners += [owner] * len(prompt.target)
        ids += tail
        positions += range(shared, shared + len(tail))
        lengths.append(len(tail))
    return Packed(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        segments=(Segment(len(ids), tails_of(shared, lengths) if len(members) > 1 else None),),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        owners=torch.tensor(owners),
        members=tuple(members),
    )


def join(model: PreTrainedModel, rows: Sequence[Packed], token_budget: int) -> list[Packed]:
    """Rows one behind the other while they fit into the budget; unchanged where the model's
    attention cannot be replaced, since a block mask costs the square of a row; one for each
    sequence where the model carries a state along a row.
    """
    if carries_state(model):
        return [one for row in rows for one in _taken_apart(row)]
    if not supports(model):
        return list(rows)
    groups: list[list[Packed]] = []
    used = 0
    for row in rows:
        if groups and used + row.num_tokens <= token_budget:
            groups[-1].append(row)
            used += row.num_tokens
        else:
            groups.append([row])
            used = row.num_tokens
    return [joined(group) for group in groups]


def joined(rows: Sequence[Packed]) -> Packed:
    """These rows as the segments of one."""
    if len(rows) == 1:
        return rows[0]
    first = list(accumulate((row.num_tokens for row in rows), initial=0))
    owner = list(accumulate((len(row.members) for row in rows), initial=0))
    return Packed(
        input_ids=torch.cat([row.input_ids for row in rows], dim=1),
        position_ids=torch.cat([row.position_ids for row in rows], dim=1),
        segments=tuple(segment for row in rows for segment in row.segments),
        predictors=torch.cat([row.predictors + n for row, n in zip(rows, first, strict=False)]),
        targets=torch.cat([row.targets for row in rows]),
        owners=torch.cat([row.owners + n for row, n in zip(rows, owner, strict=False)]),
        members=tuple(member for row in rows for member in row.members),
    )


def _taken_apart(row: Packed) -> list[Packed]:
    """A row for each of its sequences."""
    if row.is_plain:
        return [row]
    ids = row.input_ids[0].tolist()
    starts = list(accumulate((segment.length for segment in row.segments), initial=0))
    made = []
    for owner, member in enumerate(row.members):
        mine = row.owners == owner
        last = int(row.predictors[mine][0])
        number = bisect_right(starts, last) - 1
        start, tails = starts[number], row.segments[number].tails
        before = ids[start : last + 1]
        if tails is not None and last - start >= tails.prefix:
            [tail] = (tails.places == last - start).any(1).nonzero()[:, 0].tolist()
            first = int(tails.places[tail, 0])
            before = before[: tails.prefix] + before[first:]
        sequence = TokenizedPrompt(tuple(before), tuple(row.targets[mine].tolist()))
        made.append(replace(pack([sequence])[0], members=(member,)))
    return made


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query may look, the dtype's most negative number elsewhere (finite, so that
    gradients stay finite).
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )


def packed_logprobs(
    model: PreTrainedModel, row: Packed, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Log-probability of each member's target given its prefix: (number of members,),
    differentiable in ``parameters``, the embedding of the padding token included.

    :param parameters: Named tensors to use in place of the model's own (tied weights follow their
        owner).
    """
    device = model.device
    inputs: dict[str, Any] = {"input_ids": row.input_ids.to(device), "use_cache": False}
    attention: AbstractContextManager[None] = nullcontext()
    if not row.is_plain:
        inputs["position_ids"] = row.position_ids.to(device)
        if supports(model):
            attention = segmented(model, [segment.to(device) for segment in row.segments])
            # Without it, position ids that begin anew would cut the row once more.
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        else:
            inputs["attention_mask"] = additive_mask(
                row.visible().to(device)[None, None], model.dtype
            )
    predictors = row.predictors.to(device)
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    # Of a plain row all tokens from the first that is needed on are a number, which every model
    # takes; several sequences may need the same one.
    last = row.num_tokens - int(row.predictors.min())
    if selects:
        inputs["logits_to_keep"] = last if row.is_plain else predictors
    with attention, padding_counts(model):
        if parameters is None:
            logits = model(**inputs).logits[0]
        else:
            logits = torch.func.functional_call(model, dict(parameters), (), inputs).logits[0]
    if row.is_plain:
        logits = logits[-last:][predictors - (row.num_tokens - last)]
    elif not selects:
        logits = logits[predictors]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.log_softmax(-1).gather(-1, row.targets.to(device)[:, None])[:, 0]
    totals = torch.zeros(len(row.members), dtype=chosen.dtype, device=device)
    return totals.index_add(0, row.owners.to(device), chosen)
