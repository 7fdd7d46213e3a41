"""Where the files of a model are: of the embedded one, a local folder, a name on the hub, and an
adapter with its base.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from passgrad.errors import UserError
from passgrad.lm.models.embedded import MODELS, fetch, file_sha256
from passgrad.lm.models.faults import (
    CONFIG,
    check_config,
    check_pointers,
    check_safetensors,
    check_weights,
    has_weights,
    one_line,
    read_json,
)

#: what peft's save_pretrained writes
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

# So like must two names be that the one was meant by the other.
_ALIKE = 0.75


def is_adapter(name: str | Path) -> bool:
    """Whether this is the folder of an adapter: it has a file ``adapter_config.json`` and no
    weights of a whole model. Trainers leave the base's ``config.json`` beside it.
    """
    place = Path(name).expanduser()
    return (place / ADAPTER).is_file() and not has_weights(place)


def has_tokenizer(place: str | Path) -> bool:
    """Whether a folder has a tokenizer of its own, as adapters may."""
    return (Path(place) / "tokenizer_config.json").is_file()


def base_of(adapter: str | Path) -> str:
    """The model that an adapter stands on: a name, or a folder. A relative path is looked for from
    the adapter's own folder first, then from where this process runs.

    :raises UserError: For an ``adapter_config.json`` that does not name one, and a path where there
        is none.
    """
    place = Path(adapter).expanduser()
    named = read_json(place / ADAPTER).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{place / ADAPTER} does not say what model it stands on; "
            "set base_model_name_or_path to a folder or a name"
        )
    if named in MODELS:
        return named
    tried = list(dict.fromkeys([place / Path(named).expanduser(), Path(named).expanduser()]))
    for candidate in tried:
        if candidate.is_dir():
            if is_adapter(candidate):
                raise UserError(
                    f"the adapter in {place} stands on another adapter, {candidate}; merge that "
                    "one into its base first (passgrad.lm.models.save_merged)"
                )
            return str(candidate)
    if _is_path(named):
        raise UserError(
            f"the adapter in {place} stands on {named}, and there is no folder "
            f"{' nor '.join(map(str, tried))}; correct base_model_name_or_path in "
            f"{place / ADAPTER}"
        )
    return named


def adapter_doubts(name: str | Path) -> list[str]:
    """What a reader has to know about derivatives along the parameters of an adapter."""
    place = Path(resolve(name))
    if not is_adapter(place) or not read_json(place / ADAPTER).get("use_dora"):
        return []
    return [
        "The adapter is a DoRA one, and peft holds the norms of its columns fixed in backward "
        "passes: the gradients are those that its training follows, not the exact derivatives."
    ]


def resolve(name: str | Path) -> str:
    """The local folder that a model's name stands for; what is not here yet is fetched.

    :raises UserError: For a path that does not exist, a folder without a model or with one that
        cannot be measured, and a hub name that cannot be had.
    """
    if str(name) in MODELS:
        return str(fetch(str(name)))
    place = Path(name).expanduser()
    if place.is_dir():
        return _checked(place)
    if place.exists():
        raise UserError(f"{name} is a file; give the folder of the model")
    # A hub name is NAME or OWNER/NAME; anything else was meant as a path.
    if _is_path(str(name)):
        raise UserError(
            f"{name}: no such folder; give a local model folder, a hub name, "
            f"or one of {', '.join(MODELS)}"
        )
    close = difflib.get_close_matches(str(name).lower(), MODELS, n=1, cutoff=_ALIKE)
    if close and "/" not in str(name):
        raise UserError(
            f"there is no model {str(name)!r}, neither a folder here nor an embedded one: did you "
            f"mean {close[0]!r}?"
        )
    return _from_hub(str(name), close)


def _is_path(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def _checked(place: Path) -> str:
    """A folder whose files can be a model, or an adapter."""
    check_pointers(place)
    if (place / ADAPTER).is_file():
        if has_weights(place):
            raise UserError(
                f"{place} holds a whole model and an adapter ({ADAPTER}), so it is open which is "
                "meant; move the files of one of them into a folder of its own"
            )
        if not (place / ADAPTER_WEIGHTS).is_file():
            raise UserError(f"{place} has no {ADAPTER_WEIGHTS}; save the adapter as safetensors")
        check_safetensors(place / ADAPTER_WEIGHTS)
        _check_kind(place)
        base = base_of(place)
        try:
            resolve(base)
        except UserError as error:
            raise UserError(
                f"the adapter in {place} stands on {base}: {error} (base_model_name_or_path in "
                f"its {ADAPTER} names the base)"
            ) from None
        return str(place)
    if not (place / CONFIG).is_file() or not has_weights(place):
        inside = _models_inside(place)
        if inside:
            raise UserError(
                f"{place} holds no model itself, and {len(inside)} inside; give one of them, such "
                f"as {inside[-1]}"
            )
    if not (place / CONFIG).is_file():
        raise UserError(f"{place} holds no {CONFIG}; give the folder that save_pretrained wrote")
    check_config(place)
    check_weights(place)
    return str(place)


def _check_kind(place: Path) -> None:
    """Refuse an adapter that is not a change of the base's layers at every token."""
    import peft

    settings = read_json(place / ADAPTER)
    kind = settings.get("peft_type")
    kinds = {one.value: config for one, config in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    known = kinds.get(str(kind))
    if known is None:
        raise UserError(
            f"the adapter in {place} is a {kind!r}, which peft {peft.__version__} does not know; "
            "upgrade peft, or merge the adapter into its base where it was trained"
        )
    if issubclass(known, peft.PromptLearningConfig) or kind == "ADAPTION_PROMPT":
        raise UserError(
            f"the adapter in {place} is one of learned prompts ({kind}), which has no place in the "
            "layers; give a LoRA one"
        )
    if settings.get("alora_invocation_tokens"):
        raise UserError(
            f"the adapter in {place} acts behind some tokens alone (alora_invocation_tokens), "
            "which is not supported; give a LoRA adapter without them"
        )


def _models_inside(place: Path) -> list[Path]:
    """Models and adapters one folder below, as trainers leave checkpoints, the last at the end."""
    inside = [
        folder
        for folder in place.iterdir()
        if folder.is_dir() and ((folder / ADAPTER).is_file() or (folder / CONFIG).is_file())
    ]

    def order(folder: Path) -> tuple[int, str]:
        number = folder.name.rpartition("-")[2]
        return (int(number) if number.isdigit() else -1, folder.name)

    return sorted(inside, key=order)


def _from_hub(name: str, close: list[str]) -> str:
    """The hub client's folder of this model: configuration, tokenizer and safetensors, no more."""
    from huggingface_hub import snapshot_download

    try:
        place = snapshot_download(
            name,
            allow_patterns=["*.json", "*.txt", "*.jinja", "*.model", "*.safetensors"],
            ignore_patterns=["*/*"],  # copies in other formats lie in folders of their own
        )
    except Exception as error:  # whatever the client raises: no network, no such name, no access
        remedy = (
            f"did you mean {close[0]!r}?"
            if close
            else f"give one of {', '.join(MODELS)}, a local folder, or a hub name that can be "
            "reached"
        )
        raise UserError(
            f"cannot fetch the model {name!r} from the hub ({one_line(error)}), and there is no "
            f"folder of that name here; {remedy}"
        ) from error
    if not (Path(place, CONFIG).is_file() or is_adapter(place)):
        raise UserError(f"the hub model {name!r} has no config.json; give one of transformers")
    return _checked(Path(place))


def weights_sha256(name: str | Path) -> str:
    """One hash for the weights: of the GGUF file for an embedded model, otherwise of the
    safetensors files; those of the base model included, for an adapter.

    :raises UserError: As :func:`resolve`.
    """
    if str(name) in MODELS:
        return MODELS[str(name)].gguf_sha256
    place = resolve(name)
    if is_adapter(place):
        both = weights_sha256(base_of(place)) + file_sha256(Path(place, ADAPTER_WEIGHTS))
        return hashlib.sha256(both.encode()).hexdigest()
    files = sorted(Path(place).glob("*.safetensors"))
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()
