"""Proposition 4.1: <grad J_k, grad J_1> = E[w_k a] = E[w_k] ||grad J_1||^2 + cov(w_k, a)."""

import pytest
import torch

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-conflict-identity")

KS = [1, 2, 3, 7.5, 10, 32, 100]


def direct(policy, k):
    """The inner product of the gradients of the two objectives, by autograd, weights unseen."""
    of_pass_at_k = policy.gradient(lambda p: policy.masses @ (1 - (1 - p) ** k))
    return of_pass_at_k @ policy.gradient(lambda p: policy.masses @ p)


def test_the_three_forms_agree(setting, policy):
    exact = torch.stack([direct(policy, k) for k in KS])
    forms = conflict(policy, ks=KS)
    for form in (forms.inner_product, forms.covariance_form()):
        torch.testing.assert_close(form, exact, atol=1e-12, rtol=0)
    assert exact.abs().min() > 1e-10  # else agreement to 1e-12 would say nothing
    assert identities.inner_product([setting])["gap"] < 1e-12


def test_they_do_in_the_bandits():
    found = identities.inner_product()
    assert found["gap"] < 1e-12
    assert min(found["conflicts"], found["agreements"]) > 0


def test_the_agreements_are_those_of_autograd(policy):
    reference = policy.gradient(lambda p: policy.masses @ p)
    agreement = [
        policy.gradient(lambda p, x=x: p[x]) @ reference for x in range(policy.num_prompts)
    ]
    torch.testing.assert_close(
        conflict(policy).agreement, torch.stack(agreement), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda self, p: (1 - p) ** (self.k - 1),
        lambda self, p: self.k * (1 - p) ** self.k,
        lambda self, p: self.k * p ** (self.k - 1),
    ],
    ids=["without k", "one power more", "of the success"],
)
def test_another_weight_breaks_the_identity(make_policy, monkeypatch, case, wrong):
    monkeypatch.setattr(PassAtK, "weight", wrong)
    for seed in range(5):
        policy = make_policy(seed)
        found = conflict(policy, ks=[3])
        with case(seed=seed):
            for form in (found.inner_product[0], found.covariance_form()[0]):
                assert abs(form - direct(policy, 3)) > 1e-6


def test_forgetting_the_masses_breaks_the_identity(policy):
    curve = conflict(policy, ks=[3])
    assert abs((curve.weights[0] * curve.agreement).mean() - direct(policy, 3)) > 1e-6


def test_both_signs_occur_among_random_policies(make_policy):
    """The identities above were not checked on harmless cases only."""
    signs = {bool(conflict(make_policy(seed), ks=[10]).inner_product[0] < 0) for seed in range(40)}
    assert signs == {True, False}
