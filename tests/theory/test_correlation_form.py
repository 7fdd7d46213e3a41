"""Appendix A: conflict iff the correlation of weight and agreement is below a negative number."""

import pytest
import torch

from passgrad.interference import conflict
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-correlation-form")

KS = [1.5, 2, 3, 10, 32]


def moments(masses, u, v):
    """Means, deviations and covariance of two functions of the prompt, one prompt at a time."""
    mean_u, mean_v = (
        sum(float(m) * float(x) for m, x in zip(masses, y, strict=True)) for y in (u, v)
    )
    squares = [
        sum(
            float(m) * (float(a) - mean_a) * (float(b) - mean_b)
            for m, a, b in zip(masses, s, t, strict=True)
        )
        for s, t, mean_a, mean_b in (
            (u, u, mean_u, mean_u),
            (v, v, mean_v, mean_v),
            (u, v, mean_u, mean_v),
        )
    ]
    return mean_u, mean_v, squares[0] ** 0.5, squares[1] ** 0.5, squares[2]


def test_it_is_the_identity_divided_by_the_deviations(policy):
    curve = conflict(policy, ks=KS)
    rho, limit = curve.correlation_form()
    for i in range(len(KS)):
        mean, mean_a, sigma_w, sigma_a, covariance = moments(
            policy.masses, curve.weights[i], curve.agreement
        )
        assert float(rho[i]) == pytest.approx(covariance / (sigma_w * sigma_a), abs=1e-10)
        assert float(limit[i]) == pytest.approx(-mean * mean_a / (sigma_w * sigma_a), abs=1e-10)
        product = sigma_w * sigma_a * float(rho[i] - limit[i])
        assert product == pytest.approx(float(curve.inner_product[i]), abs=1e-12)


def test_conflict_is_a_correlation_below_the_limit(make_policy):
    seen = set()
    for seed in range(40):
        curve = conflict(make_policy(seed), ks=KS)
        rho, limit = curve.correlation_form()
        torch.testing.assert_close(rho < limit, curve.inner_product < 0)
        assert (rho.abs() <= 1 + 1e-12).all()
        seen |= set((curve.inner_product < 0).tolist())
    assert seen == {True, False}


def test_a_negative_correlation_is_not_enough(make_policy):
    curves = [conflict(make_policy(seed), ks=[10]) for seed in range(40)]
    assert any(c.correlation_form()[0] < 0 < c.inner_product for c in curves)


def test_the_criterion_is_that_of_the_bandits():
    assert identities.correlation()["mismatches"] == 0
