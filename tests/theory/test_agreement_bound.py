"""|a(x)| <= G sqrt(p (1 - p)) ||grad J_1||: the score has mean zero."""

import math

import pytest
import torch

from passgrad.bounds import (
    agreement_bound,
    conflict_strength,
    gradient_bound,
    sufficient_k,
)
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import bounds
from passgrad_book.experiments.checks.bounds import BOUND, THETAS, margin

pytestmark = pytest.mark.statement("prop-agreement-bound", "cor-centred-bounds")

WORLD = TwoPointBandit()


def test_the_centred_score_gives_the_same_gradient(policy):
    pi, scores = policy.probabilities(policy.theta), policy.scores()
    rewards = torch.nn.functional.one_hot(policy.correct, 3).double()
    centred = rewards - policy.success()[:, None]
    slope = torch.einsum("xy,xy,xyd->xd", pi, centred, scores)
    torch.testing.assert_close(slope, torch.func.jacrev(policy.p)(policy.theta), atol=1e-12, rtol=0)
    mean_score = torch.einsum("xy,xyd->xd", pi, scores)
    torch.testing.assert_close(mean_score, torch.zeros_like(mean_score), atol=1e-13, rtol=0)


def test_no_prompt_exceeds_the_bound(make_policy, case):
    """With E||s||^2 of the prompt itself in place of G^2, which is as sharp as the bound gets."""
    for seed in range(20):
        policy = make_policy(seed)
        curve = conflict(policy)
        pi, scores = policy.probabilities(policy.theta), policy.scores()
        squares = torch.einsum("xy,xyd,xyd->x", pi, scores, scores)
        p = curve.success
        own = (squares * p * (1 - p)).sqrt() * curve.norm_at_1
        bound = agreement_bound(curve, score_bound=float(squares.max()))
        with case(seed=seed):
            assert (curve.agreement.abs() <= own * (1 + 1e-12)).all()
            assert (own <= bound * (1 + 1e-12)).all()
            # and it is at most a quarter of the paper's
            assert (bound <= float(squares.max()) / 4 * (1 + 1e-12)).all()


def test_none_does_in_the_two_point_bandit():
    found = bounds.agreements()
    assert found["agreement_over_bound"] <= 1
    assert found["bound_over_the_papers"] <= 0.25


def test_it_is_attained(make_angle_policy):
    """One prompt of the angle policy has equality in the bound: no smaller factor will do."""
    policy = make_angle_policy(0, num_prompts=1)
    curve = conflict(policy)
    torch.testing.assert_close(
        agreement_bound(curve, score_bound=policy.score_bound), curve.agreement, rtol=1e-12, atol=0
    )


def test_it_sharpens_strength_and_sufficient_k(case):
    for theta in THETAS:
        curve = conflict(WORLD, theta, ks=[2, 4, 10, 32])
        b = {"margin": margin(curve), "score_bound": BOUND}
        for k, inner in zip(curve.ks.tolist(), curve.inner_product, strict=True):
            sharp = conflict_strength(curve, k, **b, centred=True)
            with case(theta=theta, k=k):
                assert inner <= -sharp + 1e-16
                assert sharp >= conflict_strength(curve, k, **b)
        sharp = sufficient_k(curve, **b, centred=True)
        with case(theta=theta):
            assert curve.threshold <= sharp * (1 + 1e-12)
            assert sharp < sufficient_k(curve, **b)
            assert curve.inner_product_at(sharp * (1 + 1e-9)) < 0


def test_the_numbers_of_the_example():
    curve = conflict(WORLD, (-2.0, -2.0))
    b = {"margin": margin(curve), "score_bound": BOUND}
    ks = (curve.threshold, sufficient_k(curve, **b, centred=True), sufficient_k(curve, **b))
    assert [round(k, 3) for k in ks] == [1.236, 1.498, 3.836]


def test_no_gradient_is_longer_than_the_centred_bound(bounded_policy, case):
    for k in (1, 1.5, 2, 3, 10, 32, 100):
        gradient = bounded_policy.objective_gradient(None, PassAtK(k))[1]
        exact = bounded_policy.gradient(lambda p, k=k: bounded_policy.masses @ (1 - (1 - p) ** k))
        bound = gradient_bound(k, score_bound=bounded_policy.score_bound, centred=True)
        with case(k=k):
            torch.testing.assert_close(gradient, exact, rtol=1e-9, atol=1e-12)
            assert float(gradient.norm()) <= bound * (1 + 1e-12)


def test_the_centred_bound_on_the_gradient_is_attained(make_angle_policy, case):
    policy = make_angle_policy(0, num_prompts=1)
    for k in (1, 2, 10, 100):
        policy.theta = math.asin(math.sqrt(1 / (2 * k))) * policy.contexts[0]  # p = 1 / (2 k)
        p, gradient = policy.objective_gradient(None, PassAtK(k))
        bound = gradient_bound(k, score_bound=policy.score_bound, centred=True)
        with case(k=k):
            assert float(gradient.norm()) == pytest.approx(bound, rel=1e-9)
            assert bound < k * math.sqrt(policy.score_bound)
            slope = 2 * (p * (1 - p)).sqrt()
            assert bound == pytest.approx(float(k * (1 - p) ** (k - 1) * slope))
