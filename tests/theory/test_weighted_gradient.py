"""Eqs. (2)-(4): grad J_k = E[w_k grad p] with grad p = E_y[r s], the score-function form."""

import pytest
import torch

from passgrad.objectives import PassAtK
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-weighted-gradient")

KS = [1, 2, 3.5, 10, 32]


def slopes(policy):
    """E_y[r s] of every prompt, (N, d), all answers enumerated."""
    probabilities = policy.probabilities(policy.theta)
    rewards = torch.nn.functional.one_hot(policy.correct, 3)
    return torch.einsum("xy,xy,xyd->xd", probabilities, rewards.double(), policy.scores())


def test_the_gradient_is_the_mean_of_weighted_score_functions(policy, setting, case):
    for k in KS:
        weights = policy.masses * PassAtK(k).weight(policy.success())
        exact = setting.gradient_at(k)
        with case(k=k):
            torch.testing.assert_close(weights @ slopes(policy), exact, atol=1e-12, rtol=0)
            assert exact.norm() > 1e-8
            _, gradient = policy.objective_gradient(None, PassAtK(k))
            torch.testing.assert_close(gradient, exact, atol=1e-12, rtol=0)
    assert identities.weighted_gradient([setting])["gap"] < 1e-12


def test_it_is_in_the_bandits():
    assert identities.weighted_gradient()["gap"] < 1e-12


def test_the_kernel_is_the_mean_product_of_rewarded_scores(policy):
    """Eq. (5): kappa(x, x') = E[r r' <s, s'>] over independent answers."""
    torch.testing.assert_close(
        policy.kernel(), slopes(policy) @ slopes(policy).T, atol=1e-12, rtol=0
    )


def test_a_weight_of_the_success_in_place_of_the_failure_is_refuted(setting, monkeypatch):
    monkeypatch.setattr(PassAtK, "weight", lambda self, p: self.k * p ** (self.k - 1))
    assert identities.weighted_gradient([setting])["gap"] > 1e-6
