import pytest
import torch

from passgrad.errors import UserError
from passgrad.worlds.tabular import TabularSoftmax

WORLD = TabularSoftmax(3, 4, correct=[0, 3, 1], masses=[0.2, 0.3, 0.5], groups=["a", "b", "b"])
THETA = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def policy(theta):
    rows = theta.view(3, 4).exp()
    return torch.stack([rows[x, c] / rows[x].sum() for x, c in enumerate((0, 3, 1))])


def test_success_and_jacobian_are_those_of_the_policy():
    p, jacobian = WORLD.success_and_jacobian(THETA)
    torch.testing.assert_close(p, policy(THETA))
    expected = torch.autograd.functional.jacobian(policy, THETA)
    torch.testing.assert_close(jacobian, expected, rtol=1e-12, atol=1e-16)


def test_the_kernel_is_diagonal():
    kernel = WORLD.kernel(THETA)
    assert torch.equal(kernel, torch.diag(kernel.diagonal()))
    assert (kernel.diagonal() > 0).all()


def test_the_law_and_the_labels_are_those_given():
    assert WORLD.masses.tolist() == [0.2, 0.3, 0.5]
    assert WORLD.groups == ("a", "b", "b")
    plain = TabularSoftmax(4)
    assert plain.masses.tolist() == [0.25] * 4
    assert plain.num_parameters == 8
    assert plain.success(torch.zeros(8)).tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "at least 1 prompt and 2 actions, got 0 and 2"),
        ((2, 1), {}, "at least 1 prompt and 2 actions, got 2 and 1"),
        ((2,), {"correct": [0, 2]}, "correct must hold actions from 0 to 1"),
        ((2,), {"correct": [0]}, "correct must have one entry for each of 2 prompts"),
        ((2,), {"groups": ["a"]}, "groups must have one entry"),
        ((2,), {"masses": [0.5, 0.6]}, "masses must be non-negative and sum to one"),
        ((2,), {"masses": [-0.5, 1.5]}, "masses must be non-negative and sum to one"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        TabularSoftmax(*arguments, **options)
