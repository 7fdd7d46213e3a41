"""A tabular policy shares nothing between prompts: no k can conflict with pass@1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit
from passgrad.worlds.tabular import TabularSoftmax
from passgrad_book.experiments.checks import controls, identities

pytestmark = pytest.mark.statement("prop-tabular")


def off_diagonal(kernel):
    return kernel - torch.diag(kernel.diagonal())


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20), min_size=12, max_size=12),
    correct=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    ks=st.lists(st.floats(1, 1e5), min_size=1, max_size=6),
    odds=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_it_never_conflicts(logits, correct, ks, odds):
    masses = [o / math.fsum(odds) for o in odds]
    world = TabularSoftmax(4, 3, correct=correct, masses=masses)
    curve = conflict(world, logits, ks)
    assert (off_diagonal(world.kernel(logits)) == 0).all()
    assert (curve.agreement >= 0).all()
    assert (curve.inner_product >= 0).all()


def test_it_has_no_threshold():
    generator = torch.Generator().manual_seed(0)
    theta = 3 * torch.randn(30, dtype=torch.float64, generator=generator)
    assert math.isnan(conflict(TabularSoftmax(10, 3), theta).threshold)


def test_sharing_parameters_is_what_makes_the_difference():
    """The same success rates conflict in the bandit and not in the table."""
    bandit, theta = TwoPointBandit(), [-2.0, -2.0]
    p = bandit.success(theta)
    table = TabularSoftmax(2)
    logits = torch.stack([torch.logit(p), torch.zeros(2, dtype=torch.float64)], dim=1).flatten()
    torch.testing.assert_close(table.success(logits), p)
    assert conflict(bandit, theta, [10]).inner_product < 0
    assert conflict(table, logits, [10]).inner_product > 0


def test_it_does_not_at_random_parameters():
    assert controls.tabular()["smallest"] >= 0


def test_its_gradients_are_those_of_autograd():
    world = TabularSoftmax(4, 3, correct=[0, 2, 1, 0], masses=[0.1, 0.2, 0.3, 0.4])
    theta = torch.linspace(-1, 2, 12, dtype=torch.float64).sin()

    def rates(theta):
        return theta.view(4, 3).softmax(dim=1)[torch.arange(4), world.correct]

    assert identities.inner_product([identities.Setting(world, theta, rates)])["gap"] < 1e-12
