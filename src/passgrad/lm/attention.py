r"""Attention over a packed row: segments that do not see each other, each of them a common prefix
and, behind it, tails that do not see each other.

With S tokens of prefix and B tails of at most T tokens, a block mask over a segment costs
:math:`(S + BT)^2` products a head although most of them are masked, and one over a row of several
segments costs the square of their sum. Here the prefix attends to itself and each tail to the
prefix and to itself, :math:`S^2 + BT(S + T)` products a segment, and the rest of the model sees one
row without padding.

The function is registered with transformers under :data:`NAME`, so every model that takes its
attention from there can use it.
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


_segments: ContextVar[tuple[Segment, ...]] = ContextVar("passgrad_segments")


def supports(model: PreTrainedModel) -> bool:
    """Whether the model takes its attention by name from transformers, as plain softmax attention.

    A model that runs "eager" may have reasons (soft caps, sinks) that this module does not know.
    """
    return bool(
        getattr(model, "_supports_attention_backend", False)
        and model.config._attn_implementation == "sdpa"
    )


@contextmanager
def segmented(model: PreTrainedModel, segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, the model's forward pass is that of one row of these segments."""
    _register()
    before = model.config._attn_implementation
    token = _segments.set(tuple(segments))
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
    # No mask is made for the row: what may be seen follows from the segments.
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
    segments = _segments.get()
    cuts = [segment.length for segment in segments]
    parts = [
        _within(*one, scaling)
        for one in zip(
            segments, query.split(cuts, 2), key.split(cuts, 2), value.split(cuts, 2), strict=True
        )
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), None


def _within(
    segment: Segment, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """The attention of one segment: (1, heads, L, D) to (1, L, heads, D)."""
    tails = segment.tails
    length = segment.length if tails is None else tails.prefix
    q, k, v = (x[:, :, :length] for x in (query, key, value))
    head = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    head = head.transpose(1, 2)
    if tails is None:
        return head
    rows, longest = tails.places.shape

    def behind(x: Tensor) -> Tensor:
        return x[0][:, tails.places].transpose(0, 1)

    def seen(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :length].expand(rows, -1, -1, -1), behind(x)], dim=2)

    # The repeated tokens stand behind all others of a tail, where no true token looks.
    visible = query.new_ones(longest, length + longest, dtype=torch.bool).tril(length)
    tail = scaled_dot_product_attention(
        behind(query), seen(key), seen(value),
        attn_mask=visible, scale=scaling, enable_gqa=True,
    )  # fmt: skip
    tail = tail.transpose(1, 2).flatten(0, 1)[tails.order]
    return torch.cat([head[0], tail])[None]
