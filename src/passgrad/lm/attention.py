r"""Attention over a packed row: segments that do not see each other, each of them a common prefix
and, behind it, tails that do not see each other.

With S tokens of prefix and B tails of at most T tokens, a block mask over a segment costs
:math:`(S + BT)^2` products a head although most of them are masked, and one over a row of several
segments costs the square of their sum. Here the prefix attends to itself and each tail to the
prefix and to itself, :math:`S^2 + BT(S + T)` products a segment, and the rest of the model sees one
row without padding.

The function is registered with transformers under :data:`NAME`, so every model that takes its
attention from there can use it. What a model asks of its attention beyond that is done within each
sequence, by the distance of its own tokens: a mask (a sliding window, chunks) is made for the
positions of one sequence and read off for each of them, and so is a bias of positions. Sinks and
soft caps are those of the attention that the model runs: "sdpa" has neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the name in ``config._attn_implementation``
NAME = "passgrad_segments"


@dataclass(frozen=True, eq=False)
class Tails:
    """Where the tails of a segment stand, counted from its first token.

    ``prefix``: S. ``places``: (B, T) the tokens of each tail, its last one repeated up to the
    longest. ``order``: for each tail token of the segment, in its order, the place in the flattened
    (B, T).
    """

    prefix: int
    places: Tensor
    order: Tensor

    def to(self, device: torch.device) -> Tails:
        return Tails(self.prefix, self.places.to(device), self.order.to(device))


def tails_of(prefix: int, lengths: Sequence[int]) -> Tails | None:
    """The tails of these lengths, one behind the other after the prefix; None if all are empty."""
    size = torch.tensor([n for n in lengths if n])
    if not len(size):
        return None
    steps = torch.arange(int(size.max()))
    first = prefix + size.cumsum(0) - size
    places = first[:, None] + torch.minimum(steps, size[:, None] - 1)
    return Tails(prefix, places, (steps < size[:, None]).flatten().nonzero()[:, 0])


@dataclass(frozen=True, eq=False)
class Segment:
    """``length`` tokens of a row that see no others; without ``tails`` they are one sequence."""

    length: int
    tails: Tails | None = None

    def to(self, device: torch.device) -> Segment:
        return self if self.tails is None else Segment(self.length, self.tails.to(device))

    def visible(self) -> Tensor:
        """(length, length) bool, query sees key: the block mask that says the same."""
        causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        if self.tails is None:
            return causal
        places = self.tails.places
        tail = torch.full((self.length,), -1)
        tail[places] = torch.arange(len(places))[:, None]
        return causal & ((tail == -1) | (tail == tail[:, None]))


@dataclass(frozen=True, eq=False)
class _Row:
    """The segments of the row in the model, and whether its own attention has sinks and caps."""

    segments: tuple[Segment, ...]
    plain_softmax: bool

    @property
    def longest(self) -> int:
        """Positions of the longest sequence."""
        return max(
            one.length if one.tails is None else one.tails.prefix + one.tails.places.shape[1]
            for one in self.segments
        )


_row: ContextVar[_Row] = ContextVar("passgrad_row")


#: layers whose tokens meet in attention alone, as configurations call them
_ATTENTION = {
    "full_attention", "sliding_attention", "chunked_attention", "attention", "moe", "mlp",
    "dense", "sparse",
}  # fmt: skip


def carries_state(model: PreTrainedModel) -> bool:
    """Whether the model says that it has layers that go along a row: convolutions, state spaces,
    linear attention. Not all that have some say so (:mod:`passgrad.lm.packing` compares).
    """
    layers = getattr(model.config, "layer_types", None) or ()
    return bool(getattr(model, "_is_stateful", False)) or not set(layers) <= _ATTENTION


def supports(model: PreTrainedModel) -> bool:
    """Whether the model says that it takes its attention by name from transformers.

    What it computes then may still be wrong, for instance beside layers with a state:
    :mod:`passgrad.lm.packing` compares.
    """
    return bool(getattr(model, "_supports_attention_backend", False))


@contextmanager
def segmented(model: PreTrainedModel, segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, the model's forward pass is that of one row of these segments."""
    _register()
    before = model.config._attn_implementation
    token = _row.set(_Row(tuple(segments), before == "sdpa"))
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _row.reset(token)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)


def _mask(
    batch_size: int, q_length: int, kv_length: int, *, attention_mask: Any = None, **options: Any
) -> Tensor | None:
    """What one sequence may see of itself, (1, 1, n, n) bool for the longest of the row; None where
    it is all that came before. ``options`` are those of transformers' own mask.
    """
    from transformers.masking_utils import sdpa_mask

    if batch_size != 1 or q_length != kv_length:
        raise RuntimeError(f"a row of {q_length} tokens that sees {kv_length}")
    length = _row.get().longest
    mask: Tensor | None = sdpa_mask(1, length, length, attention_mask=None, **options)
    return mask


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """(1, heads, L, D) queries, keys and values to (1, L, heads, D)."""
    row = _row.get()
    if row.plain_softmax:
        softcap = s_aux = None
    rule = _Rule(_table(attention_mask, position_bias, row.longest), scaling, softcap, s_aux)
    cuts = [segment.length for segment in row.segments]
    parts = [
        _within(*one, rule)
        for one in zip(
            row.segments, query.split(cuts, 2), key.split(cuts, 2), value.split(cuts, 2),
            strict=True,
        )
    ]  # fmt: skip
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), None


def _table(mask: Tensor | None, bias: Tensor | None, length: int) -> Tensor | None:
    """Mask and bias by position of query and key, (1, 1 or heads, n or 1, n)."""
    for one in (mask, bias):
        if one is not None and one.shape[-1] < length:
            raise RuntimeError(f"a mask of {one.shape[-1]} keys for sequences of {length}")
    if bias is None:
        return mask
    bias = bias[..., :length]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=bias.device).tril()
    if mask.dtype != torch.bool:
        return bias + mask
    return torch.where(mask, bias, torch.finfo(bias.dtype).min)


@dataclass(frozen=True, eq=False)
class _Rule:
    """How scores become weights, but for what the row says.

    ``table``: as of :func:`_table`; None for all that came before.
    """

    table: Tensor | None
    scaling: float | None
    softcap: float | None
    sinks: Tensor | None

    def seen(self, first: int, last: int, device: torch.device) -> Tensor | None:
        """The table of the tokens at positions first to last - 1, which see all before them; None
        where ``is_causal`` says it.
        """
        if self.table is not None:
            rows = slice(None) if self.table.shape[-2] == 1 else slice(first, last)
            return self.table[..., rows, :last]
        if first == 0:
            return None
        return torch.ones(last - first, last, dtype=torch.bool, device=device).tril(first)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
        """(B, heads, T, D) of tokens from position ``first`` on, and all keys up to them."""
        seen = self.seen(first, first + query.shape[2], query.device)
        if self.softcap is None and self.sinks is None:
            return scaled_dot_product_attention(
                query, key, value, attn_mask=seen, is_causal=seen is None, scale=self.scaling,
                enable_gqa=True,
            )  # fmt: skip
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scale = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        scores = (query @ key.transpose(2, 3)) * scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if seen is None:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        least = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~seen, least) if seen.dtype == torch.bool else scores + seen
        if self.sinks is not None:
            sinks = self.sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sinks.to(scores)], dim=-1)
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=exact).to(value.dtype)
        return weights[..., : key.shape[2]] @ value


def _within(segment: Segment, query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:
    """The attention of one segment: (1, heads, L, D) to (1, L, heads, D)."""
    tails = segment.tails
    length = segment.length if tails is None else tails.prefix
    q, k, v = (x[:, :, :length] for x in (query, key, value))
    head = rule.attend(q, k, v, 0).transpose(1, 2)
    if tails is None:
        return head
    rows = len(tails.places)

    def behind(x: Tensor) -> Tensor:
        return x[0][:, tails.places].transpose(0, 1)

    def seen(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :length].expand(rows, -1, -1, -1), behind(x)], dim=2)

    # The repeated tokens stand behind all others of a tail, where no true token looks.
    tail = rule.attend(behind(query), seen(key), seen(value), length)
    tail = tail.transpose(1, 2).flatten(0, 1)[tails.order]
    return torch.cat([head[0], tail])[None]
