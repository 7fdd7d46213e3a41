"""Proposition B.1: where kappa >= 0, all pass@k and pass@m gradients agree."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-positive-kernel")


def gradient(world, theta, k):
    return world.objective_gradient(theta, PassAtK(k))[1]


@settings(deadline=None)  # the machine may be busy
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.floats(1, 200),
    m=st.floats(1, 200),
)
def test_no_pair_of_orders_conflicts_under_a_nonnegative_kernel(given_world, seed, k, m):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(5, dtype=torch.float64, generator=generator)
    jacobian = torch.rand(5, 3, dtype=torch.float64, generator=generator)
    world = given_world(p, jacobian)
    assert (world.kernel() >= 0).all()
    of_k, of_m = gradient(world, None, k), gradient(world, None, m)
    assert of_k @ of_m >= 0
    # Appendix B: the product is E[w_k(x) w_m(x') kappa(x, x')] over independent prompts.
    w_k, w_m = (world.masses * PassAtK(order).weight(p) for order in (k, m))
    torch.testing.assert_close(of_k @ of_m, w_k @ world.kernel() @ w_m, atol=1e-12, rtol=1e-12)


def test_the_premise_is_needed():
    world, theta = TwoPointBandit(), [-2.0, -2.0]
    assert world.kernel(theta)[0, 1] < 0
    assert gradient(world, theta, 10) @ gradient(world, theta, 1) < 0


def test_it_holds_in_the_bandits():
    found = identities.positive_kernel()
    assert found["smallest_kernel"] >= 0
    assert found["smallest_cosine"] >= 0
    assert identities.pairs()["gap"] < 1e-12


def test_every_pair_is_the_mean_of_weighted_kernels(setting):
    assert identities.pairs([setting])["gap"] < 1e-12
