"""Assumption 4.3 for a logistic policy: it holds if the features are bounded, and only then."""

import pytest
import torch

from passgrad.worlds.bandit import Bandit, GaussianBandit, TwoPointBandit

pytestmark = pytest.mark.statement("lem-logistic-scores")


def score_moments(world, theta):
    """E_y||s||^2 and E_y||Hess log pi|| of every prompt: both answers enumerated, by autograd."""
    theta = torch.as_tensor(theta, dtype=torch.float64)

    def logs(theta, psi):
        z = theta @ psi
        return torch.stack([z, torch.zeros_like(z)]).log_softmax(dim=0)

    def of_prompt(psi):
        pi = logs(theta, psi).exp()
        scores = torch.func.jacrev(logs)(theta, psi)
        hessians = torch.func.jacfwd(torch.func.jacrev(logs))(theta, psi)
        return pi @ scores.square().sum(dim=1), pi @ torch.linalg.matrix_norm(hessians, ord=2)

    return torch.func.vmap(of_prompt)(world.features)


def thetas(count, size=4.0):
    generator = torch.Generator().manual_seed(0)
    return size * torch.randn(count, 2, dtype=torch.float64, generator=generator)


def test_both_moments_are_p_times_1_minus_p_times_the_squared_feature(case):
    for theta in thetas(6):
        with case(theta=theta):
            world = GaussianBandit(num_nodes=9)
            p = world.success(theta)
            expected = p * (1 - p) * world.features.square().sum(dim=1)
            for moment in score_moments(world, theta):
                torch.testing.assert_close(moment, expected, atol=1e-14, rtol=1e-9)


def test_the_two_point_bandit_satisfies_it():
    world = TwoPointBandit()
    bound = 1.01 / 4
    for theta in thetas(40):
        for moment in score_moments(world, theta):
            assert (moment <= bound * (1 + 1e-12)).all()
    # and no smaller constant does
    for moment in score_moments(world, [0.0, 0.0]):
        torch.testing.assert_close(moment, torch.full_like(moment, bound))


def test_truncated_features_satisfy_it(case):
    for cut in [1.0, 2.0, 4.0]:
        with case(cut=cut):
            s = GaussianBandit().features[:, 1]
            s = s[s.abs() <= cut]
            world = Bandit(s, s > 0, torch.full_like(s, 1 / len(s)))
            bound = (1 + cut**2) / 4
            for theta in [[0.0, 0.0], *thetas(2).tolist()]:
                for moment in score_moments(world, theta):
                    assert (moment <= bound * (1 + 1e-12)).all()


def test_gaussian_features_do_not():
    """At theta = 0 the moment is ||psi||^2 / 4: it grows with the largest of the features drawn."""
    population = GaussianBandit()
    largest = [
        float(score_moments(population.sample(n // 2, n // 2, seed=1), [0.0, 0.0])[0].max())
        for n in (2, 20, 200, 2000)
    ]
    assert largest == sorted(largest)
    assert largest[-1] > 2 * 1.01 / 4 * 4  # more than eight times the constant of the two points
    # Whatever the constant, a feature exceeds it: E||s||^2 = (1 + s^2) / 4 > G^2.
    for bound in (1.0, 100.0, 1e6):
        s = torch.tensor([2 * bound**0.5], dtype=torch.float64)
        world = Bandit(s, s > 0, torch.ones_like(s))
        assert score_moments(world, [0.0, 0.0])[0] > bound
