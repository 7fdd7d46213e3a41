r"""Attention over a packed row: a common prefix and, behind it, tails that do not see each other.

With S tokens of prefix and B tails of at most T tokens, a block mask over the whole row costs
:math:`(S + BT)^2` products a head although most of them are masked. Here the prefix attends to
itself and each tail to the prefix and to itself, :math:`S^2 + BT(S + T)` products, and the rest of
the model sees one row without padding.

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
NAME = "passgrad_shared_prefix"


@dataclass(frozen=True, eq=False)
class Tails:
    """Where the tails of a packed row stand.

    ``prefix``: S. ``places``: (B, T) the tokens of each tail, its last one repeated up to the
    longest. ``order``: for each tail token of the row, in its order, the place in the flattened
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


_tails: ContextVar[Tails] = ContextVar("passgrad_tails")


def supports(model: PreTrainedModel) -> bool:
    """Whether the model takes its attention by name from transformers, as plain softmax attention.

    A model that runs "eager" may have reasons (soft caps, sinks) that this module does not know.
    """
    return bool(
        getattr(model, "_supports_attention_backend", False)
        and model.config._attn_implementation == "sdpa"
    )


@contextmanager
def shared_prefix(model: PreTrainedModel, tails: Tails) -> Iterator[None]:
    """Within it, the model's forward pass is that of one packed row with these tails."""
    _register()
    before = model.config._attn_implementation
    token = _tails.set(tails)
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _tails.reset(token)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    # No mask is made for the row: what may be seen follows from the tails.
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
    tails = _tails.get()
    length, (rows, longest) = tails.prefix, tails.places.shape
    q, k, v = (x[:, :, :length] for x in (query, key, value))
    head = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)

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
    return torch.cat([head[0].transpose(0, 1), tail])[None], None
