"""Proposition 4.6, with its end point put right: which steps provably trade pass@1 for pass@k."""

from fractions import Fraction

import pytest

from passgrad.ascent.ascent import ascend
from passgrad.bounds import conflict_strength, gradient_bound, proven_step_size, smoothness
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-step-size")

WORLD = TwoPointBandit()
BOUND = 1.01 / 4  # of E||s||^2 and E||Hess log pi||, at every theta
BOUNDS = {"score_bound": BOUND, "curvature_bound": BOUND}
THETAS = [(b, s) for b in (-4.0, -3.0, -2.0, -1.0) for s in (-4.0, -3.0, -2.0, -1.0)]


@pytest.fixture(params=THETAS, ids=str)
def theta(request):
    return request.param


def margin(curve):
    return -float(curve.agreement.min())


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_proven_step_lowers_pass_at_1_and_raises_pass_at_k(theta, share, centred):
    curve = conflict(WORLD, theta, ks=[10])
    b = {"margin": margin(curve), "centred": centred}
    largest = proven_step_size(curve, 10, **b, **BOUNDS)
    assert largest > 0
    step = share * largest
    trace = ascend(WORLD, theta, PassAtK(10), step_size=step)
    one, ten = trace.pass_at_k(1), trace.pass_at_k(10)
    assert one[1] < one[0]
    # Eq. (17) and (18)
    strength = conflict_strength(curve, 10, **b, score_bound=BOUND)
    curvature = gradient_bound(10, score_bound=BOUND, centred=centred) ** 2 * BOUND
    assert one[1] <= one[0] - step * strength + curvature * step**2 + 1e-15
    assert ten[1] >= ten[0] + step / 2 * curve.norm[0] ** 2 - 1e-15


def end_point(curve, k):
    """delta / C_2 and the numbers it is made of, as exact fractions."""
    strength = Fraction(conflict_strength(curve, k, margin=margin(curve), score_bound=BOUND))
    curvature = k**2 * Fraction(BOUND) * 2 * Fraction(BOUND) / 2
    return strength, curvature, strength / curvature


def test_the_printed_strict_inequality_fails_at_its_end_point(theta):
    """Eq. (17) prints J_1 - eta delta + C_2 eta^2 < J_1 for eta <= delta / C_2: there it is J_1."""
    curve = conflict(WORLD, theta, ks=[10])
    strength, curvature, end = end_point(curve, 10)
    assert strength > 0
    assert 0 < end <= 1 / Fraction(smoothness(10, **BOUNDS))  # so that the paper admits this step
    assert -end * strength + curvature * end**2 == 0
    inside = end * Fraction(999, 1000)
    assert -inside * strength + curvature * inside**2 < 0
    assert float(end) == pytest.approx(
        proven_step_size(curve, 10, margin=margin(curve), **BOUNDS), rel=1e-12
    )


def test_its_argument_alone_cannot_do_better():
    """A quadratic with slope -delta and second derivative 2 C_2 meets all that the proof uses."""
    curve = conflict(WORLD, (-2.0, -2.0), ks=[10])
    strength, curvature, end = end_point(curve, 10)

    def quadratic(eta):
        return -strength * eta + curvature * eta**2

    assert quadratic(end) == quadratic(0) == 0


def test_pass_at_1_itself_still_falls_at_the_end_point(theta):
    """As ||grad J_k|| < k G, the first inequality of eq. (17) is strict for every policy."""
    curve = conflict(WORLD, theta, ks=[10])
    end = float(end_point(curve, 10)[2])
    one = ascend(WORLD, theta, PassAtK(10), step_size=end).pass_at_k(1)
    assert one[1] < one[0]
    for k in (1, 1.5, 2, 10, 1000):
        bound = gradient_bound(k, score_bound=BOUND, centred=True)
        assert bound < gradient_bound(k, score_bound=BOUND)


def test_no_step_is_proven_without_strength():
    curve = conflict(WORLD, (-2.0, -2.0))
    assert proven_step_size(curve, 1.1, margin=margin(curve), **BOUNDS) == 0
