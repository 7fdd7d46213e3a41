"""What a backward pass leaves at the output layer, against variables of their own."""

import pytest
import torch

from passgrad.lm.completions import Completions
from passgrad.lm.head import tied_output, watch_head
from passgrad.lm.passes import CompletionPasses

PROMPTS = [[1, 2, 3, 4], [9, 8, 7]]
DRAWN = [[[5, 6], [7], [5, 6]], [[1], [2, 2], [3, 3, 3]]]


def passes_of(model, **options):
    completions = Completions.from_tokens(PROMPTS, DRAWN)
    return CompletionPasses(model, completions, torch.zeros(2, 3), **options)


def expected(model, c):
    shift = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    matrix = model.get_output_embeddings().weight.detach().clone().requires_grad_()
    total = 0
    for x, (prompt, some) in enumerate(zip(PROMPTS, DRAWN, strict=True)):
        for i, target in enumerate(some):
            body = model.base_model(input_ids=torch.tensor([prompt + target]))
            logits = (body.last_hidden_state[0] + shift) @ matrix.T
            table = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            total = total + c[x, i] * table.gather(-1, torch.tensor(target)[:, None]).sum()
    return torch.autograd.grad(total, [shift, matrix])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("budget", [8, 1000])
def test_both_gradients(tiny_model, architecture, budget):
    model = tiny_model(architecture)
    c = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -0.7]], dtype=torch.float64)
    hidden, matrix = expected(model, c)
    passes = passes_of(model, token_budget=budget)
    plain = passes.gradient(c)
    with watch_head(model, matrix=True) as use:
        watched = passes.gradient(c)
    assert torch.equal(plain, watched)
    torch.testing.assert_close(use.hidden, hidden, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(use.matrix, matrix, rtol=1e-9, atol=1e-12)
    # The rows of the matrix add up to nothing: probabilities add up to one.
    assert use.matrix.sum(0).abs().max() < 1e-10 < use.matrix.abs().max()
    before = use.hidden.clone()
    passes.gradient(c)  # outside: nothing is added
    assert torch.equal(use.hidden, before)


def test_a_matrix_of_its_own_has_its_derivative_as_its_use(tiny_model):
    model = tiny_model(tied=False)
    c = torch.ones(2, 3)
    passes = passes_of(model)
    with watch_head(model, matrix=True) as use:
        found = passes.layout.views(passes.gradient(c))
    torch.testing.assert_close(use.matrix, found["lm_head.weight"])
    with watch_head(model, matrix=False) as use:
        passes.gradient(c)
    assert use.matrix is None
    assert use.hidden.any()


def test_the_name_of_a_tied_matrix(tiny_model):
    assert tied_output(tiny_model()) == "model.embed_tokens.weight"
    assert tied_output(tiny_model("gpt2")) == "transformer.wte.weight"
    assert tied_output(tiny_model(tied=False)) is None


def test_without_a_gradient_there_is_nothing_to_watch(tiny_model):
    model = tiny_model()
    with watch_head(model, matrix=True) as use:
        passes_of(model).logprobs()
    assert not use.hidden.any()
    assert not use.matrix.any()
    assert use.hidden.shape == (32,)
    assert use.matrix.shape == (model.config.vocab_size, 32)
