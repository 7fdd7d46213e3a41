import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import advantages, is_group_standardised
from passgrad.estimators.rewards import as_rewards


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0, 1, 1], r"shape \(prompts, samples\), got \(3,\)"),
        (np.zeros((2, 0)), r"shape \(prompts, samples\), got \(2, 0\)"),
        ([[0, 1], [1]], "as many for each prompt"),
        ("rewards", "must be numbers"),
        ([[1, 0], [0, float("nan")]], r"rewards\[1, 1\] is nan: give every sample a finite"),
        ([[1, float("inf")]], r"rewards\[0, 1\] is inf"),
        (np.array([[1j]]), "real numbers"),
    ],
)
def test_what_is_refused(bad, message):
    with pytest.raises(UserError, match=message) as caught:
        advantages(bad, 1)
    assert "\n" not in str(caught.value)


def test_kinds_and_types():
    for values in ([[0, 1]], np.array([[0, 1]]), np.array([[False, True]]), torch.tensor([[0, 1]])):
        tensor, binary = as_rewards(values)
        assert tensor.dtype == torch.float64
        assert binary
    for dtype in (torch.float16, torch.float32):
        tensor, binary = as_rewards(torch.tensor([[0, 1, 0.5]], dtype=dtype))
        assert tensor.dtype == dtype
        assert not binary
    large = torch.full((1, 70000), 1.0, dtype=torch.float16)
    assert as_rewards(large)[1]  # its sum is no float16


def test_the_graph_ends_here():
    rewards = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert not advantages(rewards, 1).requires_grad


@pytest.mark.parametrize("name", ["plug-in", "plug-in-loo", "u-weight", "plug-in-centred", "maxrl"])
def test_binary_where_it_is_required(name):
    with pytest.raises(
        UserError, match=rf"{name} is defined for rewards of 0 and 1, but rewards\[0, 1\] is 0.5"
    ):
        advantages([[1, 0.5, 0]], None if name == "maxrl" else 2, estimator=name)


def test_standardised_rewards_are_refused_under_pass_at_k():
    raw = torch.randint(0, 2, (20, 8), generator=torch.Generator().manual_seed(0)).double()
    for correction, epsilon in ((0, 0.0), (1, 1e-6), (1, 1e-4)):
        deviation = raw.std(dim=1, correction=correction, keepdim=True) + epsilon
        done = (raw - raw.mean(dim=1, keepdim=True)) / deviation
        assert is_group_standardised(done)
        with pytest.raises(UserError, match="look standardised within each group"):
            advantages(done, 4)


@pytest.mark.parametrize(
    "values",
    [
        [[0, 1, 1, 0]],
        [[-1, 1, 1, -1]],
        [[0.2, 0.9, -0.4, 0.1]],
        [[0.5]],
        [[0, 0, 0, 0]],
    ],
)
def test_raw_rewards_are_not_taken_for_standardised(values):
    assert not is_group_standardised(values)


def test_one_prompt_that_is_not_standardised_settles_it():
    done = torch.tensor([[1.5, -0.5, -0.5, -0.5]]).double()
    assert is_group_standardised(done)
    assert not is_group_standardised(torch.cat([done, done + 0.1]))
