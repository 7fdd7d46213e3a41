"""What is wrong with the files of a model, found before anything is loaded: one line with the file
and what to do about it.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from passgrad.errors import UserError

#: the file that says what a whole model is
CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")

# How tensors end that hold packed weights.
_PACKED = ("weight", "qweight", "weight_packed", "_blocks")

# What git leaves in place of a large file: of git-lfs and of git-annex.
_POINTERS = (b"version https://git-lfs", b"/annex/objects/", b"../.git/annex/")


def one_line(error: object, width: int = 160) -> str:
    """What an error says, cut where a word ends."""
    text = " ".join(str(error).split())
    return textwrap.shorten(text, width, placeholder=" [...]").rstrip(".") or type(error).__name__


def check_pointers(place: Path) -> None:
    """Refuse a folder in which git has left pointers instead of files.

    :raises UserError: Naming the first.
    """
    for file in sorted(place.glob("*")):
        if not file.is_file() or file.suffix not in (".safetensors", ".json", ".model", ".txt"):
            continue
        with file.open("rb") as stream:
            if stream.read(64).startswith(_POINTERS):
                raise UserError(
                    f"{file} is a pointer that git left in place of the file; "
                    f"run `git lfs pull` in {place}, or download the file again"
                )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file.

    :raises UserError: For a file that is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({one_line(error, 80)}); save the model again, or download "
            "the file again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no object; save the model again")
    return content


def check_config(place: Path) -> None:
    """Refuse what the configuration of a model says that cannot be measured.

    :raises UserError: For quantised weights, an architecture that transformers does not have,
        code of the model's own, and a model that is no causal language model.
    """
    config = read_json(place / CONFIG)
    quantised = config.get("quantization_config") or config.get("quantization")  # of MLX
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise _quantised(place, method or "by an unknown method")
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise UserError(
            f"{place / CONFIG} names no model_type; give the folder that save_pretrained wrote"
        )
    _check_kind(place, kind, config.get("auto_map"))


def _check_kind(place: Path, kind: str, own_code: Any) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if own_code:
        raise UserError(
            f"the model in {place} ({kind}) brings code of its own (auto_map), which is never "
            "executed here; give a model whose architecture is part of transformers"
        )
    if kind in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"the model in {place} ({kind}) is no causal language model; give one that generates "
            "text from left to right"
        )
    raise UserError(
        f"the model in {place} is a {kind!r}, which transformers {transformers.__version__} does "
        "not know; upgrade transformers, or give a model of another architecture"
    )


def has_weights(place: Path) -> bool:
    """Whether a folder holds the weights of a whole model, in any form."""
    return any(_weights(place)) or any(
        file for pattern in _PICKLES for file in place.glob(pattern) if "adapter" not in file.name
    )


def _weights(place: Path) -> list[Path]:
    files = [file for file in place.glob("*.safetensors") if not file.name.startswith("adapter_")]
    return sorted([*files, *place.glob(_INDEX)])


def check_weights(place: Path) -> None:
    """Refuse a model whose safetensors files are not all there and whole.

    :raises UserError: For a file that is missing, cut off or something else, and for weights in
        another format only.
    """
    names = {file.name for file in _weights(place)}
    if not names:
        raise _no_weights(place)
    index = place / _INDEX
    if index.is_file() and "model.safetensors" not in names:
        wanted = read_json(index).get("weight_map")
        shards = set(wanted.values()) if isinstance(wanted, dict) else set()
        missing = sorted(str(shard) for shard in shards if not (place / str(shard)).is_file())
        if missing or not shards:
            raise UserError(
                f"{place} lacks {', '.join(missing[:3]) or 'weights'}"
                f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}, which {_INDEX} "
                "names; copy or download all parts"
            )
        names = {str(shard) for shard in shards}
    for name in sorted(names - {_INDEX}):
        check_safetensors(place / name)


def _quantised(place: Path, how: str) -> UserError:
    return UserError(
        f"the weights in {place} are quantised ({how}), and gradients need them whole; measure "
        "the model that they were made from, or a copy of it in bfloat16 or float32"
    )


def check_safetensors(file: Path) -> None:
    """Refuse a file that is no whole safetensors file, and one with quantised tensors, which a
    configuration may forget to mention.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{file} is no whole safetensors file ({one_line(error, 100)}); copy or download it "
            "again"
        ) from error
    for name, kind in kinds.items():
        packed = kind in ("U8", "I8", "I32", "U32") and name.endswith(_PACKED)
        if packed or kind.startswith(("F8", "F6", "F4")):
            raise _quantised(file.parent, f"{name} is {kind}")


def _no_weights(place: Path) -> UserError:
    pickles = sorted(file.name for pattern in _PICKLES for file in place.glob(pattern))
    ggufs = sorted(file.name for file in place.glob("*.gguf"))
    if pickles:
        return UserError(
            f"the weights in {place} are pickled ({pickles[0]}), and reading a pickle executes "
            "code; save them as safetensors (save_pretrained of transformers)"
        )
    if ggufs:
        return UserError(
            f"the weights in {place} are a GGUF file ({ggufs[0]}); save them as safetensors "
            f"(from_pretrained({str(place)!r}, gguf_file={ggufs[0]!r}) of transformers, then "
            "save_pretrained)"
        )
    return UserError(
        f"{place} has no safetensors files; give the folder that save_pretrained wrote"
    )


def tokenizer_fault(place: str, error: Exception) -> UserError:
    """What to say when no tokenizer can be made from a folder."""
    import tokenizers

    files = {file.name for file in Path(place).glob("*")}
    own = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"} & files
    own |= {name for name in files if name.endswith((".tiktoken", "tekken.json"))}
    if not own:
        return UserError(
            f"no tokenizer for the model {place!r}; save it into the same folder "
            "(tokenizer.save_pretrained)"
        )
    if "custom code" in str(error):
        return UserError(
            f"the tokenizer in {place} brings code of its own (auto_map), which is never executed "
            "here; save it as a fast tokenizer (tokenizer.json)"
        )
    for name in ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
        if name in files:
            read_json(Path(place, name))
    return UserError(
        f"the tokenizer in {place} ({', '.join(sorted(own))}) cannot be read by tokenizers "
        f"{tokenizers.__version__} ({one_line(error, 100)}); it is damaged or was written by a "
        "newer version: upgrade tokenizers and transformers, or save it again"
    )
