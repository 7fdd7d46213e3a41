"""Causal language models by name: the embedded one, a hub name, a local folder, or the folder of a
LoRA adapter on top of one of these.

Weights are only ever read from safetensors or GGUF, and no code that comes with a model is
executed.
"""

from passgrad.lm.models.embedded import (
    CACHE_VARIABLE,
    MODELS,
    EmbeddedModel,
    Part,
    cache_dir,
    check,
    fetch,
    folder,
    is_fetched,
)
from passgrad.lm.models.ends import closing_token, loaded_ends, model_ends, vocabulary_size
from passgrad.lm.models.folders import (
    adapter_doubts,
    base_of,
    has_tokenizer,
    is_adapter,
    resolve,
    weights_sha256,
)
from passgrad.lm.models.loading import load_model, load_tokenizer, save_merged, save_model

__all__ = [
    "CACHE_VARIABLE",
    "MODELS",
    "EmbeddedModel",
    "Part",
    "adapter_doubts",
    "base_of",
    "cache_dir",
    "check",
    "closing_token",
    "fetch",
    "folder",
    "has_tokenizer",
    "is_adapter",
    "is_fetched",
    "load_model",
    "load_tokenizer",
    "loaded_ends",
    "model_ends",
    "resolve",
    "save_merged",
    "save_model",
    "vocabulary_size",
    "weights_sha256",
]
