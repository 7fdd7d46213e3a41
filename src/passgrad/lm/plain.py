"""Attention in plain operations, for what the fused kernels cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it, attention has a forward derivative: the fused kernels have none.

    A model that takes neither "sdpa" nor "eager" attention runs "eager" for the while.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = model.config._attn_implementation
    if before not in ("sdpa", "eager"):
        model.set_attn_implementation("eager")
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)
