"""Passes over completions, against the full gradient of every completion and products with it."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm import passes as module
from passgrad.lm.completions import Completions
from passgrad.lm.groups import GROUPS, groups_of, inner_products, layers_of
from passgrad.lm.parameters import ParameterLayout
from passgrad.lm.passes import CompletionPasses

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7], [9, 8, 7]]
DRAWN = [
    [[5, 6], [7], [5, 6], [8, 9, 3, 2]],
    [[5, 6], [5, 6], [5, 6], [5, 6]],
    [[1], [2, 2], [3, 3, 3], [2, 2]],
]
REWARDS = [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]]
MODELS = {
    "llama tied": ("llama", True),
    "llama untied": ("llama", False),
    "gpt2": ("gpt2", True),
}


def completions():
    return Completions.from_tokens(PROMPTS, DRAWN)


def every_gradient(model):
    """(M, n) values and (M, n, d) gradients, one plain backward pass for each completion."""
    parameters = [p for _, p in model.named_parameters()]
    values, rows = [], []
    for prompt, some in zip(PROMPTS, DRAWN, strict=True):
        for target in some:
            logits = model(input_ids=torch.tensor([prompt + target])).logits[0]
            table = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            value = table.gather(-1, torch.tensor(target)[:, None]).sum()
            parts = torch.autograd.grad(value, parameters)
            values.append(float(value.detach()))
            rows.append(torch.cat([part.flatten() for part in parts]))
    shape = (len(PROMPTS), len(DRAWN[0]))
    return torch.tensor(values, dtype=torch.float64).reshape(shape), torch.stack(rows).reshape(
        *shape, -1
    )


@pytest.fixture(scope="module", params=MODELS)
def case(request, tiny_model):
    architecture, tied = MODELS[request.param]
    model = tiny_model(architecture, tied=tied)
    values, gradients = every_gradient(model)
    return CompletionPasses(model, completions(), REWARDS, token_budget=16), values, gradients


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(a, b, share):
    assert float((a - b).norm()) <= share * float(b.norm())


def test_log_probabilities(case):
    passes, values, _ = case
    torch.testing.assert_close(passes.logprobs(), values, atol=1e-10, rtol=0)


def test_the_gradient_is_the_weighted_sum(case):
    passes, _, gradients = case
    c = random(3, 4)
    expected = torch.einsum("xi,xid->d", c, gradients)
    close(passes.gradient(c), expected, 1e-10)
    assert expected.norm() > 1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("padding", [2, 3])
def test_the_embedding_of_the_padding_token_has_a_derivative(tiny_model, tied, padding):
    """As any other, where prompts and completions contain the token: 3 stands in both."""
    model = tiny_model("llama", tied=tied)
    model.model.embed_tokens.padding_idx = padding
    passes = CompletionPasses(model, completions(), REWARDS, token_budget=16)
    c = random(3, 4)
    gradient = passes.gradient(c)
    vector = torch.zeros_like(gradient)
    row = passes.layout.views(vector)["model.embed_tokens.weight"][padding]
    row += random(len(row), seed=1)
    exact = passes.directional(vector, "forward")
    assert exact.abs().max() > 1e-2
    close(passes.directional(vector, "central"), exact, 1e-6)
    theta = passes.layout.flatten(model)
    values = []
    for step in (1e-5, -1e-5):
        passes.layout.load(model, theta + step * vector)
        values.append(passes.logprobs())
    passes.layout.load(model, theta)
    close((values[0] - values[1]) / 2e-5, exact, 1e-6)
    assert float(gradient @ vector) == pytest.approx(float((c * exact).sum()), rel=1e-9)
    assert model.model.embed_tokens.padding_idx == padding  # as a trainer has it


@pytest.mark.parametrize("method", ["forward", "central", "auto"])
def test_directional_derivatives(case, method):
    passes, _, gradients = case
    v = random(passes.layout.num_parameters, seed=1)
    made = passes.directional(v, method)
    assert made.dtype == torch.float64
    close(made, gradients @ v, 1e-9 if method != "central" else 1e-5)


@pytest.mark.parametrize("method", ["forward", "central"])
def test_along_a_gradient_of_the_same_completions(case, method):
    """Where log pi bends most."""
    passes, _, gradients = case
    v = passes.gradient(random(3, 4, seed=2))
    close(passes.directional(v, method), gradients @ v, 1e-9 if method == "forward" else 1e-4)


def test_some_of_the_completions(case):
    passes, values, gradients = case
    where = torch.zeros(3, 4, dtype=torch.bool)
    where[0, 0] = where[2, 1:] = True  # not the completion that equals the first
    v = random(passes.layout.num_parameters, seed=3)
    for made, expected, share in (
        (passes.logprobs(where), values, 1e-10),
        (passes.directional(v, "forward", where), gradients @ v, 1e-9),
        (passes.directional(v, "central", where), gradients @ v, 1e-5),
    ):
        assert made.isnan().tolist() == (~where).tolist()
        close(made[where], expected[where], share)


def test_groups_add_up(case):
    passes, _, gradients = case
    groups = groups_of(passes.layout)
    assert {"embedding", "attention", "mlp", "norm"} <= set(groups.values()) <= set(GROUPS)
    v = random(passes.layout.num_parameters, seed=4)
    for method, share in (("forward", 1e-9), ("central", 1e-5)):
        split = passes.directional_by_group(v, method)
        assert set(split) == set(groups.values())
        close(sum(split.values()), gradients @ v, share)
        mask = torch.zeros_like(v)
        for name, view in passes.layout.views(mask).items():
            view.fill_(float(groups[name] == "mlp"))
        close(split["mlp"], gradients @ (v * mask), share)


def test_rows_share_a_pass_and_do_not_see_each_other(tiny_model):
    model = tiny_model()
    passes = CompletionPasses(model, completions(), REWARDS, token_budget=1000)
    values, gradients = every_gradient(model)
    read = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    passes.logprobs()
    assert len(read) == 1
    small = CompletionPasses(model, completions(), REWARDS, token_budget=16)
    read.clear()
    small.logprobs()
    assert len(read) > 1
    assert max(read) <= 16
    hook.remove()
    torch.testing.assert_close(passes.logprobs(), values, atol=1e-10, rtol=0)
    c, v = random(3, 4), random(passes.layout.num_parameters, seed=1)
    close(passes.gradient(c), torch.einsum("xi,xid->d", c, gradients), 1e-10)
    close(passes.directional(v, "forward"), gradients @ v, 1e-9)


def test_only_rows_with_a_coefficient_are_computed(tiny_model, monkeypatch):
    passes = CompletionPasses(tiny_model(), completions(), REWARDS)
    scored = []
    plain = module.packed_logprobs

    def counting(model, row, parameters=None):
        scored.extend(row.members)
        return plain(model, row, parameters)

    monkeypatch.setattr(module, "packed_logprobs", counting)
    c = torch.zeros(3, 4)
    c[0, 0], c[0, 2] = 1.0, -1.0  # equal completions: nothing is left
    c[1] = 1.0
    passes.gradient(c)
    assert scored == [int(passes.completions.places[1, 0])]
    scored.clear()
    passes.directional(torch.ones(passes.layout.num_parameters).double(), "forward")
    assert sorted(scored) == list(range(len(passes.completions.sequences)))
    assert passes.gradient(torch.zeros(3, 4)).norm() == 0


def test_the_model_is_left_alone(case):
    passes, *_ = case
    before = {name: p.detach().clone() for name, p in passes.model.named_parameters()}
    attention = passes.model.config._attn_implementation
    v = passes.gradient(random(3, 4))
    for method in ("forward", "central"):
        passes.directional(v, method)
    for name, parameter in passes.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad
    assert passes.model.config._attn_implementation == attention


def test_frozen_parameters_have_gradients_too(tiny_model):
    model = tiny_model().requires_grad_(False)
    passes = CompletionPasses(model, completions(), REWARDS)
    assert passes.gradient(torch.ones(3, 4)).norm() > 1
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("packed", [True, False])
def test_any_attention(tiny_model, implementation, packed):
    # The "eager" attention of Llama would take its softmax in float32 whatever its dtype.
    model = tiny_model("gpt2", attn_implementation=implementation)
    _, gradients = every_gradient(model)
    passes = CompletionPasses(model, completions(), REWARDS, packed=packed)
    v = random(passes.layout.num_parameters, seed=5)
    close(passes.directional(v, "forward"), gradients @ v, 1e-9)
    close(passes.directional(v, "central"), gradients @ v, 1e-5)


def test_half_precision(tiny_model):
    """Forward mode, with the sum of the gradients in float32; differences cannot be had."""
    model = tiny_model("gpt2", dtype="bfloat16")
    passes = CompletionPasses(model, completions(), REWARDS)
    v = passes.gradient(random(3, 4))
    assert v.dtype == torch.float32
    exact = CompletionPasses(tiny_model("gpt2"), completions(), REWARDS)
    close(v.double(), exact.gradient(random(3, 4)), 0.1)
    close(passes.directional(v), exact.directional(v.double()), 0.1)
    with pytest.raises(UserError, match="in torch.bfloat16 are lost in its rounding"):
        passes.directional(v, "central")


class TestAuto:
    """The values are those of one method or of the other, bit for bit."""

    def gives_that_of(self, model, method):
        passes = CompletionPasses(model, completions(), REWARDS)
        v = torch.ones(passes.layout.num_parameters)
        by_itself = passes.directional(v)
        # Only differences have an error.
        assert (passes.last_error is None) == (method == "forward")
        return torch.equal(by_itself, passes.directional(v, method))

    def test_small_models_take_the_exact_form(self, tiny_model):
        assert self.gives_that_of(tiny_model(dtype="float32"), "forward")

    @pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
    def test_so_do_other_dtypes(self, tiny_model, monkeypatch, dtype):
        monkeypatch.setattr(module, "SMALL", 0)
        assert self.gives_that_of(tiny_model("gpt2", dtype=dtype), "forward")

    @pytest.mark.parametrize(("limit", "method"), [(1.0, "central"), (0.0, "forward")])
    def test_large_ones_take_differences_that_agree(self, tiny_model, monkeypatch, limit, method):
        monkeypatch.setattr(module, "SMALL", 0)
        monkeypatch.setattr(module, "LIMIT", limit)
        assert self.gives_that_of(tiny_model(dtype="float32"), method)


def test_inner_products_by_part(case):
    passes, *_ = case
    layout = passes.layout
    a, b = (random(layout.num_parameters, seed=s) for s in (6, 7))
    for parts in (groups_of(layout), layers_of(layout)):
        split = inner_products(layout, a, b, parts)
        assert sum(split.values()) == pytest.approx(float(a @ b))
    assert set(layers_of(layout).values()) == {None, 0, 1}
    name, view = next(iter(layout.views(torch.zeros(layout.num_parameters)).items()))
    alone = inner_products(layout, a, b, {n: n == name for n in layout.shapes})
    assert alone[True] == pytest.approx(float(a[: view.numel()] @ b[: view.numel()]))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("model.layers.11.self_attn.q_proj.weight", "attention"),
        ("model.layers.11.self_attn.q_norm.weight", "norm"),
        ("model.layers.1.post_attention_layernorm.weight", "norm"),
        ("model.layers.1.mlp.gate_proj.weight", "mlp"),
        ("model.layers.1.block_sparse_moe.experts.3.w1.weight", "mlp"),
        ("model.norm.weight", "norm"),
        ("lm_head.weight", "final"),
        ("transformer.wte.weight", "embedding"),
        ("transformer.wpe.weight", "embedding"),
        ("transformer.h.3.ln_1.bias", "norm"),
        ("transformer.ln_f.weight", "norm"),
        ("transformer.h.3.attn.c_attn.weight", "attention"),
        ("transformer.h.3.mlp.c_fc.weight", "mlp"),
        ("gpt_neox.embed_in.weight", "embedding"),
        ("embed_out.weight", "final"),
        ("gpt_neox.layers.0.attention.query_key_value.bias", "attention"),
        ("model.decoder.layers.0.fc1.weight", "mlp"),
        ("model.decoder.embed_positions.weight", "embedding"),
        ("transformer.word_embeddings_layernorm.weight", "norm"),
        ("base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight", "attention"),
        ("something.else", "other"),
    ],
)
def test_groups_by_name(name, group):
    layout = ParameterLayout.__new__(ParameterLayout)
    layout.shapes = {name: torch.Size([1])}
    assert groups_of(layout) == {name: group}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [[1, 0]]}, r"rewards of shape \(1, 2\); give one a completion"),
        ({"rewards": torch.full((3, 4), torch.nan)}, "a reward is not finite"),
        ({"masses": [0.5, 0.5]}, "masses must be 3 non-negative numbers"),
        ({"masses": [0.5, 0.6, -0.1]}, "masses must be 3 non-negative numbers"),
    ],
)
def test_bad_rewards_and_masses(tiny_model, change, message):
    with pytest.raises(UserError, match=message):
        CompletionPasses(tiny_model(), completions(), **{"rewards": REWARDS, **change})


def test_rewards_and_masses_are_kept(tiny_model):
    passes = CompletionPasses(tiny_model(), completions(), REWARDS)
    assert passes.rewards.tolist() == REWARDS
    assert passes.masses.tolist() == [1 / 3] * 3
    given = CompletionPasses(tiny_model(), completions(), REWARDS, [0.5, 0.25, 0.25])
    assert given.masses.tolist() == [0.5, 0.25, 0.25]


def test_refusals(tiny_model):
    passes = CompletionPasses(tiny_model(), completions(), REWARDS)
    v = torch.ones(passes.layout.num_parameters)
    with pytest.raises(UserError, match="unknown method 'backward'"):
        passes.directional(v, "backward")
    with pytest.raises(UserError, match=r"a vector of shape \(3,\)"):
        passes.directional(v[:3])
    with pytest.raises(UserError, match="not finite"):
        passes.directional(v * torch.inf)
    with pytest.raises(UserError, match=r"coefficients of shape \(4,\)"):
        passes.gradient(torch.ones(4))
    with pytest.raises(UserError, match="a coefficient is not finite"):
        passes.gradient(torch.full((3, 4), torch.nan))
    with pytest.raises(UserError, match="no part is given"):
        inner_products(passes.layout, v, v, {})


def test_a_model_that_ignores_the_packing_is_not_packed(tiny_model):
    model = tiny_model("gptj")
    plain = model.forward

    def deaf(*args, attention_mask=None, logits_to_keep=0, **kwargs):
        return plain(*args, logits_to_keep=logits_to_keep, **kwargs)

    model.forward = deaf
    _, gradients = every_gradient(model)
    passes = CompletionPasses(model, completions(), REWARDS)
    assert not passes.packing.packed
    assert passes.packing.gap > 0.01
    assert "GPTJForCausalLM gives log p" in str(passes.packing)
    c = random(3, 4)
    close(passes.gradient(c), torch.einsum("xi,xid->d", c, gradients), 1e-6)
    with pytest.raises(UserError, match="cannot be packed: GPTJ.*leave packed at 'auto'"):
        CompletionPasses(model, completions(), REWARDS, packed=True)


def test_without_a_forward_derivative_differences_are_taken(tiny_model):
    """BLOOM has an activation with a backward derivative only."""
    model = tiny_model("bloom", dtype="float32")
    _, gradients = every_gradient(model)
    passes = CompletionPasses(model, completions(), REWARDS)
    v = random(passes.layout.num_parameters)
    close(passes.directional(v), gradients.double() @ v, 2e-3)
    assert passes.last_error < 1e-3
    with pytest.raises(UserError, match="no derivative in forward mode .*; use method='central'"):
        passes.directional(v, "forward")


def test_differences_and_forward_mode_agree_on_a_real_model(smollm2):
    """Along a gradient of the same completions, where log pi bends most."""
    model, tokenizer = smollm2
    texts = ["3+4=7\n6*7=42\n2+5=", "3+4=7\n6*7=42\n9*8=", "The capital of France is"]
    drawn = [["7\n", "8\n", "10\n"], ["72\n", "81\n", "17\n"], [" Paris.", " Lyon.", " the city"]]
    made = Completions.from_tokens(
        [tokenizer(text)["input_ids"] for text in texts],
        [[tokenizer(text)["input_ids"] for text in some] for some in drawn],
    )
    passes = CompletionPasses(model, made, [[1, 0, 0]] * 3)
    c = torch.tensor([[2.0, -1, -1]]).repeat(3, 1)
    v = passes.gradient(c)
    exact = passes.directional(v, "forward")
    close(passes.directional(v, "central"), exact, 1e-3)
    assert passes.last_error < module.LIMIT
    # The gradient of one completion, multiplied out.
    one = torch.zeros(3, 3)
    one[1, 2] = 1.0
    product = float(passes.gradient(one).double() @ v.double())
    assert float(exact[1, 2]) == pytest.approx(product, rel=1e-3)
    # The sum over completions is the length of the gradient.
    assert float((c * exact).sum()) == pytest.approx(float(v.double() @ v.double()), rel=1e-3)
