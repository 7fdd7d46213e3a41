import math
from dataclasses import replace

import pytest
import torch

from passgrad.bounds import (
    agreement_bound,
    conflict_strength,
    gradient_bound,
    proven_step_size,
    smooth_step_size,
    smoothness,
    step_window,
    sufficient_k,
)
from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad.worlds.tabular import TabularSoftmax

WORLD, THETA = TwoPointBandit(), (-2.0, -2.0)
BOUND = 1.01 / 4  # of E||s||^2 and E||Hess log pi||, at every theta


@pytest.fixture(scope="module")
def curve():
    return conflict(WORLD, THETA, ks=[2, 10])


@pytest.fixture
def margin(curve):
    return -float(curve.agreement.min())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_margin_that_is_not_positive_is_refused(curve, bad):
    for function in (
        lambda **b: conflict_strength(curve, 10, **b),
        lambda **b: sufficient_k(curve, **b),
    ):
        with pytest.raises(UserError, match="margin must be positive"):
            function(margin=bad, score_bound=BOUND)


def test_strength_is_the_formula(curve, margin):
    easy, hard = curve.weights[1] / 2
    expected = margin * hard - BOUND * easy
    strength = conflict_strength(curve, 10, margin=margin, score_bound=BOUND)
    assert strength == pytest.approx(float(expected), rel=1e-12)
    own = agreement_bound(curve, score_bound=BOUND)[0]
    centred = conflict_strength(curve, 10, margin=margin, score_bound=BOUND, centred=True)
    assert centred == pytest.approx(float(margin * hard - own * easy), rel=1e-12)


def test_without_a_prompt_below_the_margin_the_strength_is_negative(curve):
    assert conflict_strength(curve, 10, margin=1.0, score_bound=BOUND) < 0
    assert proven_step_size(curve, 10, margin=1.0, score_bound=BOUND, curvature_bound=BOUND) == 0


def test_sufficient_k_is_at_least_1(curve):
    # The hard prompt against an easy one that barely weighs.
    rare = replace(curve, masses=torch.tensor([1e-6, 1 - 1e-6], dtype=torch.float64))
    margin = -float(curve.agreement.min())
    assert sufficient_k(rare, margin=margin, score_bound=BOUND) == 1


@pytest.mark.parametrize("k", [1, 1.5, 2, 10, 1000])
def test_bounds_on_gradients_and_curvature_are_those_of_the_paper(k):
    assert gradient_bound(k, score_bound=4) == pytest.approx(2 * k)
    assert smoothness(k, score_bound=4, curvature_bound=3) == pytest.approx(4 * k**2 + 3 * k)


def test_the_centred_bounds_are_smaller_and_grow_slowly():
    for k in (1, 1.5, 2, 10, 1000):
        assert gradient_bound(k, score_bound=4, centred=True) < gradient_bound(k, score_bound=4)
        b = {"score_bound": 4, "curvature_bound": 3}
        assert smoothness(k, **b, centred=True) <= smoothness(k, **b)
    ratio = gradient_bound(4000, score_bound=4, centred=True) / gradient_bound(
        1000, score_bound=4, centred=True
    )
    assert ratio == pytest.approx(2, rel=1e-3)
    assert smoothness(1000, **b, centred=True) == pytest.approx(1000 * (7 + 4 / math.e), rel=1e-2)


def test_k_below_1_is_refused():
    for function in (gradient_bound, lambda k, **b: smoothness(k, **b, curvature_bound=1)):
        with pytest.raises(UserError, match="at least 1"):
            function(0.5, score_bound=1)


def test_the_smooth_step_needs_its_k(curve):
    b = {"score_bound": BOUND, "curvature_bound": BOUND}
    with pytest.raises(UserError, match="k = 3 is not among the ks of the curve"):
        smooth_step_size(curve, 3, **b)
    assert smooth_step_size(curve, 10, **b) > 0
    assert smooth_step_size(conflict(TabularSoftmax(2), torch.zeros(4)), 2, **b) == 0


def test_a_single_prompt_has_no_window():
    """Its pass@1 and pass@k rise together, for ever."""
    window = step_window(TabularSoftmax(1), [0.5, -0.5], 3, up_to=50.0)
    assert window.slope > 0
    assert window.falls_until == window.below_until == window.largest == window.predicted_turn == 0
    assert window.rises_until == window.above_until == math.inf


def test_the_window_of_the_toy():
    window = step_window(WORLD, THETA, 10)
    direction = WORLD.objective_gradient(THETA, PassAtK(10))[1]
    theta = torch.tensor(THETA, dtype=torch.float64)

    def j(k, eta):
        return WORLD.objective_value(theta + eta * direction, PassAtK(k))

    assert window.falls_until == pytest.approx(10.833, abs=1e-3)
    assert window.largest == window.below_until == pytest.approx(21.310, abs=1e-3)
    assert window.above_until == pytest.approx(23.169, abs=1e-3)
    assert j(1, window.below_until) == pytest.approx(j(1, 0), abs=1e-14)
    assert j(10, window.above_until) == pytest.approx(j(10, 0), abs=1e-13)
    for k, turn in ((1, window.falls_until), (10, window.rises_until)):
        assert abs(j(k, turn * 1.001) - j(k, turn * 0.999)) < 1e-6
    # It bends downwards at first: no quadratic foresees that it turns.
    assert window.curvature < 0
    assert window.predicted_turn == window.predicted_return == math.inf


def test_the_curvature_is_the_second_derivative():
    direction = WORLD.objective_gradient(THETA, PassAtK(4))[1]
    theta = torch.tensor(THETA, dtype=torch.float64)
    signed = torch.tensor([[-1.0, 0.1], [1.0, 0.1]], dtype=torch.float64)

    def along(eta):
        return WORLD.masses @ torch.sigmoid(signed @ (theta + eta * direction))

    exact = torch.func.hessian(along)(torch.zeros((), dtype=torch.float64))
    window = step_window(WORLD, THETA, 4)
    assert window.curvature == pytest.approx(float(exact), rel=1e-8)


def test_up_to_cuts_the_scan_off():
    window = step_window(WORLD, THETA, 10, up_to=15.0)
    assert window.falls_until == pytest.approx(10.833, abs=1e-3)
    assert window.below_until == window.above_until == math.inf


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_up_to_must_be_positive_and_finite(bad):
    with pytest.raises(UserError, match="up_to must be positive and finite"):
        step_window(WORLD, THETA, 10, up_to=bad)


def test_a_gradient_of_zero_has_no_ray():
    with pytest.raises(UserError, match="grad J_2 is zero at this theta"):
        step_window(TabularSoftmax(1), [800.0, -800.0], 2)
