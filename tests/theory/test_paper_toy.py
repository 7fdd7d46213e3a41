"""Section 3.3 of the paper: every printed number of the two-point example, at theta = (-2, -2).

The paper does not print theta; it follows from the weights that it prints. ``decimals`` counts the
printed decimals. The rows without a printed value are further digits of the same example.
"""

import math

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.bounds import conflict_strength, proven_step_size, sufficient_k
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import toy
from passgrad_book.experiments.checks.toy import BOUND, THETA

pytestmark = pytest.mark.statement("prop-conflict-identity", "prop-sufficient-k", "prop-step-size")

WORLD = TwoPointBandit(separation=0.2, hard_fraction=0.5)
CURVE = conflict(WORLD, THETA, ks=[1, 2, 3, 5, 10])
FEATURES = WORLD.features
STEP = ascend(WORLD, THETA, PassAtK(10), step_size=5.0)
# Both E||s||^2 and E||Hess log pi|| are at most ||psi||^2 / 4 for a logistic policy.
BOUNDS = {"margin": -float(CURVE.agreement[1]), "score_bound": BOUND}


def after(step_size, k):
    return float(ascend(WORLD, THETA, PassAtK(10), step_size=step_size).pass_at_k(k)[1])


RATES, GEOMETRY, MOVED = toy.rates_and_weights(), toy.geometry(), toy.step()
PRINTED = {
    "p_e": (RATES["p_easy"], 0.86, 2),
    "p_h": (RATES["p_hard"], 0.10, 2),
    "w_e at k = 10, in 1e-7": (RATES["w_easy"] * 1e7, 2.33, 2),
    "w_h at k = 10": (RATES["w_hard"], 3.88, 2),
    "cos(psi_e, psi_h)": (GEOMETRY["cos_features"], 0.98, 2),
    "kappa": (GEOMETRY["kernel"], -0.01, 2),
    "cos(grad p_e, grad p_h)": (GEOMETRY["cos_success"], -0.98, 2),
    "cos(grad J_1, grad J_10)": (toy.gradients()["cosine"], -0.77, 2),
    "J_1 before": (MOVED["pass_at_1_before"], 0.48, 2),
    "J_1 after": (MOVED["pass_at_1_after"], 0.46, 2),
    "J_10 before": (MOVED["pass_at_10_before"], 0.83, 2),
    "J_10 after": (MOVED["pass_at_10_after"], 0.95, 2),
}

FURTHER = {
    "p_e": (CURVE.success[0], 0.858149, 6),
    "p_h": (CURVE.success[1], 0.099750, 6),
    "w_e at k = 10, in 1e-7": (CURVE.weights[4, 0] * 1e7, 2.32538, 5),
    "w_h at k = 10": (CURVE.weights[4, 1], 3.883882, 6),
    "cos(psi_e, psi_h)": (GEOMETRY["cos_features"], 0.980198, 6),
    "kappa": (GEOMETRY["kernel"], -0.010822, 6),
    "angle of grad J_1 and grad J_10": (math.degrees(math.acos(CURVE.cosine[4])), 140.76, 2),
    "<grad J_1, grad J_10>": (CURVE.inner_product[4], -0.00259956, 8),
    "J_1 before": (STEP.pass_at_k(1)[0], 0.478950, 6),
    "J_1 after": (STEP.pass_at_k(1)[1], 0.464688, 6),
    "J_10 before": (STEP.pass_at_k(10)[0], 0.825177, 6),
    "J_10 after": (STEP.pass_at_k(10)[1], 0.953210, 6),
    "theta_0 after": (STEP.theta[0], -1.12807, 5),
    "theta_1 after": (STEP.theta[1], -1.91281, 5),
    "a_e": (CURVE.agreement[0], 0.0020721, 7),
    "a_h": (CURVE.agreement[1], -0.0013386, 7),
    "||grad J_1||^2, in 1e-4": (CURVE.norm_at_1**2 * 1e4, 3.6673, 4),
    "cos(grad J_1, grad J_2)": (CURVE.cosine[1], -0.7397, 4),
    "cos(grad J_1, grad J_3)": (CURVE.cosine[2], -0.7702, 4),
    "cos(grad J_1, grad J_5)": (CURVE.cosine[3], -0.7745, 4),
    "cos(grad J_1, grad J_10)": (CURVE.cosine[4], -0.774558, 6),
    "threshold in k": (CURVE.threshold, 1.236, 3),
    "k* of Proposition 4.5": (sufficient_k(CURVE, **BOUNDS), 3.836, 3),
    "delta of Corollary 4.4": (conflict_strength(CURVE, 10, **BOUNDS), 0.00259953, 8),
    "largest step of Proposition 4.6, in 1e-4": (
        proven_step_size(CURVE, 10, **BOUNDS, curvature_bound=BOUND) * 1e4,
        4.077,
        3,
    ),
    "the paper's step relative to it": (
        5 / proven_step_size(CURVE, 10, **BOUNDS, curvature_bound=BOUND),
        12263,
        0,
    ),
    "J_1 after a step of 10": (after(10, 1), 0.4552, 4),
    "J_1 after a step of 20": (after(20, 1), 0.4752, 4),
    "J_1 after a step of 40": (after(40, 1), 0.4991, 4),
    "J_10 after a step of 40": (after(40, 10), 0.5293, 4),
}


@pytest.mark.parametrize("numbers", [PRINTED, FURTHER], ids=["as printed", "to further digits"])
def test_the_numbers_of_the_example(numbers, case):
    for name, (value, expected, decimals) in numbers.items():
        with case(number=name):
            assert round(float(value), decimals) == expected


def test_another_theta_does_not_reproduce_them():
    other = conflict(WORLD, (-2.0, 0.0), ks=[10])
    assert round(float(other.success[1]), 2) != 0.10


def test_the_threshold_is_the_change_of_sign():
    assert CURVE.inner_product_at(CURVE.threshold - 1e-6) > 0
    assert CURVE.inner_product_at(CURVE.threshold + 1e-6) < 0
    assert abs(CURVE.inner_product_at(CURVE.threshold)) < 1e-14


def test_the_proven_threshold_is_sufficient_and_not_tight():
    assert sufficient_k(CURVE, **BOUNDS) > CURVE.threshold


def test_the_features_are_those_of_the_paper():
    expected = torch.tensor([[1.0, -0.1], [1.0, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(FEATURES, expected)
