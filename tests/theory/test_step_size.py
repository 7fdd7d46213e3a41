"""Proposition 4.6, with its end point put right: which steps provably trade pass@1 for pass@k."""

from fractions import Fraction

import pytest

from passgrad.ascent.ascent import ascend
from passgrad.bounds import gradient_bound, proven_step_size, smoothness
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import bounds
from passgrad_book.experiments.checks.bounds import BOUND, THETAS, end_point, margin

pytestmark = pytest.mark.statement("prop-step-size")

WORLD = TwoPointBandit()
BOUNDS = {"score_bound": BOUND, "curvature_bound": BOUND}


@pytest.mark.parametrize("centred", [False, True])
def test_a_proven_step_lowers_pass_at_1_and_raises_pass_at_k(centred, case):
    steps = list(bounds.proven_steps(THETAS, [10], centred=centred))
    assert len(steps) == 3 * len(THETAS)
    for step in steps:
        with case(theta=step.theta, share=step.share):
            assert step.size > 0
            assert step.kept
            assert step.fall >= step.proven_fall - 1e-15


def test_it_does_for_other_k():
    found = bounds.step_size()
    assert found["missed"] == 0
    assert found["tried"] > 100


def test_the_printed_strict_inequality_fails_at_its_end_point(case):
    """Eq. (17) prints J_1 - eta delta + C_2 eta^2 < J_1 for eta <= delta / C_2: there it is J_1."""
    for theta in THETAS:
        curve = conflict(WORLD, theta, ks=[10])
        end = end_point(curve, 10)
        proven = proven_step_size(curve, 10, margin=margin(curve), **BOUNDS)
        with case(theta=theta):
            assert end.delta > 0
            # so that the paper admits this step
            assert 0 < end.size <= 1 / Fraction(smoothness(10, **BOUNDS))
            assert end.proven_fall() == 0
            assert end.proven_fall(Fraction(999, 1000)) > 0
            assert float(end.size) == pytest.approx(proven, rel=1e-12)


def test_its_argument_alone_cannot_do_better():
    """A quadratic with slope -delta and second derivative 2 C_2 meets all that the proof uses."""
    end = end_point(conflict(WORLD, (-2.0, -2.0), ks=[10]), 10)

    def quadratic(eta):
        return -end.delta * eta + end.c_2 * eta**2

    assert quadratic(end.size) == quadratic(0) == 0


def test_pass_at_1_itself_still_falls_at_the_end_point(case):
    """As ||grad J_k|| < k G, the first inequality of eq. (17) is strict for every policy."""
    for theta in THETAS:
        end = float(end_point(conflict(WORLD, theta, ks=[10]), 10).size)
        one = ascend(WORLD, theta, PassAtK(10), step_size=end).pass_at_k(1)
        with case(theta=theta):
            assert one[1] < one[0]
    for k in (1, 1.5, 2, 10, 1000):
        bound = gradient_bound(k, score_bound=BOUND, centred=True)
        with case(k=k):
            assert bound < gradient_bound(k, score_bound=BOUND)


def test_no_step_is_proven_without_strength():
    curve = conflict(WORLD, (-2.0, -2.0))
    assert proven_step_size(curve, 1.1, margin=margin(curve), **BOUNDS) == 0
