"""Eqs. (2) and (3): grad E[f(p)] = E[f'(p) grad p], for every objective of the package."""

import math

import pytest
import torch

from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, Mixture, PassAtK

pytestmark = pytest.mark.statement("prop-weighted-gradient")

# The functions are written out here, so that a wrong weight has nothing to hide behind.
FUNCTIONS = {
    PassAtK(1): lambda p: p,
    PassAtK(10): lambda p: 1 - (1 - p) ** 10,
    ArcsinSqrt(): lambda p: 2 * p.sqrt().asin(),
    # An arcsine as the angle of a triangle: asin itself is inaccurate near 1.
    ArcsinSqrt(4): lambda p: torch.atan2((1 - (1 - p) ** 4).sqrt(), (1 - p) ** 2) / 2,
    Log(): lambda p: p.log(),
    Log(order=3): lambda p: -((1 - p) + (1 - p) ** 2 / 2 + (1 - p) ** 3 / 3),
    LogPassAtK(5): lambda p: (1 - (1 - p) ** 5).log(),
    Mixture((PassAtK(1), PassAtK(6)), (0.5, 2.0)): lambda p: 0.5 * p + 2 * (1 - (1 - p) ** 6),
}


def test_the_gradient_weighs_each_prompt_by_the_slope_of_the_objective(policy, case):
    rows = torch.stack([policy.gradient(lambda p, x=x: p[x]) for x in range(policy.num_prompts)])
    for objective, function in FUNCTIONS.items():
        direct = policy.gradient(lambda p, f=function: policy.masses @ f(p))
        weighted = (policy.masses * objective.weight(policy.success())) @ rows
        with case(objective=objective.label):
            torch.testing.assert_close(weighted, direct, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(
                policy.objective_gradient(None, objective)[1], direct, rtol=1e-9, atol=1e-12
            )


def test_the_gradient_of_each_prompt_is_that_of_its_success_rate_times_the_weight(policy, case):
    rows = torch.func.jacrev(policy.p)(policy.theta)
    for objective, function in FUNCTIONS.items():
        weights = objective.weight(policy.success())
        of_f = torch.func.jacrev(lambda theta, f=function: f(policy.p(theta)))(policy.theta)
        with case(objective=objective.label):
            torch.testing.assert_close(of_f, weights[:, None] * rows, rtol=1e-9, atol=1e-12)
            assert (weights > 0).all()


def test_the_weight_of_another_objective_is_refuted(policy):
    p = policy.success()
    direct = policy.gradient(lambda p: policy.masses @ (1 - (1 - p) ** 10))
    for wrong in (PassAtK(9).weight(p), Log().weight(p), p * PassAtK(10).weight(p)):
        _, rows = policy.vjp(None, (policy.masses * wrong)[None])
        assert (rows[0] - direct).norm() > 1e-6


def test_a_step_along_it_raises_the_objective(policy):
    for objective, function in FUNCTIONS.items():
        _, gradient = policy.objective_gradient(None, objective)
        step = 1e-6 / gradient.norm()

        def value(theta, function=function):
            return float(policy.masses @ function(policy.p(theta)))

        gain = value(policy.theta + step * gradient) - value(policy.theta - step * gradient)
        expected = float(2 * step * gradient @ gradient)
        assert math.isclose(gain, expected, rel_tol=1e-4)
