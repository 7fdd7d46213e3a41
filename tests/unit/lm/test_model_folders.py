"""Folders of models as people have them: loaded right, or one line with the file and a remedy."""

import json
import shutil

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.models import (
    adapter_doubts,
    load_model,
    load_tokenizer,
    model_ends,
    resolve,
    save_merged,
    save_model,
    vocabulary_size,
)

IDS = torch.arange(1, 20)[None]


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    return save_model(tiny_model(dtype="float32"), tiny_tokenizer, tmp_path / "model")


def refused(place, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(place)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    # The folder is refused before anything is drawn: where its name is resolved, or its tokenizer.
    with pytest.raises(UserError, match=message):
        load_tokenizer(place)


QUANTISED = [
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"quant_method": "gptq", "bits": 4},
    {"quant_method": "awq", "bits": 4},
    {"quant_method": "fp8", "weight_block_size": [128, 128]},
    {"quant_method": "compressed-tensors"},
    {"quant_method": "mxfp4"},
    {"bits": 4, "group_size": 64},
]


@pytest.mark.parametrize("quantised", QUANTISED, ids=lambda one: one.get("quant_method", "none"))
def test_quantised_weights(folder, quantised):
    edit(folder / "config.json", quantization_config=quantised)
    refused(folder, f"quantised .*{quantised.get('quant_method', 'unknown')}.* measure the model")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint8, torch.uint32])
def test_quantised_weights_that_the_configuration_forgets(folder, dtype):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    refused(folder, f"quantised \\({name} is .*measure the model")


def test_quantised_weights_of_mlx(folder):
    edit(folder / "config.json", quantization={"bits": 4, "group_size": 64})
    refused(folder, "quantised .*measure the model")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 1234\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("content", [POINTER, b"/annex/objects/SHA256E-s1--12ab.safetensors\n"])
def test_pointers_of_git(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, f"{name} is a pointer that git left .* `git lfs pull`")


def shards(folder):
    """The weights in two files and an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / file, {"format": "pt"})
    places = {name: file for file, some in parts.items() for name in some}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def test_shards_and_a_missing_one(folder):
    model, _ = load_model(shards(folder))
    assert model.num_parameters() > 0
    (folder / "model-2.safetensors").unlink()
    refused(folder, "lacks model-2.safetensors, which .*index.json names; copy or download")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokenizer.json", lambda text: text[:150], "tokenizer.json cannot be read"),
        ("tokenizer.json", lambda text: "", "tokenizer.json cannot be read"),
        (
            "tokenizer.json",
            lambda text: text.replace('"BPE"', '"Later"'),
            "newer version: upgrade tokenizers",
        ),
        (
            "tokenizer.json",
            lambda text: json.dumps(json.loads(text) | {"pre_tokenizer": {"type": "Later"}}),
            "newer version: upgrade tokenizers",
        ),
        ("tokenizer_config.json", lambda text: "{", "tokenizer_config.json cannot be read"),
        (
            "tokenizer_config.json",
            lambda text: json.dumps(json.loads(text) | {"eos_token": ["<end>"]}),
            "damaged or was written by a newer",
        ),
        (
            "tokenizer_config.json",
            lambda text: json.dumps(
                json.loads(text)
                | {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
            ),
            "tokenizer .* code of its own",
        ),
    ],
)
def test_tokenizers_that_cannot_be_read(folder, name, change, message):
    file = folder / name
    file.write_text(change(file.read_text()))
    refused(folder, message)


def test_a_model_that_generates_no_text(folder):
    edit(folder / "config.json", model_type="vit")
    refused(folder, r"\(vit\) is no causal language model")


def test_weights_in_another_format(folder):
    (folder / "model.safetensors").rename(folder / "model-Q4.gguf")
    refused(folder, "GGUF file .*gguf_file='model-Q4.gguf'")
    (folder / "model-Q4.gguf").unlink()
    refused(folder, "has no safetensors files")


def test_a_folder_of_checkpoints(folder, tmp_path):
    for number in (5, 20, 100):
        shutil.copytree(folder, tmp_path / "run" / f"checkpoint-{number}")
    (tmp_path / "run" / "training_args.bin").write_bytes(b"")
    refused(tmp_path / "run", "holds no model itself, and 3 inside; .* such as .*checkpoint-100$")
    assert load_model(tmp_path / "run" / "checkpoint-20")


@pytest.mark.parametrize("name", ["smolm2-135m", "SmolLM2-135M", "smollm2-135"])
def test_a_misspelt_name(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)  # would be called
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        resolve(name)


def test_a_name_that_the_hub_does_not_give(monkeypatch):
    import huggingface_hub

    def fails(*arguments, **options):
        raise OSError("no route to the host " + "very " * 60 + "unfortunately")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(
        UserError, match=r"from the hub .*very \[\.\.\.\]\), and there is no folder"
    ):
        resolve("models/llama")


# --- end tokens


def test_end_tokens_are_those_of_all_files(folder, tiny_tokenizer):
    assert tiny_tokenizer.eos_token_id == 0
    assert model_ends(folder, tiny_tokenizer) == (0,)
    edit(folder / "config.json", eos_token_id=[3, 0])
    edit(folder / "generation_config.json", eos_token_id=[0, 5])
    assert model_ends(folder, tiny_tokenizer) == (0, 3, 5)
    edit(folder / "config.json", eos_token_id=None, text_config={"eos_token_id": 7})
    (folder / "generation_config.json").unlink()
    assert model_ends(folder, tiny_tokenizer) == (0, 7)


def test_the_rows_of_the_embedding(folder, tmp_path, tiny_tokenizer):
    assert vocabulary_size(folder) == len(tiny_tokenizer)
    adapter(folder, tmp_path / "adapter")
    assert vocabulary_size(tmp_path / "adapter") == len(tiny_tokenizer)
    edit(folder / "config.json", text_config={"vocab_size": 99})
    assert vocabulary_size(folder) == 99


# --- adapters


def adapter(base, place, *, tokens=0, second=None, **more):
    """An adapter as peft leaves it, with a second factor that is not zero, and its logits."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_model(base)
    if tokens:
        tokenizer.add_tokens([f"<new{i}>" for i in range(tokens)])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM", **more,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = get_peft_model(model, config).eval()
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        if second:
            wrapped.add_adapter(second, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(place)
    if tokens:
        tokenizer.save_pretrained(place)
    with torch.no_grad():
        return wrapped(input_ids=IDS).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"tokens": 2},
        {"tokens": 2, "modules_to_save": ["embed_tokens"]},
        {"trainable_token_indices": [3, 4]},
    ],
    ids=str,
)
def test_adapters_as_they_are_left(tmp_path, tiny_model, tiny_tokenizer, options, tied):
    """Alone and merged, they say what peft's own model said."""
    base = save_model(tiny_model(dtype="float32", tied=tied), tiny_tokenizer, tmp_path / "base")
    wanted = adapter(base, tmp_path / "adapter", **options)
    # Trainers leave the base's configuration beside the adapter.
    shutil.copy(base / "config.json", tmp_path / "adapter")
    model, tokenizer = load_model(tmp_path / "adapter")
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert 0 < len(trained) < len(list(model.named_parameters()))
    assert len(tokenizer) == len(tiny_tokenizer) + options.get("tokens", 0)
    merged, _ = load_model(save_merged(tmp_path / "adapter", tmp_path / "merged"))
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(merged(input_ids=IDS).logits, wanted, atol=1e-3, rtol=1e-3)


def test_what_is_said_about_an_adapter(folder, tmp_path):
    adapter(folder, tmp_path / "lora")
    adapter(folder, tmp_path / "dora", use_dora=True)
    assert adapter_doubts(folder) == adapter_doubts(tmp_path / "lora") == []
    [text] = adapter_doubts(tmp_path / "dora")
    assert "not the exact derivatives" in text


def test_several_adapters_in_one_folder(folder, tmp_path):
    wanted = adapter(folder, tmp_path / "adapters", second="other")
    with torch.no_grad():
        logits = load_model(tmp_path / "adapters")[0](input_ids=IDS).logits
    torch.testing.assert_close(logits, wanted)
    assert load_model(tmp_path / "adapters" / "other")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapters" / name).unlink()
    refused(tmp_path / "adapters", "holds no model itself, and 1 inside; .*adapters/other")


def test_an_adapter_beside_a_whole_model(folder, tmp_path):
    adapter(folder, tmp_path / "adapter")
    shutil.copy(folder / "config.json", tmp_path / "adapter")
    shutil.copy(folder / "model.safetensors", tmp_path / "adapter")
    refused(tmp_path / "adapter", "holds a whole model and an adapter")


def test_an_adapter_on_quantised_weights(folder, tmp_path):
    adapter(folder, tmp_path / "adapter")
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    refused(
        tmp_path / "adapter",
        r"adapter stands on .*quantised \(bitsandbytes\).*base_model_name_or_path",
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "acts behind some tokens alone"),
        ({"peft_type": "PREFIX_TUNING"}, r"learned prompts \(PREFIX_TUNING\)"),
        ({"peft_type": "ADAPTION_PROMPT"}, r"learned prompts \(ADAPTION_PROMPT\)"),
        ({"peft_type": "LATER"}, "is a 'LATER', which peft .* does not know; upgrade peft"),
    ],
)
def test_adapters_of_another_kind(folder, tmp_path, settings, message):
    adapter(folder, tmp_path / "adapter")
    edit(tmp_path / "adapter" / "adapter_config.json", **settings)
    refused(tmp_path / "adapter", message)
