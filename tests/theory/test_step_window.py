"""The steps that trade pass@1 for pass@k in truth, against those that bounds on curvature prove."""

import math

import numpy as np
import pytest
import torch

from passgrad.bounds import proven_step_size, smooth_step_size, step_window
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks.toy import BOUND

pytestmark = pytest.mark.statement("prop-step-window")

WORLD = TwoPointBandit()
BOUNDS = {"score_bound": BOUND, "curvature_bound": BOUND}
CASES = [((b, s), k) for b in (-3.0, -2.0, -1.0) for s in (-3.0, -2.0, -1.0) for k in (2, 10)]


@pytest.fixture(scope="module")
def windows():
    return [(theta, k, step_window(WORLD, theta, k)) for theta, k in CASES]


class Ray:
    """J_1, J_k and the derivatives of J_1 along the ray: the bandit written out with numpy."""

    def __init__(self, theta, k):
        self.k, self.theta = k, np.array(theta)
        self.signed = np.array([[-1.0, 0.1], [1.0, 0.1]])
        p = 1 / (1 + np.exp(-self.signed @ self.theta))
        weights = k * (1 - p) ** (k - 1) / 2
        self.direction = (weights * p * (1 - p)) @ self.signed

    def __call__(self, eta):
        """J_1, J_k, J_1', J_1'' at every eta."""
        z = self.signed @ self.theta + np.outer(eta, self.signed @ self.direction)
        p, v = 1 / (1 + np.exp(-z)), self.signed @ self.direction
        slope = p * (1 - p)
        return (
            p.mean(axis=1),
            (1 - (1 - p) ** self.k).mean(axis=1),
            (slope * v).mean(axis=1),
            (slope * (1 - 2 * p) * v**2).mean(axis=1),
        )


def test_the_window_holds_and_ends_where_it_says(windows, case):
    for theta, k, window in windows:
        with case(theta=theta, k=k):
            check_window(window, Ray(theta, k))


def check_window(window, ray):
    start = ray([0.0])
    assert window.slope == pytest.approx(start[2][0], rel=1e-9)
    assert window.curvature == pytest.approx(start[3][0], rel=1e-7, abs=1e-12)
    inside = np.linspace(0, 1, 400)[1:-1]
    if math.isfinite(window.falls_until):
        assert (ray(inside * window.falls_until)[2] < 0).all()
        assert ray([window.falls_until * 1.0001])[2][0] > 0
    if math.isfinite(window.below_until):
        assert (ray(inside * window.below_until)[0] < start[0]).all()
        assert ray([window.below_until * 1.0001])[0][0] > start[0][0]
    if math.isfinite(window.above_until):
        assert (ray(inside * window.above_until)[1] > start[1]).all()
        assert ray([window.above_until * 1.0001])[1][0] < start[1][0]
    assert window.falls_until < window.below_until or math.isinf(window.falls_until)
    assert math.isfinite(window.largest)


def test_each_bound_lies_within_the_next(windows, case):
    for theta, k, window in windows:
        curve = conflict(WORLD, theta, ks=[k])
        b = {"margin": -float(curve.agreement.min()), **BOUNDS}
        paper, centred = (proven_step_size(curve, k, **b, centred=c) for c in (False, True))
        with case(theta=theta, k=k):
            assert paper <= centred <= smooth_step_size(curve, k, **BOUNDS) < window.largest


def test_a_bound_on_the_curvature_along_the_ray_proves_a_step(windows, case):
    """J_1'' <= M on [0, eta] gives a fall up to min(eta, -slope / M), a loss up to twice that."""
    for theta, k, window in windows:
        ray = Ray(theta, k)
        for reach in (1.0, 5.0, 20.0):
            with case(theta=theta, k=k, reach=reach):
                check_reach(window, ray, reach)


def check_reach(window, ray, reach):
    largest = float(ray(np.linspace(0, reach, 2001))[3].max()) * (1 + 1e-6)
    if largest <= 0:  # J_1 bends down all along the way, and so falls all along it
        assert window.falls_until >= reach
        return
    assert min(reach, -window.slope / largest) <= window.falls_until
    assert min(reach, -2 * window.slope / largest) <= window.below_until
    # which is no less than what the bound that holds everywhere gives
    assert largest <= 2 * BOUND * float(ray.direction @ ray.direction)


def test_the_factor_two_is_sharp():
    """For a quadratic, J_1 is back at its value exactly at twice the step at which it turns."""
    slope, curvature = -0.3, 0.7
    turn, back = -slope / curvature, -2 * slope / curvature
    assert slope + curvature * turn == pytest.approx(0, abs=1e-15)
    assert slope * back + curvature * back**2 / 2 == pytest.approx(0, abs=1e-15)


def test_the_step_of_the_paper_is_outside_its_proposition_and_inside_the_window():
    curve = conflict(WORLD, (-2.0, -2.0), ks=[10])
    proven = proven_step_size(curve, 10, margin=-float(curve.agreement.min()), **BOUNDS)
    window = step_window(WORLD, (-2.0, -2.0), 10)
    assert 5 / proven == pytest.approx(12_263, abs=1)
    assert 5 < window.falls_until < window.largest
    assert window.largest / proven == pytest.approx(52_266, abs=1)
    # The window is a fact about the ray, not about small steps: far beyond it both are lost.
    world, theta = WORLD, torch.tensor([-2.0, -2.0], dtype=torch.float64)
    direction = world.objective_gradient(theta, PassAtK(10))[1]
    far = world.success(theta + 40 * direction)
    before = world.success(theta)
    assert world.masses @ far > world.masses @ before
    assert world.masses @ PassAtK(10).value(far) < world.masses @ PassAtK(10).value(before)
