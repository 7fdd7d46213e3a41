"""What derivatives of a language model need of it: operations with a forward derivative, and
embeddings whose derivative is that of every token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def forward_mode(
    function: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    tangents: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    r"""The value of ``function`` and :math:`\langle \nabla_\theta f_i, v \rangle` for each of its
    entries.

    One forward pass gives the derivative of every sequence along the same direction, whatever their
    number. It needs operations with a forward derivative, which the fused attention kernels lack.
    Tied weights are right because ``parameters`` names each matrix once.
    """
    with torch.no_grad():
        output = torch.func.jvp(function, (dict(parameters),), (dict(tangents),))
    return output[0], output[1]


def no_forward_mode(model: nn.Module, error: Exception) -> str:
    """Half a sentence: what an operation without a forward derivative raised.

    A lack of memory is no such reason, and is raised again.
    """
    if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error).lower():
        raise error
    what = " ".join(str(error).split())[:120]
    return f"{type(model).__name__} has no derivative in forward mode ({what})"


def has_experts(model: nn.Module) -> bool:
    """Whether tokens are sent to some of several experts, as far as names of parameters say so.

    Differences then have jumps in them wherever a step changes where a token is sent.
    """
    return any(re.search("expert|router|moe", name.lower()) for name, _ in model.named_parameters())


@contextmanager
def plain_operations(model: PreTrainedModel) -> Iterator[None]:
    """Within it, attention and experts have a forward derivative: their fused kernels have none.

    A model that takes neither "sdpa" nor "eager" attention runs "eager" for the while, and so do
    the experts of a mixture.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    config: Any = model.config
    attention = config._attn_implementation
    experts = getattr(config, "_experts_implementation", None)
    if attention not in ("sdpa", "eager"):
        model.set_attn_implementation("eager")
    if experts is not None:
        config._experts_implementation = "eager"
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        if experts is not None:
            config._experts_implementation = experts


@contextmanager
def padding_counts(model: nn.Module) -> Iterator[None]:
    """Within it, a forward pass records the derivative in the embedding of every token.

    An embedding with a ``padding_idx`` leaves that row out of backward passes, though not out of
    forward mode or differences. Log-probabilities depend on the row wherever the token is read, as
    where a model pads with the token that ends a turn: a gradient without it is not the gradient.
    Whether a trainer moves the row is another matter, and stays as the model has it.
    """
    embeddings = [
        (module, module.padding_idx)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]
    for embedding, _ in embeddings:
        embedding.padding_idx = None
    try:
        yield
    finally:
        for embedding, padding in embeddings:
            embedding.padding_idx = padding
