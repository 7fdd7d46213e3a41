"""Models and tokenizers from their folders, and back into folders."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from passgrad.errors import UserError
from passgrad.lm.models.embedded import MODELS, quiet
from passgrad.lm.models.faults import check_pointers, one_line, tokenizer_fault
from passgrad.lm.models.folders import (
    ADAPTER_WEIGHTS,
    base_of,
    has_tokenizer,
    is_adapter,
    resolve,
)
from passgrad.lm.parameters import without_wrapper

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


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
        safetensors or quantised ones, or a hub that cannot be reached.

    >>> import passgrad as pg
    >>> model, tokenizer = pg.load_model("smollm2-135m")  # doctest: +SKIP
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    place = resolve(name)
    if is_adapter(place):
        wrapped, tokenizer = _with_adapter(place, dtype)
        return without_wrapper(wrapped), tokenizer
    tokenizer = load_tokenizer(place)
    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                generation_config=_generation(place),
            )
    # RuntimeError is what weights of another shape raise; a configuration whose values have
    # another type raises nearly anything.
    except (
        OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError,
        ArithmeticError, SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"cannot load the model {str(name)!r}: {one_line(error)}; give one of "
            f"{', '.join(MODELS)}, or a model with a config.json and whole safetensors weights"
        ) from error
    if report["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise UserError(
            f"the weights of {str(name)!r} lack {', '.join(sorted(report['missing_keys'])[:3])}; "
            "give a complete model"
        )
    with_caps(model)
    return model.eval(), tokenizer


def with_caps(model: PreTrainedModel) -> None:
    """Models that cap the scores of attention run "eager": "sdpa" leaves the cap out, and is then
    another model than the one that was trained and that vLLM draws from.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _generation(place: str) -> GenerationConfig | None:
    """Where transformers refuses a generation config, one in its place: no completion is drawn by
    what it says. None leaves it to transformers.
    """
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(place)
    except OSError:
        return None
    except Exception:  # values that do not fit together, or of another type
        return GenerationConfig()
    return None


def _with_adapter(place: str, dtype: torch.dtype) -> tuple[PeftModel, Any]:
    """The base with the adapter, as peft wraps it."""
    from peft import PeftModel
    from safetensors import SafetensorError

    base, tokenizer = load_model(base_of(place), dtype=dtype)
    _fit_vocabulary(base, place)
    try:
        with quiet(), warnings.catch_warnings():
            # peft would go on with random numbers in their place.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            wrapped = PeftModel.from_pretrained(
                base, place, is_trainable=True, autocast_adapter_dtype=False
            )
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError,
        UserWarning, SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"cannot load the adapter in {place}: {one_line(error)}; give the folder that peft's "
            "save_pretrained wrote for this base model"
        ) from error
    if has_tokenizer(place):
        tokenizer = load_tokenizer(place)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return wrapped.eval(), tokenizer


def _fit_vocabulary(base: PreTrainedModel, place: str) -> None:
    """As many rows of the embedding as the adapter was saved with: tokens may have been added."""
    from safetensors import safe_open

    own = {name for name, module in base.named_modules() if module is base.get_input_embeddings()}
    rows = base.get_input_embeddings().num_embeddings
    with safe_open(Path(place, ADAPTER_WEIGHTS), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            name = key.removeprefix("base_model.model.").removesuffix(".weight")
            name = name.removesuffix(".base_layer").removesuffix(".modules_to_save")
            if name in own:
                rows = file.get_slice(key).get_shape()[0]
    if rows != base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(rows, mean_resizing=False)


def save_merged(adapter: str | Path, place: str | Path) -> Path:
    """Write the model of an adapter's folder with the adapter added to its weights: a plain model
    that every engine reads.

    The numbers are those of the model with its adapter up to the rounding of its weights.
    """
    wrapped, tokenizer = _with_adapter(resolve(adapter), torch.float32)
    model: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    return save_model(_untied(model), tokenizer, place)


def _untied(model: PreTrainedModel) -> PreTrainedModel:
    """The model, which no longer counts as tied where training has parted its matrices."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if last is not None and first.weight.data_ptr() != last.weight.data_ptr():
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False
    return model


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: an embedded name, a local folder, or a hub name. Of an adapter that
    has none, the one of its base model.

    :raises UserError: As :func:`load_model`, or if the model comes without a tokenizer that can be
        read.
    """
    from transformers import AutoTokenizer

    place = resolve(name)
    if is_adapter(place) and not has_tokenizer(place):
        return load_tokenizer(base_of(place))
    check_pointers(Path(place))
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # the library in Rust raises nothing more special
        raise tokenizer_fault(place, error) from error


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: str | Path
) -> Path:
    """Write model and tokenizer as a folder that every engine reads; complete or not at all."""
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as scratch,
        quiet(),
    ):
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(made, place)
    return place
