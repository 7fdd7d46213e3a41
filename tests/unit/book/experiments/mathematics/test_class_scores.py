"""Inner products of mean scores: against gradients of all weights and of the readings."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.groups import HIDDEN_STATE, OUTPUT_USE
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.parts import ModelParts
from passgrad_book.experiments.mathematics.class_scores import READINGS, class_scores

PROMPTS = [[1, 2, 3, 4], [9, 8, 7], [9, 8, 6]]
DRAWN = [[[5, 6], [7], [5, 6]], [[1], [2, 2], [3, 3, 3]], [[1], [1], [4, 2]]]
BASES = [
    torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]).double(),
    torch.zeros(0, 3).double(),
    torch.tensor([[0.0, 0.0, 1.0]]).double(),
]


def gradients(model, passes):
    """The vectors one by one, in the readings and whole."""
    parts = ModelParts(passes)
    rows = {name: [] for name in READINGS}
    gain = next(part.units for part in parts.parts if part.name == "final norm gain")
    output = next(part.units for part in parts.parts if part.name == "output layer")
    for x, basis in enumerate(BASES):
        for row in basis:
            c = torch.zeros(3, 3, dtype=torch.float64)
            c[x] = row
            found = parts.gradient(c)
            rows["all parameters"].append(passes.gradient(c))
            rows["final norm gain"].append(torch.cat([found[name].flatten() for name in gain]))
            rows["final hidden state"].append(found[HIDDEN_STATE])
            rows["output layer"].append(torch.cat([found[name].flatten() for name in output]))
    assert output == ((OUTPUT_USE,) if model.config.tie_word_embeddings else ("lm_head.weight",))
    return {name: torch.stack(some).double() for name, some in rows.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("budget", [6, 1000])
def test_the_products_are_those_of_the_gradients(tiny_model, tied, budget):
    model = tiny_model(tied=tied)
    completions = Completions.from_tokens(PROMPTS, DRAWN)
    passes = CompletionPasses(model, completions, torch.zeros(3, 3), token_budget=budget)
    found = class_scores(passes, BASES, size=2**13, seed=1)
    exact = {name: rows @ rows.T for name, rows in gradients(model, passes).items()}
    for name in ("final norm gain", "final hidden state"):
        torch.testing.assert_close(found.kernels[name], exact[name], rtol=1e-5, atol=1e-6)
    for name in ("all parameters", "output layer"):
        lengths = exact[name].diagonal().sqrt()
        error = (found.kernels[name] - exact[name]) / torch.outer(lengths, lengths)
        assert error.abs().max() < 5 * 2**-6.5
    if budget == 1000:
        said = found.kernels["all parameters"].diagonal() / exact["all parameters"].diagonal() - 1
        assert found.sketch_error == pytest.approx(float(said.square().mean().sqrt()), rel=1e-3)


def test_what_does_not_fit(tiny_model):
    completions = Completions.from_tokens(PROMPTS, DRAWN)
    passes = CompletionPasses(tiny_model(), completions, torch.zeros(3, 3))
    with pytest.raises(UserError, match="for each of the 3 prompts"):
        class_scores(passes, BASES[:2])
    with pytest.raises(UserError, match="size is 0"):
        class_scores(passes, BASES, size=0)
    nothing = class_scores(passes, [torch.zeros(0, 3).double()] * 3, size=64)
    assert nothing.kernels["all parameters"].shape == (0, 0)
