"""<grad J_f, grad J_g> = E[w_f(x) w_g(x') kappa(x, x')] = E[w_f a_g], for any two objectives."""

import itertools

import pytest
import torch

from passgrad.objective_map import agreement, objective_map
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, PassAtK

pytestmark = pytest.mark.statement("prop-objective-identity")

FUNCTIONS = {
    PassAtK(1): lambda p: p,
    PassAtK(6): lambda p: 1 - (1 - p) ** 6,
    ArcsinSqrt(): lambda p: 2 * p.sqrt().asin(),
    Log(): lambda p: p.log(),
    LogPassAtK(3): lambda p: (1 - (1 - p) ** 3).log(),
}
OBJECTIVES = list(FUNCTIONS)
PAIRS = list(itertools.product(range(len(OBJECTIVES)), repeat=2))


def test_the_four_forms_agree(policy):
    direct = [policy.gradient(lambda p, f=f: policy.masses @ f(p)) for f in FUNCTIONS.values()]
    found, kernel, D = objective_map(policy, None, OBJECTIVES), policy.kernel(), policy.masses
    close = {"rtol": 1e-8, "atol": 1e-12}
    for i, j in PAIRS:
        exact = direct[i] @ direct[j]
        w_f, w_g = (OBJECTIVES[m].weight(policy.success()) for m in (i, j))
        a_g = agreement(policy, None, OBJECTIVES[j])
        covariance = (D * (w_f - D @ w_f)) @ (a_g - D @ a_g)
        torch.testing.assert_close(found.inner_products[i, j], exact, **close)
        torch.testing.assert_close((D * w_f) @ kernel @ (D * w_g), exact, **close)
        torch.testing.assert_close(D @ (w_f * a_g), exact, **close)
        torch.testing.assert_close((D @ w_f) * (D @ a_g) + covariance, exact, **close)
        assert exact.abs() > 1e-9  # else the agreement would say nothing


def test_the_mean_agreement_is_a_square_for_pass_at_1_alone(policy):
    """E[w_g a_g] is always ||grad J_g||^2; E[a_g] is it only where w_g is constant."""
    for objective in OBJECTIVES:
        a = agreement(policy, None, objective)
        weighted = policy.masses * objective.weight(policy.success())
        square = float(objective_map(policy, None, [objective]).inner_products)
        assert float(weighted @ a) == pytest.approx(square, rel=1e-9)
        is_square = float(policy.masses @ a) == pytest.approx(square, rel=1e-6)
        assert is_square is (objective == PassAtK(1))


def test_the_mean_agreement_with_another_objective_can_be_negative(make_policy):
    """E[a_g] = <grad J_g, grad J_1>: unlike E[a], it has no sign."""
    means = [
        float(policy.masses @ agreement(policy, None, PassAtK(10)))
        for policy in map(make_policy, range(40))
    ]
    assert min(means) < -1e-6
    assert max(means) > 1e-6


def test_every_other_objective_conflicts_with_pass_at_1_somewhere(make_policy):
    """The identities were not checked on harmless cases only."""
    conflicts = torch.stack(
        [objective_map(make_policy(s), None, OBJECTIVES).conflicts for s in range(60)]
    )
    assert not conflicts.all(dim=0).any()
    by_pair = conflicts.any(dim=0)
    assert not by_pair.diagonal().any()
    assert by_pair[0, 1:].all()
