"""Proposition 4.1: <grad J_k, grad J_1> = E[w_k a] = E[w_k] ||grad J_1||^2 + cov(w_k, a)."""

import pytest
import torch

from passgrad.interference import conflict

pytestmark = pytest.mark.statement("prop-conflict-identity")

KS = [1, 2, 3, 7.5, 10, 32, 100]


def direct(policy, k):
    """The inner product of the gradients of the two objectives, by autograd, weights unseen."""
    of_pass_at_k = policy.gradient(lambda p: policy.masses @ (1 - (1 - p) ** k))
    return of_pass_at_k @ policy.gradient(lambda p: policy.masses @ p)


def test_the_three_forms_agree(policy):
    curve = conflict(policy, ks=KS)
    exact = torch.stack([direct(policy, k) for k in KS])
    mean_of_weighted_agreement = torch.tensor(
        [curve.inner_product_at(k) for k in KS], dtype=torch.float64
    )
    for form in (curve.inner_product, mean_of_weighted_agreement, curve.covariance_form()):
        torch.testing.assert_close(form, exact, atol=1e-12, rtol=0)
    assert exact.abs().min() > 1e-10  # else agreement to 1e-12 would say nothing


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
        lambda p, k: (1 - p) ** (k - 1),
        lambda p, k: k * (1 - p) ** k,
        lambda p, k: k * p ** (k - 1),
    ],
)
def test_another_weight_breaks_the_identity(policy, wrong):
    curve = conflict(policy, ks=[3])
    weighted = policy.masses @ (wrong(curve.success, 3) * curve.agreement)
    assert abs(weighted - direct(policy, 3)) > 1e-6


def test_forgetting_the_masses_breaks_the_identity(policy):
    curve = conflict(policy, ks=[3])
    assert abs((curve.weights[0] * curve.agreement).mean() - direct(policy, 3)) > 1e-6


def test_both_signs_occur_among_random_policies(make_policy):
    """The identities above were not checked on harmless cases only."""
    signs = {bool(conflict(make_policy(seed), ks=[10]).inner_product[0] < 0) for seed in range(40)}
    assert signs == {True, False}
