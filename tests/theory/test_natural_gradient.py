"""The natural gradient from the kernel, and what is left of the conflict in its metric."""

import pytest
import torch

from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.directions import FisherMetric, NaturalGradient
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

pytestmark = pytest.mark.statement("lem-push-through", "prop-natural-no-conflict")


@pytest.mark.parametrize("damping", [1e-4, 0.1, 10.0])
def test_the_kernel_gives_the_solution_of_the_system_in_the_parameters(policy, damping):
    theta, objective = policy.theta, PassAtK(6)
    identity = torch.eye(policy.num_prompts, dtype=torch.float64)
    p, jacobian = policy.vjp(theta, identity)
    fisher = jacobian.T @ torch.diag(policy.masses / (p * (1 - p))) @ jacobian
    system = fisher + damping * torch.eye(policy.num_parameters, dtype=torch.float64)
    gradient = policy.gradient(lambda p: policy.masses @ objective.value(p))
    expected = torch.linalg.solve(system, gradient)
    step = NaturalGradient(objective, damping)(policy, theta)[1]
    torch.testing.assert_close(step, expected, atol=1e-10, rtol=1e-7)


def test_the_fisher_matrix_is_that_of_the_outcome(policy):
    """E[s s^T] of the score of the Bernoulli law of right and wrong."""
    p, jacobian = policy.vjp(policy.theta, torch.eye(policy.num_prompts, dtype=torch.float64))
    by_score = sum(
        mass * (p_x * torch.outer(g, g) / p_x**2 + (1 - p_x) * torch.outer(g, g) / (1 - p_x) ** 2)
        for mass, p_x, g in zip(policy.masses, p, jacobian, strict=True)
    )
    weights = policy.masses / (p * (1 - p))
    torch.testing.assert_close(by_score, jacobian.T @ torch.diag(weights) @ jacobian)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_undamped_each_prompt_gains_its_own_weight_times_its_variance(policy, k):
    """For gradients that are linearly independent, the damping tending to zero."""
    assert torch.linalg.matrix_rank(policy.kernel(policy.theta)) == policy.num_prompts
    p, step = NaturalGradient(PassAtK(k), 1e-12)(policy, policy.theta)
    moved = policy.jvp(policy.theta, step[None])[0]
    expected = p * (1 - p) * PassAtK(k).weight(p)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("k", [2, 10, 50])
def test_undamped_there_is_no_conflict(policy, k):
    direction = ConflictFreeDirection(k, metric=FisherMetric(1e-12))
    p, _ = direction(policy, policy.theta)
    expected = policy.masses @ (p * (1 - p) * PassAtK(k).weight(p))
    torch.testing.assert_close(direction.history[0].gram[0, 1], expected, atol=1e-6, rtol=1e-4)
    assert expected > 0


def test_the_damping_decides_between_the_two():
    """Little of it, and the two prompts of the bandit do not conflict; much, and they do."""
    world, theta = TwoPointBandit(), torch.tensor([-2.0, -2.0], dtype=torch.float64)
    signs = []
    for damping in (1e-9, 1e-6, 1e-3, 1.0, 1e3):
        direction = ConflictFreeDirection(10, metric=FisherMetric(damping))
        direction(world, theta)
        signs.append(bool(direction.history[0].gram[0, 1] > 0))
    assert signs == sorted(signs, reverse=True)
    assert signs[0]
    assert not signs[-1]


def test_the_independence_is_needed():
    """More prompts than parameters: two directions cannot move all prompts as they would."""
    world, theta = GaussianBandit(num_nodes=41), torch.tensor([-2.0, -2.0], dtype=torch.float64)
    direction = ConflictFreeDirection(10, metric=FisherMetric(1e-10))
    p, _ = direction(world, theta)
    independent = world.masses @ (p * (1 - p) * PassAtK(10).weight(p))
    assert direction.history[0].gram[0, 1] < 0.5 * independent
