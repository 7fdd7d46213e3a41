"""What a model's files declare: the tokens that end an answer, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.lm.models.faults import CONFIG, read_json
from passgrad.lm.models.folders import base_of, is_adapter, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_GENERATION = "generation_config.json"
_MARK = "passgrad"


def model_ends(name: str | Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The end tokens that a model's files declare, all of them: that of the tokenizer, and the one
    or several ``eos_token_id`` of its ``config.json`` and its ``generation_config.json``. Of an
    adapter, those of its base too.

    Chat models often end a turn with another token than a text, and only one of these files has it.
    """
    return _declared(tokenizer, _settings(resolve(name)))


def loaded_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """:func:`model_ends` of a model that is loaded."""
    parts = (model.config, getattr(model, "generation_config", None))
    return _declared(tokenizer, (part.to_dict() for part in parts if part is not None))


def vocabulary_size(name: str | Path) -> int:
    """Rows of the model's embedding, as its configuration says; 0 where it does not. They may be
    more than the tokenizer has tokens.
    """
    place = resolve(name)
    if is_adapter(place):
        return vocabulary_size(base_of(place))
    config = read_json(Path(place, CONFIG))
    inner = config.get("text_config")
    said = {**config, **(inner if isinstance(inner, dict) else {})}.get("vocab_size")
    return said if isinstance(said, int) else 0


def closing_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token with which the chat template closes a turn of the model; None where there
    is none to be seen.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    except Exception:  # whatever a template raises about a chat that it was not written for
        return None
    behind = text.rpartition(_MARK)[2].lstrip()
    ids = list(tokenizer(behind, add_special_tokens=False)["input_ids"]) if behind else []
    return int(ids[0]) if ids and ids[0] in tokenizer.added_tokens_decoder else None


def _declared(
    tokenizer: PreTrainedTokenizerBase, settings: Iterator[Mapping[str, Any]]
) -> tuple[int, ...]:
    own = tokenizer.eos_token_id
    tokens = {} if own is None else {int(own): None}
    for one in settings:
        tokens |= dict.fromkeys(_listed(one))
    return tuple(tokens)


def _settings(place: str) -> Iterator[Mapping[str, Any]]:
    for file in (CONFIG, _GENERATION):
        if Path(place, file).is_file():
            yield read_json(Path(place, file))
    if is_adapter(place):
        yield from _settings(resolve(base_of(place)))


def _listed(settings: Mapping[str, Any]) -> Iterator[int]:
    """What a file says itself, and for the language model within a larger one."""
    for part in (settings, settings.get("text_config")):
        said = part.get("eos_token_id") if isinstance(part, Mapping) else None
        for token in said if isinstance(said, list) else [said]:
            if isinstance(token, int) and not isinstance(token, bool) and token >= 0:
                yield token
