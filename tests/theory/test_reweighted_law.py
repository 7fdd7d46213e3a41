"""Eq. (11): <grad J_k, grad J_1> = E[w_k] times the mean agreement under D_k ~ w_k D."""

import pytest
import torch

from passgrad.interference import conflict
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK

pytestmark = pytest.mark.statement("prop-reweighted-law")

KS = [1, 2, 5, 10, 64]


def test_the_inner_product_is_the_mean_weight_times_the_reweighted_mean_agreement(policy):
    curve = conflict(policy, ks=KS)
    mean_weight = curve.weights @ curve.masses
    for i, k in enumerate(KS):
        law = curve.reweighted(k)
        assert float(law.sum()) == pytest.approx(1, abs=1e-12)
        assert (law >= 0).all()
        product = float(mean_weight[i] * (law @ curve.agreement))
        assert product == pytest.approx(float(curve.inner_product[i]), abs=1e-12)
    # The law of one k does not serve another.
    swapped = float(mean_weight[3] * (curve.reweighted(2) @ curve.agreement))
    assert abs(swapped - float(curve.inner_product[3])) > 1e-6


def test_it_holds_for_any_objective(policy, case):
    """Also where f is not concave: the law only needs weights of positive mean."""
    curve, of_pass_at_1 = conflict(policy), policy.gradient(lambda p: policy.masses @ p)
    for objective in (ArcsinSqrt(), Log(), Log(order=4), LogPassAtK(3)):
        p, direct = policy.objective_gradient(None, objective)
        weighted = policy.masses * objective.weight(p)
        mean = policy.vjp(None, (weighted / weighted.sum())[None])[1][0]
        independent = policy.gradient(lambda p, f=objective: policy.masses @ f.value(p))
        by_law = weighted.sum() * ((weighted / weighted.sum()) @ curve.agreement)
        slope = float(direct @ of_pass_at_1)
        with case(objective=objective.label):
            torch.testing.assert_close(direct, weighted.sum() * mean, atol=1e-12, rtol=1e-12)
            torch.testing.assert_close(direct, independent, atol=1e-11, rtol=1e-9)
            assert float(by_law) == pytest.approx(slope, abs=1e-11)


def test_pass_at_1_leaves_the_law_as_it_is(policy):
    torch.testing.assert_close(conflict(policy).reweighted(1), policy.masses, atol=1e-14, rtol=0)
