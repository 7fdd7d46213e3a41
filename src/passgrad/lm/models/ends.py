"""What ends a model's answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.lm.models.embedded import MODELS
from passgrad.lm.models.faults import CONFIG, read_json
from passgrad.lm.models.folders import base_of, is_adapter, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION = "generation_config.json"


def model_ends(name: str | Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The end tokens that a model's files declare, all of them: that of the tokenizer, and the one
    or several ``eos_token_id`` of its ``config.json`` and its ``generation_config.json``. Of an
    adapter, those of its base too.

    Chat models often end a turn with another token than a text, and only one of these files has it.
    """
    declared: dict[int, None] = {}
    if tokenizer.eos_token_id is not None:
        declared[int(tokenizer.eos_token_id)] = None
    for folder in _folders(name):
        for file in (CONFIG, _GENERATION):
            if (folder / file).is_file():
                declared |= dict.fromkeys(_listed(read_json(folder / file)))
    return tuple(declared)


def _folders(name: str | Path) -> Iterator[Path]:
    place = resolve(name) if str(name) in MODELS or not Path(name).is_dir() else str(name)
    yield Path(place)
    if is_adapter(place):
        yield from _folders(base_of(place))


def _listed(settings: dict[str, Any]) -> Iterator[int]:
    """What a file says itself, and for the language model within a larger one."""
    for part in (settings, settings.get("text_config")):
        said = part.get("eos_token_id") if isinstance(part, dict) else None
        for token in said if isinstance(said, list) else [said]:
            if isinstance(token, int) and not isinstance(token, bool) and token >= 0:
                yield token
