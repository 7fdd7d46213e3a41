import math

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.tabular import TabularSoftmax
from passgrad_book.experiments.dynamics.plateau import PlateauBandit


def random_theta(world, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(world.num_parameters, dtype=torch.float64, generator=generator)


def rates(world, theta):
    """The definition, for autograd."""
    table = theta.view(world.num_prompts + 1, world.num_actions)
    logits = math.sqrt(world.coupling) * table[0] + math.sqrt(1 - world.coupling) * table[1:]
    return logits.softmax(1).diagonal()


@pytest.mark.parametrize("coupling", [0.0, 0.3, 1.0])
def test_rates_and_jacobian_by_autograd(coupling):
    world = PlateauBandit(3, coupling, num_actions=5)
    theta = random_theta(world)
    p, jacobian = world.success_and_jacobian(theta)
    torch.testing.assert_close(p, rates(world, theta))
    expected = torch.autograd.functional.jacobian(lambda t: rates(world, t), theta)
    torch.testing.assert_close(jacobian, expected)
    assert jacobian.shape == (3, 20)


def test_the_kernel_is_that_of_the_docstring():
    world = PlateauBandit(4, 0.7)
    theta = random_theta(world)
    table = theta.view(5, 4)
    policy = (math.sqrt(0.7) * table[0] + math.sqrt(0.3) * table[1:]).softmax(1)
    slope = policy.diagonal()[:, None] * (torch.eye(4, dtype=torch.float64) - policy)
    expected = (0.7 + 0.3 * torch.eye(4, dtype=torch.float64)) * (slope @ slope.T)
    torch.testing.assert_close(world.kernel(theta), expected)


def test_without_coupling_it_is_the_table():
    world, table = PlateauBandit(3, 0.0), TabularSoftmax(3, 3, correct=[0, 1, 2])
    theta = random_theta(world)
    torch.testing.assert_close(world.success(theta), table.success(theta[3:]))
    torch.testing.assert_close(world.kernel(theta), table.kernel(theta[3:]))


def test_the_start():
    world = PlateauBandit(4, 0.5)
    p = world.success(world.start(2.0))
    assert float(p[0]) == pytest.approx(1 / 4)
    for hard in p[1:]:
        assert float(hard) == pytest.approx(1 / (math.exp(2.0) + 3))
    assert world.groups == ("easy", "hard", "hard", "hard")


def test_pass_at_1_stalls_and_pass_at_8_does_not():
    world = PlateauBandit(8, 0.5, masses=[0.2] + [0.8 / 7] * 7)
    ends = {
        k: ascend(world, world.start(), PassAtK(k), step_size=4.0, steps=100).pass_at_k(1)[-1]
        for k in (1, 8)
    }
    assert 0.19 < ends[1] < 0.2 < 0.4 < ends[8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_prompts": 1}, "at least 2 prompts"),
        ({"num_prompts": 3, "num_actions": 2}, "3 prompts and 2 actions"),
        ({"coupling": 1.1}, "coupling must lie between 0 and 1, got 1.1"),
        ({"coupling": math.nan}, "coupling must lie between 0 and 1, got nan"),
        ({"num_prompts": 2, "masses": [1.0]}, "one entry for each of 2"),
        ({"num_prompts": 2, "masses": [0.7, 0.7]}, "sum to one"),
        ({"num_prompts": 2, "masses": [-0.5, 1.5]}, "non-negative"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        PlateauBandit(**arguments)


def test_prompts_of_one_policy_cannot_lean_apart():
    with pytest.raises(UserError, match="coupling below 1"):
        PlateauBandit(2, 1.0).start()
