"""Forward-mode derivatives along a vector."""

import torch

from passgrad.lm.directional import forward_mode, plain_operations
from passgrad.lm.logprobs import pack, packed_logprobs
from passgrad.lm.tokens import TokenizedPrompt


def test_a_derivative_by_hand():
    parameters = {"a": torch.tensor([2.0, 3.0]), "b": torch.tensor(5.0)}
    tangents = {"a": torch.tensor([1.0, -1.0]), "b": torch.tensor(0.5)}
    value, slope = forward_mode(lambda p: p["a"] * p["b"], parameters, tangents)
    assert value.tolist() == [10, 15]
    assert slope.tolist() == [2 * 0.5 + 5 * 1, 3 * 0.5 - 5 * 1]
    assert not value.requires_grad


def test_against_central_differences(tiny_model):
    """Of log-probabilities in a model whose embedding is used twice."""
    model = tiny_model("gpt2", tied=True)
    [row] = pack([TokenizedPrompt((1, 2, 3, 4), (5, 6)), TokenizedPrompt((1, 2, 3, 7), (5,))])
    named = {name: tensor.detach() for name, tensor in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    tangents = {
        name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for name, tensor in named.items()
    }
    h = 1e-5

    def at(step):
        with torch.no_grad():
            return packed_logprobs(
                model, row, {n: t + step * tangents[n] for n, t in named.items()}
            )

    with plain_operations(model):
        value, slope = forward_mode(lambda p: packed_logprobs(model, row, p), named, tangents)
    torch.testing.assert_close(value, at(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(slope, (at(h) - at(-h)) / (2 * h), atol=1e-6, rtol=1e-6)
    assert slope.abs().min() > 1e-2
