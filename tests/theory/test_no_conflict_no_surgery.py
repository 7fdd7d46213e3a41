"""Where no two prompts harm each other, PCGrad is the sum and the constrained step the gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad.worlds.base import AnalyticWorld
from passgrad.worlds.tabular import TabularSoftmax

pytestmark = pytest.mark.statement("cor-no-surgery")


class Given(AnalyticWorld):
    """Success rates and a jacobian as they are given."""

    num_parameters = 3

    def __init__(self, p, jacobian):
        self.p, self.jacobian = p, jacobian
        self.masses = torch.full((len(p),), 1 / len(p), dtype=torch.float64)
        self.groups = ("all",) * len(p)

    def own_parameters(self):
        return torch.zeros(3, dtype=torch.float64)

    def success_and_jacobian(self, theta=None):
        return self.p, self.jacobian


def steps(world, theta, k):
    made = {
        name: ConflictFreeDirection(k, aggregator=name)(world, theta)[1]
        for name in ("pcgrad", "constrained")
    }
    rows = [world.objective_gradient(theta, PassAtK(order))[1] for order in (1, k)]
    return made, rows


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**32 - 1), k=st.floats(1, 100))
def test_under_a_nonnegative_kernel(seed, k):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(5, dtype=torch.float64, generator=generator)
    world = Given(p, torch.rand(5, 3, dtype=torch.float64, generator=generator))
    assert (world.kernel() >= 0).all()
    made, (one, other) = steps(world, world.own_parameters(), k)
    torch.testing.assert_close(made["pcgrad"], one + other)
    torch.testing.assert_close(made["constrained"], other)


def test_where_nothing_is_shared():
    world, theta = TabularSoftmax(4), torch.linspace(-2, 2, 8, dtype=torch.float64)
    made, (one, other) = steps(world, theta, 20)
    torch.testing.assert_close(made["pcgrad"], one + other)
    torch.testing.assert_close(made["constrained"], other)


def test_the_premise_is_needed():
    world, theta = TwoPointBandit(), torch.tensor([-2.0, -2.0], dtype=torch.float64)
    made, (one, other) = steps(world, theta, 10)
    assert not torch.allclose(made["pcgrad"], one + other)
    assert not torch.allclose(made["constrained"], other)
