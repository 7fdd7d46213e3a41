"""What cannot be measured is refused on a few tokens, in one line that names the architecture."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.trial import try_model
from passgrad_book.architectures.families import tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [4]]


def refused(model, message):
    with pytest.raises(UserError, match=message) as caught:
        try_model(model, PROMPTS)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("kind", ["mistral", "mixtral", "bloom", "mamba", "recurrent_gemma"])
def test_those_that_can_be_measured_pass(kind):
    model = tiny(kind)
    before = {name: p.clone() for name, p in model.named_parameters()}
    try_model(model, PROMPTS)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_model_that_looks_ahead(tiny_model):
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": 40}
    config = BertConfig(intermediate_size=16, initializer_range=0.3, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertLMHeadModel(config)
    refused(model, "BertLMHeadModel is no causal language model: .*depend on later tokens")


def test_logits_that_are_not_finite(tiny_model):
    model = tiny_model(dtype="float32")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    refused(model, "LlamaForCausalLM gives logits that are not finite")


def test_a_model_that_fails(tiny_model):
    model = tiny_model(dtype="float32")
    model.model.layers[0].self_attn.q_proj = torch.nn.Linear(32, 31)
    refused(model, r"LlamaForCausalLM cannot be measured: it fails on the first prompts \(")


def test_a_derivative_that_is_not_that_of_the_gradient(tiny_model):
    """An operation whose gradient is not that of its value."""
    model = tiny_model(dtype="float32")

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    norm = model.model.norm
    model.model.norm = Wrapped(norm, Twice.apply)
    refused(model, "along its own gradient its derivative is .* and the square of the gradient")


class Wrapped(torch.nn.Module):
    def __init__(self, inner, function):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x):
        return self.function(self.inner(x))
