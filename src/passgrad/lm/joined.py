r"""Packed rows with different prefixes, one behind the other in one forward pass.

A backward pass writes a gradient as large as the model whatever the number of tokens, so rows that
leave half of the token budget empty pay it twice as often. Here they share a pass: each row attends
to itself only, by :mod:`passgrad.lm.attention`, and everything else sees one long row.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from passgrad.lm import attention
from passgrad.lm.attention import Tails, supports
from passgrad.lm.logprobs import Packed, packed_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the name in ``config._attn_implementation``
NAME: Final = "passgrad_joined_rows"


@dataclass(frozen=True, eq=False)
class Joined:
    """Packed rows that are computed together."""

    rows: tuple[Packed, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """Those of the rows, one after the other."""
        return tuple(member for row in self.rows for member in row.members)

    @property
    def num_tokens(self) -> int:
        return sum(row.num_tokens for row in self.rows)


def join(model: PreTrainedModel, rows: Sequence[Packed], token_budget: int) -> list[Joined]:
    """Rows together while they fit into the budget; each alone where the model's attention cannot
    be replaced.
    """
    groups: list[list[Packed]] = []
    joins, used = supports(model), 0
    for row in rows:
        if joins and groups and used + row.num_tokens <= token_budget:
            groups[-1].append(row)
            used += row.num_tokens
        else:
            groups.append([row])
            used = row.num_tokens
    return [Joined(tuple(group)) for group in groups]


def joined_logprobs(
    model: PreTrainedModel, joined: Joined, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """:func:`passgrad.lm.logprobs.packed_logprobs` of all rows: a value for each of ``members``."""
    rows = joined.rows
    if len(rows) == 1:
        return packed_logprobs(model, rows[0], parameters)
    starts, first = [], 0
    for row in rows:
        starts.append(first)
        first += row.num_tokens
    device = model.device
    predictors = torch.cat(
        [row.predictors + start for row, start in zip(rows, starts, strict=True)]
    ).to(device)
    counts = torch.tensor([0, *(len(row.members) for row in rows)]).cumsum(0)
    owners = torch.cat([row.owners + count for row, count in zip(rows, counts[:-1], strict=True)])
    inputs: dict[str, Any] = {
        "input_ids": torch.cat([row.input_ids for row in rows], dim=1).to(device),
        "position_ids": torch.cat([row.position_ids for row in rows], dim=1).to(device),
        "use_cache": False,
    }
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    if selects:
        inputs["logits_to_keep"] = predictors
    segments = tuple(
        (start, start + row.num_tokens, None if row.tails is None else row.tails.to(device))
        for row, start in zip(rows, starts, strict=True)
    )
    with _apart(model, segments):
        if parameters is None:
            logits = model(**inputs).logits[0]
        else:
            logits = torch.func.functional_call(model, dict(parameters), (), inputs).logits[0]
    if not selects:
        logits = logits[predictors]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = torch.cat([row.targets for row in rows]).to(device)
    chosen = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    totals = torch.zeros(int(counts[-1]), dtype=chosen.dtype, device=device)
    return totals.index_add(0, owners.to(device), chosen)


Segments = tuple[tuple[int, int, Tails | None], ...]
_segments: ContextVar[Segments] = ContextVar("passgrad_segments")


@contextmanager
def _apart(model: PreTrainedModel, segments: Segments) -> Iterator[None]:
    """Within it, the model's forward pass is that of rows which do not see each other."""
    _register()
    before = model.config._attn_implementation
    token = _segments.set(segments)
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _segments.reset(token)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """(1, heads, L, D) queries, keys and values to (1, L, heads, D)."""
    parts = []
    for start, end, tails in _segments.get():
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        if tails is None:
            alone = scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scaling, enable_gqa=True
            )
            parts.append(alone.transpose(1, 2))
            continue
        token = attention._tails.set(tails)
        try:
            parts.append(attention._attention(module, q, k, v, None, scaling)[0])
        finally:
            attention._tails.reset(token)
    return torch.cat(parts, dim=1), None
