"""Second derivatives along a vector, against the Hessian of each completion."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm import curvature as module
from passgrad.lm.completions import Completions
from passgrad.lm.curvature import curvatures
from passgrad.lm.passes import CompletionPasses

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7]]
DRAWN = [[[5, 6], [7], [5, 6]], [[5, 6], [8, 9, 3, 2], [1]]]
REWARDS = [[1, 0, 1], [1, 0, 0]]


def passes_of(model):
    completions = Completions.from_tokens(PROMPTS, DRAWN)
    return CompletionPasses(model, completions, REWARDS, token_budget=16)


def by_backward(model, vector):
    """v^T H v of each completion, as the derivative of <grad, v> by two backward passes."""
    parameters = [p for _, p in model.named_parameters()]
    pieces = vector.split([p.numel() for p in parameters])
    v = [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]
    rows = []
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for prompt, some in zip(PROMPTS, DRAWN, strict=True):
            for target in some:
                logits = model(input_ids=torch.tensor([prompt + target])).logits[0]
                table = logits.log_softmax(-1)[len(prompt) - 1 : -1]
                value = table.gather(-1, torch.tensor(target)[:, None]).sum()
                parts = torch.autograd.grad(value, parameters, create_graph=True)
                slope = sum((a * b).sum() for a, b in zip(parts, v, strict=True))
                again = torch.autograd.grad(slope, parameters)
                rows.append(sum(float((a * b).sum()) for a, b in zip(again, v, strict=True)))
    return torch.tensor(rows, dtype=torch.float64).view(2, 3)


def direction(passes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(passes.layout.num_parameters, generator=generator, dtype=torch.float64)
    return (noise / 20).to(passes.layout.dtype)


def close(a, b, share):
    assert float((a - b).norm()) <= share * float(b.norm())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma"])
def test_forward_over_forward_is_exact(tiny_model, architecture):
    passes = passes_of(tiny_model(architecture))
    v = direction(passes)
    found = curvatures(passes, v, passes.directional(v), method="forward")
    assert (found.method, found.error) == ("forward", 0)
    expected = by_backward(passes.model, v)
    # Norms of transformers run in float32 in some of these models.
    close(found.values, expected, 1e-9 if architecture in ("llama", "gpt2") else 1e-4)
    assert (expected.abs() > 1e-3).all()


def test_central_differences_in_float64(tiny_model):
    passes = passes_of(tiny_model())
    v = direction(passes)
    found = curvatures(passes, v, passes.directional(v), method="central")
    assert found.method == "central"
    assert 0 < found.error < module.TOLERANCE
    close(found.values, by_backward(passes.model, v), module.TOLERANCE)


def test_central_differences_in_float32(tiny_model):
    passes = passes_of(tiny_model(dtype="float32"))
    before = passes.layout.flatten(passes.model)
    v = direction(passes)
    slopes = passes.directional(v, "forward")
    found = curvatures(passes, v, slopes, method="central")
    close(found.values, curvatures(passes, v, slopes, method="forward").values, 2e-2)
    assert torch.equal(before, passes.layout.flatten(passes.model))


def test_a_model_without_second_forward_derivatives_takes_differences(tiny_model, monkeypatch):
    passes = passes_of(tiny_model())
    v = direction(passes)
    slopes = passes.directional(v)
    monkeypatch.setattr(module, "_silu", lambda x, inplace: torch.ops.aten.silu(x))
    found = curvatures(passes, v, slopes)
    assert found.method == "central"
    with pytest.raises(NotImplementedError, match="forward AD with aten::silu_backward"):
        curvatures(passes, v, slopes, method="forward")


def test_a_wrong_forward_derivative_is_found_out(tiny_model, monkeypatch):
    """That of layer_norm as torch has it."""
    passes = passes_of(tiny_model("gpt2"))
    v = direction(passes)
    slopes = passes.directional(v)
    assert curvatures(passes, v, slopes).method == "forward"
    monkeypatch.setattr(module, "_layer_norm", nn_layer_norm)
    found = curvatures(passes, v, slopes)
    if found.method == "forward":
        pytest.skip("torch has mended its layer_norm")
    close(found.values, by_backward(passes.model, v), module.TOLERANCE)


def nn_layer_norm(x, shape, weight, bias, eps):
    return torch.layer_norm(x, shape, weight, bias, eps)


@pytest.mark.parametrize("method", ["forward", "central"])
def test_only_what_is_asked_for(tiny_model, method):
    passes = passes_of(tiny_model())
    v = direction(passes)
    where = torch.tensor([[True, True, False], [False, True, False]])
    slopes = passes.directional(v, where=where)
    found = curvatures(passes, v, slopes, where, method).values
    assert torch.equal(found.isnan(), ~where)
    close(found[where], by_backward(passes.model, v)[where], module.TOLERANCE)
    none = curvatures(passes, v, slopes, torch.zeros_like(where), method).values
    assert none.isnan().all()


def test_a_vector_of_zeros(tiny_model):
    passes = passes_of(tiny_model())
    v = torch.zeros(passes.layout.num_parameters, dtype=torch.float64)
    for method in ("forward", "central"):
        found = curvatures(passes, v, torch.zeros(2, 3), method=method)
        assert torch.equal(found.values, torch.zeros(2, 3).double())


def test_refusals(tiny_model):
    passes = passes_of(tiny_model())
    v = direction(passes)
    with pytest.raises(UserError, match="unknown method"):
        curvatures(passes, v, torch.zeros(2, 3), method="backward")
    with pytest.raises(UserError, match="finite|a vector of shape"):
        curvatures(passes, v[1:], torch.zeros(2, 3))
    with pytest.raises(UserError, match="finite|a vector of shape"):
        curvatures(passes, v * torch.nan, torch.zeros(2, 3))
