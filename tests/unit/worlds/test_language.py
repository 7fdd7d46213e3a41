"""Exact success rates and gradients of causal language models, on tiny random ones."""

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.lm.logprobs import packed_logprobs
from passgrad.objectives import PassAtK
from passgrad.tasks.base import Prompt
from passgrad.worlds.language import LanguageWorld

CONTEXTS = ("base: 2+3=5\n4+4=7\n", "other: a+b=c\n")
PROMPTS = (
    Prompt(CONTEXTS[0], "5+6=", "13", "first", "one"),
    Prompt(CONTEXTS[0], "5+6=", "12", "first", "another answer"),
    Prompt(CONTEXTS[0], "2+2=", "4", "first", "short answer"),
    Prompt(CONTEXTS[1], "b+c=", "ef", "second", "two"),
    Prompt(CONTEXTS[1], "b+dd=", "abc", "second", "longer question"),
    Prompt("", "x:", "7", "second", "no context"),
)
MASSES = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.25, 0.05], dtype=torch.float64)
KINDS = [
    ("llama", "float64", True),
    ("llama", "float64", False),
    ("llama", "float32", True),
    ("llama", "float32", False),
    ("gpt2", "float64", True),
    ("qwen2", "float32", True),
    ("gemma", "float32", True),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def kind(request, tiny_model, tiny_tokenizer):
    architecture, dtype, tied = request.param
    model = tiny_model(architecture, dtype=dtype, tied=tied)
    return LanguageWorld(model, tiny_tokenizer, PROMPTS, masses=MASSES)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def exact(request, tiny_model, tiny_tokenizer):
    """Theory in float64."""
    return LanguageWorld(tiny_model(tied=request.param), tiny_tokenizer, PROMPTS, masses=MASSES)


def tolerance(world):
    return 1e-5 if world.dtype == torch.float32 else 1e-12


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- values


def test_packed_values_are_those_of_one_prompt_at_a_time(kind, tiny_tokenizer):
    assert max(len(row.members) for row in kind.rows) >= 3  # something was packed
    alone = LanguageWorld(kind.model, tiny_tokenizer, PROMPTS, packed=False)
    assert [row.members for row in alone.rows] == [(i,) for i in range(len(PROMPTS))]
    packed = kind.log_success()
    torch.testing.assert_close(packed, alone.log_success(), atol=tolerance(kind), rtol=0)
    torch.testing.assert_close(kind.success(), packed.exp(), atol=0, rtol=1e-12)


def test_values_are_those_of_a_plain_computation(kind, tiny_tokenizer, plain_logprob):
    """Token by token from all logits; the text is tokenised here once more."""
    expected = []
    for prompt in PROMPTS:
        prefix = tiny_tokenizer(prompt.context + prompt.question)["input_ids"]
        target = tiny_tokenizer(prompt.answer + "\n")["input_ids"]
        expected.append(plain_logprob(kind.model, prefix, target))
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(kind.log_success(), expected, atol=tolerance(kind), rtol=0)
    assert expected.std() > 0.5  # prompts differ by more than what is tested for


@pytest.mark.parametrize("token_budget", [1, 20, 40, 10_000])
def test_the_token_budget_does_not_change_values(exact, tiny_tokenizer, token_budget):
    other = LanguageWorld(exact.model, tiny_tokenizer, PROMPTS, token_budget=token_budget)
    torch.testing.assert_close(other.log_success(), exact.log_success(), atol=1e-12, rtol=0)


def test_none_stands_for_the_models_weights(kind):
    theta = torch.cat([p.detach().reshape(-1) for p in kind.model.parameters()])
    assert kind.num_parameters == len(theta)
    assert torch.equal(kind.own_parameters(), theta)
    assert torch.equal(kind.log_success(), kind.log_success(theta))
    weights = random(1, 6)
    assert torch.equal(kind.vjp(None, weights)[1], kind.vjp(theta, weights)[1])


def test_another_theta_is_another_model(exact, tiny_model, tiny_tokenizer):
    tied = exact.model.config.tie_word_embeddings
    other = tiny_model(tied=tied, seed=1)
    theta = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    expected = LanguageWorld(other, tiny_tokenizer, PROMPTS).log_success()
    torch.testing.assert_close(exact.log_success(theta), expected, atol=1e-12, rtol=0)
    assert (exact.log_success() - expected).abs().max() > 0.1


def test_the_chances_of_all_answers_add_up_to_one(make_tokenizer, tiny_model):
    """Every sequence of 4 tokens stops at once, stops after an answer, or does not stop."""
    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=tokenizer)
    answers = ["".join(x) for n in (1, 2, 3) for x in itertools.product("ab=", repeat=n)]
    world = LanguageWorld(model, tokenizer, [("a\n", "b=", answer) for answer in answers])
    prefix = tokenizer("a\nb=")["input_ids"]
    with torch.no_grad():
        stops = torch.zeros((), dtype=torch.float64)
        logits = model(torch.tensor([prefix])).logits[0, -1]
        stops += logits.softmax(0)[tokenizer.convert_tokens_to_ids("\n")]
    end = tokenizer.convert_tokens_to_ids("<end>")
    total = float(world.success().sum() + stops)
    # What is left: an end token somewhere before the stop, or no stop among four tokens.
    rest = 0.0
    letters = [tokenizer.convert_tokens_to_ids(x) for x in "ab="] + [end]
    newline = tokenizer.convert_tokens_to_ids("\n")
    sequences = [(*x, newline) for n in (1, 2, 3) for x in itertools.product(letters, repeat=n)]
    sequences = [x for x in sequences if end in x]
    sequences += list(itertools.product(letters, repeat=4))
    for sequence in sequences:
        ids = torch.tensor([[*prefix, *sequence]])
        with torch.no_grad():
            table = model(ids).logits[0].log_softmax(-1)
        places = range(len(prefix) - 1, ids.shape[1] - 1)
        rest += math.exp(sum(float(table[i, ids[0, i + 1]]) for i in places))
    assert total + rest == pytest.approx(1, abs=1e-12)
    assert total > 0.01
    assert rest > 0.01


def test_long_answers_keep_a_finite_logarithm(tiny_model, tiny_tokenizer):
    world = LanguageWorld(tiny_model(), tiny_tokenizer, [("", "a=", "1" * 400)])
    assert world.success() == 0
    assert -1e5 < float(world.log_success()) < -745


# --- derivatives


def test_gradients_are_finite_differences(exact):
    """Central differences along random directions, weights of either sign."""
    theta = exact.own_parameters()
    weights = random(3, 6)
    p, rows = exact.vjp(theta, weights)
    assert rows.shape == (3, exact.num_parameters)
    assert torch.equal(p, exact.success(theta))
    h = 1e-5
    for seed in range(4):
        v = random(exact.num_parameters, seed=seed)
        slope = (exact.success(theta + h * v) - exact.success(theta - h * v)) / (2 * h)
        torch.testing.assert_close(rows @ v, weights @ slope, atol=1e-8, rtol=1e-6)
        assert (weights @ slope).abs().max() > 1e-3


def test_the_tied_matrix_counts_both_of_its_uses(tiny_model, tiny_tokenizer):
    """With the same numbers, the tied gradient is the sum of the two untied ones."""
    tied, untied = tiny_model(tied=True), tiny_model(tied=False)
    untied.load_state_dict(tied.state_dict())
    assert torch.equal(untied.lm_head.weight, tied.model.embed_tokens.weight)
    both = LanguageWorld(tied, tiny_tokenizer, PROMPTS)
    apart = LanguageWorld(untied, tiny_tokenizer, PROMPTS)
    assert apart.num_parameters == both.num_parameters + untied.lm_head.weight.numel()
    torch.testing.assert_close(both.success(), apart.success(), atol=1e-14, rtol=0)
    weights = random(1, 6)
    name = "model.embed_tokens.weight"
    whole = both.layout.views(both.vjp(None, weights)[1][0])
    parts = apart.layout.views(apart.vjp(None, weights)[1][0])
    expected = parts[name] + parts["lm_head.weight"]
    torch.testing.assert_close(whole[name], expected, atol=1e-12, rtol=0)
    assert min(part.abs().max() for part in (parts[name], parts["lm_head.weight"])) > 1e-4


def test_forward_mode_agrees_with_reverse_mode(kind):
    directions = random(2, kind.num_parameters).to(kind.dtype)
    _, rows = kind.vjp(None, torch.eye(6, dtype=torch.float64))
    expected = directions.double() @ rows.double().T
    slopes = kind.jvp(None, directions)
    assert slopes.dtype == torch.float64
    scale = tolerance(kind) * float(expected.abs().max() + 1)
    torch.testing.assert_close(slopes, expected, atol=10 * scale, rtol=0)


@pytest.mark.parametrize("memory_gib", [6.0, 3e-5])
def test_the_kernel_is_the_gram_matrix(exact, tiny_tokenizer, memory_gib, monkeypatch):
    """Also when matrices are cut."""
    world = LanguageWorld(
        exact.model, tiny_tokenizer, PROMPTS, masses=MASSES, memory_gib=memory_gib
    )
    passes = []
    forward = packed_logprobs
    monkeypatch.setattr(
        "passgrad.worlds.language.packed_logprobs",
        lambda *arguments: passes.append(1) or forward(*arguments),
    )
    kernel = world.kernel()
    cut = memory_gib < 1
    assert len(passes) > 6 * len(world.layout.shapes) if cut else len(passes) == 6
    _, rows = exact.vjp(None, torch.eye(6, dtype=torch.float64))
    # Gradients differ by orders of magnitude, as success rates do: cosines see all of them.
    scale = rows.norm(dim=1)
    cosines = (rows @ rows.T) / torch.outer(scale, scale)
    torch.testing.assert_close(kernel / torch.outer(scale, scale), cosines, atol=1e-10, rtol=0)
    assert (cosines - torch.eye(6, dtype=torch.float64)).abs().max() > 0.1


def test_the_kernel_in_float32(tiny_model, tiny_tokenizer):
    world = LanguageWorld(tiny_model(dtype="float32"), tiny_tokenizer, PROMPTS)
    double = LanguageWorld(tiny_model(dtype="float64"), tiny_tokenizer, PROMPTS)
    kernel, expected = world.kernel(), double.kernel()
    assert kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, expected, atol=1e-4 * float(expected.max()), rtol=0)


def test_objective_gradient_is_one_weighted_vjp(kind):
    for objective in (PassAtK(1), PassAtK(10)):
        p, gradient = kind.objective_gradient(None, objective)
        _, rows = kind.vjp(None, (MASSES * objective.weight(p))[None])
        assert torch.equal(p, kind.success())
        torch.testing.assert_close(gradient, rows[0], atol=0, rtol=0)
        assert gradient.abs().max() > 1e-6


class Storages(TorchDispatchMode):
    """Keeps all that is made within it, and so tells how much of it is as large as a model."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                self.made[storage.data_ptr()] = storage
        return result

    def of_bytes(self, least):
        return sum(storage.nbytes() >= least for storage in self.made.values())


def test_no_copy_of_a_model_is_made(tiny_model, tiny_tokenizer, monkeypatch):
    """Two gradients at a time are what a conflict needs; here all of them are kept."""
    monkeypatch.setattr("passgrad.worlds.base._CHUNK", 64)
    world = LanguageWorld(tiny_model(), tiny_tokenizer, PROMPTS, masses=MASSES)
    own = {parameter.untyped_storage().data_ptr() for parameter in world.model.parameters()}
    size = world.num_parameters * world.dtype.itemsize
    with Storages() as within:
        world.success()
        world.vjp(None, torch.stack([MASSES, MASSES]))
    assert within.of_bytes(size) == 1
    with Storages() as within:
        curve = conflict(world, None, ks=(1, 4, 10))
    assert within.of_bytes(size) == 3
    assert own == {parameter.untyped_storage().data_ptr() for parameter in world.model.parameters()}
    given = conflict(world, world.own_parameters(), ks=(1, 4, 10))
    torch.testing.assert_close(curve.inner_product, given.inner_product, rtol=1e-12, atol=0)
    torch.testing.assert_close(curve.agreement, given.agreement, rtol=1e-5, atol=0)


def test_zero_weights_cost_nothing_and_give_zero(exact):
    weights = torch.zeros(2, 6, dtype=torch.float64)
    weights[1, 3] = 1
    _, rows = exact.vjp(None, weights)
    assert not rows[0].any()
    assert rows[1].any()


def test_the_conflict_identity_holds_in_a_language_model(exact):
    """E[w_k a] from forward mode against <grad J_k, grad J_1> from two gradients."""
    ks = [1, 2, 10, 32]
    curve = conflict(exact, ks=ks)
    one = exact.objective_gradient(None, PassAtK(1))[1]
    for place, k in enumerate(ks):
        direct = float(exact.objective_gradient(None, PassAtK(k))[1] @ one)
        assert curve.inner_product_at(k) == pytest.approx(direct, rel=1e-10)
        assert float(curve.covariance_form()[place]) == pytest.approx(direct, rel=1e-10)
        assert float(curve.inner_product[place]) == pytest.approx(direct, rel=1e-10)
        assert abs(direct) > 1e-8


def test_the_model_is_left_as_it_was(tiny_model, tiny_tokenizer):
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attention = model.config._attn_implementation
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    world.success()
    world.vjp(None, random(2, 6))
    world.jvp(None, random(1, world.num_parameters))
    world.kernel()
    conflict(world, ks=[1, 5])
    trace = ascend(world, objective=PassAtK(4), step_size=0.5, steps=2)
    assert not torch.equal(trace.theta, world.own_parameters())  # the ascent moved
    assert model.state_dict().keys() == before.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.config._attn_implementation == attention
    assert not model.training


def test_dropout_is_off(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    assert torch.equal(world.success(), world.success())


def test_attention_is_restored_after_a_failure(tiny_model, tiny_tokenizer):
    model = tiny_model()
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    attention = model.config._attn_implementation
    with pytest.raises(UserError, match="theta has shape"):
        world.jvp(None, random(1, 3))
    assert model.config._attn_implementation == attention


def test_samples_have_the_exact_frequencies(make_tokenizer, tiny_model, tmp_path):
    """Completions drawn by transformers from a tiny model against p, by an exact test."""
    from scipy.stats import binomtest

    from passgrad.lm.models import save_model
    from passgrad.rollouts.sampling import sample
    from passgrad.tasks.base import Task, exact_match

    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    prompts = tuple(
        Prompt(context, "b=", answer, "", f"{context!r}{answer}")
        for context, answer in itertools.product(("a\n", "ba=b\n"), ("a", "b", "ba", "=b"))
    )
    place = save_model(model, tokenizer, tmp_path / "model")
    task = Task("tiny", prompts, exact_match, "\n", 4)
    n = 2000
    drawn = sample(place, task, num_samples=n, engine="transformers")
    p = LanguageWorld(model, tokenizer, prompts).success()
    assert p.max() > 0.02
    for count, chance in zip(drawn.num_correct, p.tolist(), strict=True):
        assert binomtest(int(count), n, chance).pvalue > 1e-5
    # The test has the power to notice an error of a few per cent.
    best = int(p.argmax())
    assert binomtest(int(drawn.num_correct[best]), n, min(1, 1.5 * float(p[best]))).pvalue < 1e-5


# --- refusals


def refused(message, model, tokenizer, prompts, **options):
    with pytest.raises(UserError, match=message) as caught:
        LanguageWorld(model, tokenizer, prompts, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("", "1+8=", "9", "", "sum"), r"prompt 'sum': the answer '9' merges with the end"),
        (Prompt("", "1+7=", "8", "", "sum"), r"prompt 'sum': the stop '\\n' merges with the answ"),
        (Prompt("a\n\nb", "1+1=", "2", "", "sum"), r"prompt 'sum': the stop '\\n' at character 1 "),
        (Prompt("a", "1+1=", "", "", "sum"), "prompt 'sum': the answer is empty"),
        (Prompt("a", "1+1=", "2\n3", "", "sum"), "prompt 'sum': the answer .* contains the stop"),
        (Prompt("", "", "2", "", "sum"), "prompt 'sum': context and question are empty"),
        (("a", "1=", "9"), "prompt '1': the answer '9' merges"),
    ],
)
def test_a_prompt_is_refused_by_name(tiny_model, tiny_tokenizer, prompt, message):
    refused(message, tiny_model(), tiny_tokenizer, [("", "2+2=", "4"), prompt])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "the list of prompts is empty"),
        ([Prompt("", "1=", "2", "", "x"), Prompt("", "1=", "3", "", "x")], "two prompts .* id 'x'"),
        (["1+1=2"], r"prompt 0 is '1\+1=2'; give a \(context, question, answer\) triple"),
        ([("", "1=")], "prompt 0 is .*; give a"),
        ([("", "1=", 2)], "prompt 0 is .*; give a"),
        ([7], "prompt 0 is 7; give a"),
    ],
)
def test_bad_lists_are_refused(tiny_model, tiny_tokenizer, prompts, message):
    refused(message, tiny_model(), tiny_tokenizer, prompts)


@pytest.mark.parametrize(
    "masses", [[1.0], [0.5, 0.6], [1.5, -0.5], [math.nan, 1.0], [math.inf, 0.0], [[0.5, 0.5]]]
)
def test_bad_masses_are_refused(tiny_model, tiny_tokenizer, masses):
    prompts = [("", "1=", "2"), ("", "1=", "3")]
    refused("masses must be 2 non-negative", tiny_model(), tiny_tokenizer, prompts, masses=masses)


def test_an_empty_stop_is_refused(tiny_model, tiny_tokenizer):
    refused("stop is empty", tiny_model(), tiny_tokenizer, [("", "1=", "2")], stop="")


def test_mixed_dtypes_are_refused(tiny_model, tiny_tokenizer):
    model = tiny_model()
    model.model.norm.float()
    refused("dtypes .*torch.float32.*torch.float64", model, tiny_tokenizer, [("", "1=", "2")])


def test_a_double_newline_is_another_token_behind_a_text(smollm2):
    """The tokens of 'a\\n\\nQuestion' end in two newlines; the lone stop is one token."""
    model, tokenizer = smollm2
    prompts = [Prompt("a\n\nQuestion: 1+1=2\n\n", "Question: 2+2=", "4", "", "trap")]
    message = refused("prompt 'trap': the stop", model, tokenizer, prompts, stop="\n\n")
    assert "at character 1 of the prompt" in message
    assert LanguageWorld(model, tokenizer, [("a\nb: 1+1=2\n", "c: 2+2=", "4")]).success() > 0


def test_a_model_that_ignores_the_mask_is_scored_alone(tiny_model, tiny_tokenizer):
    """Packed it is refused; by itself, the world does not pack it."""
    from transformers import LlamaForCausalLM

    class Ignores(LlamaForCausalLM):
        _supports_attention_backend = False

        def forward(self, input_ids=None, attention_mask=None, **options):
            return super().forward(input_ids=input_ids, **options)

    source = tiny_model(dtype="float32")
    model = Ignores(source.config)
    model.load_state_dict(source.state_dict())
    refused("Ignores gives log p = .* packed and .* alone", model, tiny_tokenizer, PROMPTS,
            packed=True)  # fmt: skip
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    assert "one sequence a row, because Ignores gives log p" in str(world.packing)
    expected = LanguageWorld(source, tiny_tokenizer, PROMPTS)
    assert expected.packing.packed
    assert expected.packing.compared >= 2
    torch.testing.assert_close(world.log_success(), expected.log_success(), atol=1e-5, rtol=0)


def test_a_model_without_position_ids_is_scored_alone(tiny_model, tiny_tokenizer):
    from transformers import LlamaForCausalLM

    class Counts(LlamaForCausalLM):
        """Positions by count, as in older architectures; no choice of logits either."""

        def forward(self, input_ids=None, attention_mask=None, use_cache=None):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask)

    source = tiny_model(dtype="float32")
    model = Counts(source.config)
    model.load_state_dict(source.state_dict())
    refused("Counts does not take packed rows", model, tiny_tokenizer, PROMPTS, packed=True)
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    expected = LanguageWorld(source, tiny_tokenizer, PROMPTS)
    torch.testing.assert_close(world.log_success(), expected.log_success(), atol=1e-5, rtol=0)
    weights = random(1, 6)
    rows, others = world.vjp(None, weights)[1], expected.vjp(None, weights)[1]
    torch.testing.assert_close(rows, others, atol=1e-5, rtol=0)
    assert rows.abs().max() > 1e-3


def test_a_sliding_window_is_honoured(tiny_tokenizer):
    import transformers

    config = transformers.MistralConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4, initializer_range=0.3,
        eos_token_id=0, bos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.MistralForCausalLM(config).double().eval()
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS)
    assert world.packing.packed
    alone = LanguageWorld(model, tiny_tokenizer, PROMPTS, packed=False)
    values = world.log_success()
    torch.testing.assert_close(values, alone.log_success(), atol=1e-6, rtol=0)
    model.config.sliding_window = None
    assert (world.log_success() - values).abs().max() > 0.1


def test_without_a_forward_derivative_differences_are_taken(tiny_model, tiny_tokenizer):
    """BLOOM has an activation with a backward derivative only."""
    world = LanguageWorld(tiny_model("bloom", dtype="float32"), tiny_tokenizer, PROMPTS)
    theta = world.own_parameters().clone()
    direction = random(1, world.num_parameters).float()
    expected = world.vjp(None, torch.eye(6))[1].double() @ direction[0].double()
    found = world.jvp(theta, direction)[0]
    assert (found - expected).norm() < 5e-3 * expected.norm()
    assert torch.equal(theta, world.own_parameters())


def test_the_embedding_of_a_padding_token_in_a_prompt_has_a_derivative(tiny_model, tiny_tokenizer):
    model = tiny_model()
    padding = tiny_tokenizer.convert_tokens_to_ids("+")
    model.model.embed_tokens.padding_idx = padding
    world = LanguageWorld(model, tiny_tokenizer, PROMPTS, masses=MASSES)
    theta = world.own_parameters()
    vector = torch.zeros_like(theta)
    row = world.layout.views(vector)["model.embed_tokens.weight"][padding]
    row += random(len(row))
    differences = (
        world.success(theta + 1e-5 * vector) - world.success(theta - 1e-5 * vector)
    ) / 2e-5
    exact = world.jvp(theta, vector[None])[0]
    torch.testing.assert_close(exact, differences, rtol=1e-5, atol=1e-12)
    rows = world.vjp(theta, torch.eye(len(PROMPTS), dtype=torch.float64))[1]
    torch.testing.assert_close(rows @ vector, exact, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(world.kernel(theta), rows @ rows.T, rtol=1e-9, atol=1e-14)
    assert (exact.abs() > 0).all()
