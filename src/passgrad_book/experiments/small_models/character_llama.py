"""A llama from scratch with one token a character: what the small language worlds are built on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def character_tokenizer(characters: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a character, in the order given, behind the token 0 that ends a text."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    words = ["<end>", *characters]
    backend = Tokenizer(BPE({word: place for place, word in enumerate(words)}, []))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def character_llama(
    num_tokens: int,
    *,
    hidden_size: int,
    intermediate_size: int,
    num_heads: int,
    num_layers: int,
    positions: int,
    spread: float,
    seed: int,
) -> PreTrainedModel:
    """Weights drawn with standard deviation ``spread`` from ``seed``; the global generator is left
    as it is. Embeddings are tied, in float32.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=hidden_size // num_heads,
        max_position_embeddings=positions,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    return model  # type: ignore[no-any-return]


def norms_in_double(model: PreTrainedModel) -> PreTrainedModel:
    """A llama in float64 throughout, in place: transformers takes its norms in float32 whatever the
    dtype of the model, so they are replaced by those of torch, with the same weights.
    """
    stack: Any = model.double().model  # type: ignore[operator]
    for block in (stack, *stack.layers):
        for part, norm in list(block.named_children()):
            if part.endswith("norm"):
                exact = torch.nn.RMSNorm(
                    norm.weight.numel(), eps=norm.variance_epsilon, dtype=torch.float64
                )
                exact.weight = norm.weight
                setattr(block, part, exact)
    return model
