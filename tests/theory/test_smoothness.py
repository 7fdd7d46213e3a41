"""The lemma of Appendix C: the Hessian of J_k is at most k^2 G^2 + k F, and in truth of order k."""

import math

import pytest
import torch

from passgrad.bounds import smoothness

pytestmark = pytest.mark.statement("lem-smoothness")

KS = [1, 2, 3, 10, 32, 100]


def norm(policy, k):
    """The largest absolute eigenvalue of the Hessian of J_k, by autograd."""
    hessian = policy.hessian(lambda p: policy.masses @ (1 - (1 - p) ** k))
    return float(torch.linalg.eigvalsh(hessian).abs().max())


def bounds(policy, k):
    b = {"score_bound": policy.score_bound, "curvature_bound": policy.curvature_bound}
    return smoothness(k, **b, centred=True), smoothness(k, **b)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("size", [0.01, 0.1, 1.0, 5.0])
def test_no_hessian_exceeds_the_bounds(bounded_policy, k, size):
    bounded_policy.theta = size * bounded_policy.theta
    sharp, paper = bounds(bounded_policy, k)
    assert norm(bounded_policy, k) <= sharp <= paper


@pytest.mark.parametrize("k", KS)
def test_the_order_k_is_attained(make_angle_policy, k):
    """At p -> 0 the curvature of the angle policy is 2 k: a bound of lower order would fail."""
    policy = make_angle_policy(0, num_prompts=1)
    policy.theta = 1e-5 * policy.contexts[0]
    found = norm(policy, k)
    assert found == pytest.approx(2 * k, rel=1e-6)
    # The slack: 4 + 2/e at most for the centred bound, 2 (k + 1) for the paper's.
    sharp, paper = bounds(policy, k)
    assert 1 <= sharp / found <= 4 + 2 / math.e
    assert paper / found == pytest.approx(2 * (k + 1), rel=1e-6)


@pytest.mark.parametrize("k", [2, 10, 100])
def test_the_term_of_the_slopes_is_needed(make_angle_policy, k):
    """k (G^2 + F) alone bounds w_k ||Hess p||, and the Hessian of J_k has a second part."""
    policy = make_angle_policy(0, num_prompts=1)
    policy.theta = math.asin(math.sqrt(1 / k)) * policy.contexts[0]
    p, slope = policy.success(), policy.gradient(lambda p: p[0])
    second = k * (k - 1) * float((1 - p) ** (k - 2) * slope @ slope)
    assert second == pytest.approx((k - 1) * (1 - 1 / k) ** (k - 1) * policy.score_bound, rel=1e-9)
    hessian = policy.hessian(lambda p: 1 - (1 - p[0]) ** k)
    first = k * float((1 - p) ** (k - 1)) * policy.hessian(lambda p: p[0])
    torch.testing.assert_close(
        hessian, first - k * (k - 1) * (1 - p) ** (k - 2) * torch.outer(slope, slope)
    )
