"""Eq. (11): <grad J_k, grad J_1> = E[w_k] times the mean agreement under D_k ~ w_k D."""

import pytest
import torch

from passgrad.interference import conflict

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


def test_pass_at_1_leaves_the_law_as_it_is(policy):
    torch.testing.assert_close(conflict(policy).reweighted(1), policy.masses, atol=1e-14, rtol=0)
