"""Adam's metric, against the step that torch takes."""

import pytest
import torch
from safetensors.torch import save_file

from passgrad.errors import UserError
from passgrad.measurement.metric import PLAIN, Metric, adam_metric, read_adam_metric, shrunk


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = torch.nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))


def trained(steps=5, optimizer=torch.optim.Adam, **options):
    model = Small()
    made = optimizer(model.parameters(), lr=0.1, betas=(0.0, 0.9), eps=1e-3, **options)
    for step in range(steps):
        model.a.grad = torch.full_like(model.a, 0.1 * step) * model.a.detach()
        model.a.grad[0] = 0  # these have never had a gradient
        model.b.grad = torch.cos(model.b.detach() + step)
        made.step()
    return model, made


def test_a_step_is_the_gradient_in_the_metric():
    """Without momentum, and with second moments that change no more."""
    model, optimizer = trained()
    found = adam_metric(optimizer, model)
    assert set(found.inverse) == {"a", "b"}
    before = model.b.detach().clone()
    # A gradient that leaves the running mean where it is: its square is the corrected moment.
    state = optimizer.state[model.b]
    corrected = state["exp_avg_sq"] / (1 - 0.9**5)
    model.a.grad, model.b.grad = None, torch.sign(before) * corrected.sqrt()
    moved = found.inverse["b"] * model.b.grad
    after = (corrected * (1 - 0.9**5) * 0.9 + 0.1 * corrected) / (1 - 0.9**6)
    torch.testing.assert_close(after, corrected)
    optimizer.step()
    torch.testing.assert_close(before - model.b.detach(), 0.1 * moved)


def test_parameters_without_any_gradient_are_left_out():
    model, optimizer = trained()
    inverse = adam_metric(optimizer, model).inverse["a"]
    assert (inverse[0] == 0).all()
    assert (inverse[1:] > 0).all()


def test_amsgrad_takes_the_largest():
    model, optimizer = trained(optimizer=torch.optim.AdamW, amsgrad=True)
    state = optimizer.state[model.b]
    state["max_exp_avg_sq"] = state["exp_avg_sq"] * 4
    inverse = adam_metric(optimizer, model).inverse["b"]
    expected = 1 / ((state["max_exp_avg_sq"] / (1 - 0.9**5)).sqrt() + 1e-3)
    torch.testing.assert_close(inverse, expected)


def test_a_file_says_the_same_as_the_optimizer(tmp_path):
    model, optimizer = trained()
    names = {parameter: name for name, parameter in model.named_parameters()}
    moments = {names[p]: s["exp_avg_sq"].contiguous() for p, s in optimizer.state.items()}
    step, group = int(next(iter(optimizer.state.values()))["step"]), optimizer.param_groups[0]
    about = {"step": str(step), "beta2": str(group["betas"][1]), "eps": str(group["eps"])}
    path = tmp_path / "adam.safetensors"
    save_file(moments, path, about)
    found, expected = read_adam_metric(path), adam_metric(optimizer, model)
    assert found.name == expected.name == "adam"
    for name, values in expected.inverse.items():
        torch.testing.assert_close(found.inverse[name], values)
    assert torch.equal(found.key, expected.key)
    wrapped = {f"base_model.model.{name}": moment for name, moment in moments.items()}
    save_file(wrapped, path, about)
    assert set(read_adam_metric(path).inverse) == {"a", "b"}
    save_file(moments, path)  # taken as corrected
    b = read_adam_metric(path).inverse["b"]
    torch.testing.assert_close(b, 1 / (moments["b"].sqrt() + 1e-8))


@pytest.mark.parametrize(
    ("moments", "about", "message"),
    [
        ({}, {}, "cannot be read"),
        ({"a": torch.tensor([-1.0])}, {}, "negative"),
        ({"a": torch.tensor([torch.nan])}, {}, "not finite"),
        ({"a": torch.ones(1)}, {"beta2": "1"}, "beta2"),
        ({"a": torch.ones(1)}, {"step": "0"}, "step"),
        ({"a": torch.ones(1)}, {"eps": "x"}, "cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path, moments, about, message):
    path = tmp_path / "adam.safetensors"
    save_file(moments, path, about)
    with pytest.raises(UserError, match=message):
        read_adam_metric(path)


def test_files_that_are_pickled_or_absent(tmp_path):
    path = tmp_path / "adam.pt"
    torch.save({"a": torch.ones(3)}, path)
    for one in (path, tmp_path / "none"):
        with pytest.raises(UserError, match="cannot be read as second moments"):
            read_adam_metric(one)


def test_an_optimizer_without_second_moments():
    model = Small()
    for made in (torch.optim.SGD(model.parameters()), torch.optim.Adam(model.parameters())):
        with pytest.raises(UserError, match="exp_avg_sq"):
            adam_metric(made, model)


def test_few_minibatches_are_drawn_to_the_mean():
    square = torch.tensor([[0.0, 4.0], [2.0, 2.0]], dtype=torch.float64)
    found = shrunk({"a": square, "b": torch.zeros(3)}, count=3)
    v = (3 * square + 2.0) / 4
    torch.testing.assert_close(found.inverse["a"], 1 / (v.sqrt() + 1e-8))
    assert (found.inverse["b"] == 0).all()
    one = shrunk({"a": square}, count=3, leading=1)
    torch.testing.assert_close(one.inverse["a"][0], 1 / (((3 * square[0] + 2.0) / 4).sqrt() + 1e-8))


def test_metrics_have_keys_of_their_own():
    some = Metric("adam", {"a": torch.ones(2)})
    keys = [
        PLAIN,
        some,
        Metric("adam", {"a": torch.ones(2) * 2}),
        Metric("adam", {"b": torch.ones(2)}),
    ]
    assert len({tuple(one.key.tolist()) for one in keys}) == 4
    assert torch.equal(some.key, Metric("adam", {"a": torch.ones(2)}).key)
