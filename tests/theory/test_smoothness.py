"""The lemma of Appendix C: the Hessian of J_k is at most k^2 G^2 + k F, and in truth of order k."""

import math

import pytest
import torch

from passgrad.objectives import PassAtK
from passgrad_book.experiments.checks import bounds as checks

pytestmark = pytest.mark.statement("lem-smoothness")

KS = [1, 2, 3, 10, 32, 100]


def norms(policy, ks=KS):
    """The largest absolute eigenvalue of the Hessian of each J_k, by autograd."""
    return checks.hessian_norms(policy.p, policy.masses, policy.theta, ks)


def bounds(policy, ks=KS):
    """The paper's, and the sharper one."""
    return checks.smoothness_bounds(
        ks, score_bound=policy.score_bound, curvature_bound=policy.curvature_bound
    )


def test_no_hessian_exceeds_the_bounds(bounded_policy, case):
    start = bounded_policy.theta
    paper, sharp = bounds(bounded_policy)
    assert (sharp <= paper).all()
    for size in (0.01, 0.1, 1.0, 5.0):
        bounded_policy.theta = size * start
        found = norms(bounded_policy)
        with case(size=size, ks=KS, norms=found.tolist()):
            assert (found <= sharp).all()


def test_none_does_in_the_two_point_bandit():
    """The numbers of the claim, to three digits: bounds that grow too loose are seen as well."""
    ratios = checks.smoothness()
    assert ratios["largest_ratio"] == pytest.approx(0.0955, abs=5e-5)
    assert ratios["largest_ratio_sharper"] == pytest.approx(0.1274, abs=5e-5)


def test_the_order_k_is_attained(make_angle_policy, case):
    """At p -> 0 the curvature of the angle policy is 2 k: a bound of lower order would fail."""
    policy = make_angle_policy(0, num_prompts=1)
    policy.theta = 1e-5 * policy.contexts[0]
    paper, sharp = bounds(policy)
    for k, found, of_paper, of_sharp in zip(KS, norms(policy), paper, sharp, strict=True):
        with case(k=k):
            assert float(found) == pytest.approx(2 * k, rel=1e-6)
            # The slack: 4 + 2/e at most for the centred bound, 2 (k + 1) for the paper's.
            assert 1 <= of_sharp / found <= 4 + 2 / math.e
            assert float(of_paper / found) == pytest.approx(2 * (k + 1), rel=1e-6)


def test_the_term_of_the_slopes_is_needed(make_angle_policy, case):
    """k (G^2 + F) alone bounds w_k ||Hess p||, and the Hessian of J_k has a second part.

    Its largest size, which the angle policy has at p = 1 / k, is the rest of the sharper bound.
    """
    for k in (2, 10, 100):
        policy = make_angle_policy(0, num_prompts=1)
        policy.theta = math.asin(math.sqrt(1 / k)) * policy.contexts[0]
        p, slope = policy.success(), policy.gradient(lambda p: p[0])
        second = k * (k - 1) * float((1 - p) ** (k - 2) * slope @ slope)
        sharp = float(bounds(policy, [k])[1])
        hessian = policy.hessian(lambda p, k=k: 1 - (1 - p[0]) ** k)
        first = float(PassAtK(k).weight(p)) * policy.hessian(lambda p: p[0])
        with case(k=k):
            rest = sharp - k * (policy.score_bound + policy.curvature_bound)
            assert second == pytest.approx(rest, rel=1e-9)
            torch.testing.assert_close(
                hessian, first - k * (k - 1) * (1 - p) ** (k - 2) * torch.outer(slope, slope)
            )
