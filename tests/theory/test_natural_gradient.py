"""The natural gradient from the kernel, and what is left of the conflict in its metric."""

import pytest
import torch

from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.directions import FisherMetric, NaturalGradient
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

pytestmark = pytest.mark.statement("lem-push-through", "prop-natural-no-conflict")


def test_the_kernel_gives_the_solution_of_the_system_in_the_parameters(policy, case):
    theta, objective = policy.theta, PassAtK(6)
    p, jacobian = policy.vjp(theta, torch.eye(policy.num_prompts, dtype=torch.float64))
    fisher = jacobian.T @ torch.diag(policy.masses / (p * (1 - p))) @ jacobian
    gradient = policy.gradient(lambda p: policy.masses @ objective.value(p))
    for damping in (1e-4, 0.1, 10.0):
        system = fisher + damping * torch.eye(policy.num_parameters, dtype=torch.float64)
        step = NaturalGradient(objective, damping)(policy, theta)[1]
        with case(damping=damping):
            torch.testing.assert_close(
                step, torch.linalg.solve(system, gradient), atol=1e-10, rtol=1e-7
            )


def test_the_fisher_matrix_is_that_of_the_outcome(policy):
    """E[s s^T] of the score of the Bernoulli law of right and wrong."""
    p, jacobian = policy.vjp(policy.theta, torch.eye(policy.num_prompts, dtype=torch.float64))
    by_score = sum(
        mass * (p_x * torch.outer(g, g) / p_x**2 + (1 - p_x) * torch.outer(g, g) / (1 - p_x) ** 2)
        for mass, p_x, g in zip(policy.masses, p, jacobian, strict=True)
    )
    weights = policy.masses / (p * (1 - p))
    torch.testing.assert_close(by_score, jacobian.T @ torch.diag(weights) @ jacobian)


def test_undamped_each_prompt_gains_its_own_weight_times_its_variance(policy, case):
    """For gradients that are linearly independent, the damping tending to zero."""
    assert torch.linalg.matrix_rank(policy.kernel(policy.theta)) == policy.num_prompts
    for k in (1, 5, 30):
        p, step = NaturalGradient(PassAtK(k), 1e-12)(policy, policy.theta)
        moved = policy.jvp(policy.theta, step[None])[0]
        expected = p * (1 - p) * PassAtK(k).weight(p)
        with case(k=k):
            torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


def test_undamped_there_is_no_conflict(policy, case):
    for k in (2, 10, 50):
        direction = ConflictFreeDirection(k, metric=FisherMetric(1e-12))
        p, _ = direction(policy, policy.theta)
        expected = policy.masses @ (p * (1 - p) * PassAtK(k).weight(p))
        gram = direction.history[0].gram
        with case(k=k):
            torch.testing.assert_close(gram[0, 1], expected, atol=1e-6, rtol=1e-4)
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
