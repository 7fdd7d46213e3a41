"""Models with a LoRA adapter: its parameters alone, against autograd for every completion."""

import json

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.models import (
    base_of,
    is_adapter,
    load_model,
    load_tokenizer,
    resolve,
    save_merged,
    save_model,
    weights_sha256,
)
from passgrad.lm.parameters import ParameterLayout, trained, without_wrapper
from passgrad.lm.passes import CompletionPasses

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7], [9, 8, 7]]
DRAWN = [[[5, 6], [7], [8, 9, 3, 2]], [[5, 6], [5, 6], [4]], [[1], [2, 2], [3, 3, 3]]]


def adapted(model, trainable=True, targets=("q_proj", "v_proj", "down_proj"), seed=3):
    """The model in a PeftModel, with a second factor that is not zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=3,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        lora_dropout=0.5,
        inference_mode=not trainable,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = (torch.randn(parameter.shape) * 0.3).to(model.dtype)
    return wrapped


def every_gradient(model):
    """(M, n, d) gradients with respect to what requires one, by plain passes."""
    chosen = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for prompt, some in zip(PROMPTS, DRAWN, strict=True):
        for target in some:
            logits = model(input_ids=torch.tensor([prompt + target])).logits[0]
            table = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            value = table.gather(-1, torch.tensor(target)[:, None]).sum()
            rows.append(torch.cat([p.flatten() for p in torch.autograd.grad(value, chosen)]))
    return torch.stack(rows).reshape(3, 3, -1)


def completions():
    return Completions.from_tokens(PROMPTS, DRAWN)


@pytest.fixture(scope="module")
def case(tiny_model):
    wrapped = adapted(tiny_model()).eval()
    passes = CompletionPasses(wrapped, completions(), torch.zeros(3, 3), token_budget=1000)
    return wrapped, passes, every_gradient(wrapped)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(a, b, share):
    assert float((a - b).norm()) <= share * float(b.norm())


def test_only_the_adapter_has_a_place_in_the_vector(case):
    wrapped, passes, gradients = case
    assert all("lora_" in name for name in passes.layout.shapes)
    assert len(passes.layout.shapes) == 2 * 2 * 3  # two factors, two layers, three matrices
    assert not passes.layout.whole
    assert passes.layout.num_parameters == gradients.shape[-1] == wrapped.num_parameters(True)


def test_the_gradient(case):
    _, passes, gradients = case
    c = random(3, 3)
    close(passes.gradient(c), torch.einsum("xi,xid->d", c, gradients), 1e-10)


@pytest.mark.parametrize(("method", "share"), [("forward", 1e-9), ("central", 1e-5)])
def test_directional_derivatives(case, method, share):
    _, passes, gradients = case
    before = {name: p.detach().clone() for name, p in passes.model.named_parameters()}
    v = random(gradients.shape[-1], seed=1)
    close(passes.directional(v, method), gradients @ v, share)
    for name, parameter in passes.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_prompts_share_rows_through_the_wrapper(case, plain_logprob):
    wrapped, passes, _ = case
    [joined] = passes.rows(passes.completions.chosen())
    assert len(joined.segments) > 1
    expected = [
        [plain_logprob(wrapped, x, y) for y in some] for x, some in zip(PROMPTS, DRAWN, strict=True)
    ]
    torch.testing.assert_close(
        passes.logprobs(), torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=0
    )


def test_no_gradient_is_computed_for_frozen_weights(case, monkeypatch):
    """The leaves of the backward pass, and what it leaves on the model."""
    _, passes, _ = case
    seen = []
    hook = torch.Tensor.register_post_accumulate_grad_hook
    monkeypatch.setattr(
        torch.Tensor,
        "register_post_accumulate_grad_hook",
        lambda self, call: seen.append(self) or hook(self, call),
    )
    passes.gradient(random(3, 3))
    assert sum(leaf.numel() for leaf in seen) == passes.layout.num_parameters
    assert all(parameter.grad is None for parameter in passes.model.parameters())


def test_parameters_by_name_leave_the_others_alone(tiny_model):
    model = tiny_model()
    names = ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
    passes = CompletionPasses(model, completions(), torch.zeros(3, 3), parameters=names)
    assert set(passes.layout.shapes) == set(names)
    gradient = passes.gradient(torch.ones(3, 3))
    full = CompletionPasses(model, completions(), torch.zeros(3, 3))
    views = full.layout.views(full.gradient(torch.ones(3, 3)))
    for name, view in passes.layout.views(gradient).items():
        close(view, views[name], 1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_parameters_without_an_adapter(tiny_model):
    model = tiny_model()
    assert trained(model) == {name for name, _ in model.named_parameters()}
    model.requires_grad_(False)
    assert ParameterLayout(model).whole
    model.model.norm.weight.requires_grad_(True)
    layout = ParameterLayout(model)
    assert list(layout.shapes) == ["model.norm.weight"]
    theta = layout.flatten(model)
    layout.load(model, 2 * theta)
    torch.testing.assert_close(model.model.norm.weight.detach(), 2 * theta)


def test_names_that_are_none(tiny_model):
    with pytest.raises(UserError, match="no parameter 'a.b'"):
        ParameterLayout(tiny_model(), ["a.b"])
    with pytest.raises(UserError, match="no parameters are chosen"):
        ParameterLayout(tiny_model(), [])


def test_adapters_that_cannot_be_differentiated(tiny_model):
    with pytest.raises(UserError, match="is_trainable=True"):
        without_wrapper(adapted(tiny_model(), trainable=False))
    merged = adapted(tiny_model())
    merged.merge_adapter()
    with pytest.raises(UserError, match="unmerge_adapter"):
        without_wrapper(merged)
    from peft import PromptTuningConfig, get_peft_model

    learned = get_peft_model(
        tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(UserError, match="learned prompts"):
        without_wrapper(learned)


@pytest.fixture
def folders(tmp_path, tiny_model, tiny_tokenizer):
    base = save_model(tiny_model(dtype="float32"), tiny_tokenizer, tmp_path / "base")
    model, _ = load_model(base)
    wrapped = adapted(model).eval()
    place = tmp_path / "adapter"
    wrapped.save_pretrained(place)
    return base, place, wrapped


def test_a_folder_with_an_adapter_is_a_model(folders):
    base, place, wrapped = folders
    assert is_adapter(place)
    assert not is_adapter(base)
    assert resolve(place) == str(place)
    assert base_of(place) == str(base)
    model, tokenizer = load_model(place)
    ids = torch.tensor([PROMPTS[0]])
    torch.testing.assert_close(model(input_ids=ids).logits, wrapped(input_ids=ids).logits)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }
    assert not model.training
    passes = CompletionPasses(model, completions(), torch.zeros(3, 3))
    assert all("lora_" in name for name in passes.layout.shapes)
    assert tokenizer.encode("12") == load_tokenizer(base).encode("12")
    assert weights_sha256(place) != weights_sha256(base)
    made = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert made.shape[1] > ids.shape[1]
    assert {p.dtype for p in load_model(place, dtype=torch.float64)[0].parameters()} == {
        torch.float64
    }


def test_the_merged_model_says_the_same(folders, tmp_path):
    _, place, wrapped = folders
    model, _ = load_model(save_merged(place, tmp_path / "merged"))
    ids = torch.tensor([PROMPTS[0]])
    torch.testing.assert_close(
        model(input_ids=ids).logits, wrapped(input_ids=ids).logits, atol=1e-4, rtol=1e-4
    )
    assert not any("lora_" in name for name, _ in model.named_parameters())


def test_the_base_of_an_adapter(folders, monkeypatch, tmp_path):
    _, place, _ = folders
    path = place / "adapter_config.json"
    settings = json.loads(path.read_text())

    def say(name):
        path.write_text(json.dumps({**settings, "base_model_name_or_path": name}))

    # The adapter's own folder counts before the one where this process runs.
    (tmp_path / "elsewhere" / "base").mkdir(parents=True)
    (tmp_path / "elsewhere" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere" / "here")
    say("../base")
    assert load_tokenizer(place).encode("1")
    (tmp_path / "elsewhere" / "here" / "copy").symlink_to(tmp_path / "base")
    say("copy")
    assert base_of(place) == "copy"
    say("../gone")
    with pytest.raises(UserError, match=r"stands on \.\./gone, .* nor \.\./gone; correct"):
        base_of(place)
    say(str(place))
    with pytest.raises(UserError, match="stands on another adapter"):
        base_of(place)
    say("smollm2-135m")
    assert base_of(place) == "smollm2-135m"
    say(None)
    with pytest.raises(UserError, match="base_model_name_or_path"):
        load_model(place)
    path.write_text("[")
    with pytest.raises(UserError, match="cannot be read"):
        base_of(place)


def test_weights_that_are_pickled_missing_or_of_another_model(folders, tiny_model, tiny_tokenizer):
    base, place, _ = folders
    weights = place / "adapter_model.safetensors"
    kept = weights.read_bytes()
    from safetensors.torch import load_file, save_file

    some = load_file(weights)
    dropped = dict(list(some.items())[1:])
    save_file(dropped, weights)
    with pytest.raises(UserError, match="missing adapter keys"):
        load_model(place)
    weights.write_bytes(kept[:100])
    with pytest.raises(UserError, match="no whole safetensors file"):
        load_model(place)
    save_model(
        tiny_model(dtype="float32", intermediate_size=64, hidden_size=16), tiny_tokenizer, base
    )
    weights.write_bytes(kept)
    with pytest.raises(UserError, match="cannot load the adapter"):
        load_model(place)
    weights.rename(place / "adapter_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        resolve(place)


def test_parts_of_an_adapter(case):
    """Its parameters alone: blocks and groups; of the readings of the final layer the hidden state,
    which is no parameter.
    """
    from passgrad.lm.groups import parts_of
    from passgrad.lm.head import tied_output
    from passgrad.measurement.parts import Folding, ModelParts, estimate_parts

    _, passes, _ = case
    parts = parts_of(passes.layout, tied_output=tied_output(passes.model))
    assert [(part.kind, part.name) for part in parts] == [
        ("whole", "all parameters"),
        ("layer", "block 0"), ("layer", "block 1"),
        ("group", "attention"), ("group", "mlp"),
        ("final", "final hidden state"),
    ]  # fmt: skip
    more = Completions.from_tokens(PROMPTS * 2, [[*some, some[0]] for some in DRAWN * 2])
    rewards = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]]).repeat(2, 1)
    samples = ModelParts(CompletionPasses(case[0], more, rewards))
    found = estimate_parts(samples, 2, folding=Folding(2))
    inner = found.inner_product[0, 0]
    assert inner[0] != 0
    assert inner[1:3].sum() == pytest.approx(inner[0], rel=1e-10)
    assert inner[3:5].sum() == pytest.approx(inner[0], rel=1e-10)


def test_adam_of_an_adapter(case):
    from passgrad.measurement.metric import adam_metric

    wrapped, passes, _ = case
    chosen = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=0.0)
    for parameter in chosen:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in chosen:
        parameter.grad = None
    assert set(adam_metric(optimizer, wrapped).inverse) == set(passes.layout.shapes)
