"""Two prompts that a policy can tell apart: pass@k ascent solves both, whatever it costs first."""

import math

import pytest
import torch

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-transient", "prop-late-rate")


def flow(world, theta, k, *, steps, growth=0.02):
    """(steps, 2) rates and times along J_k, each step small against what it changes.

    The step is chosen so that no logit moves by more than ``growth``.
    """
    theta = torch.tensor(theta, dtype=torch.float64)
    rates, times = [], [0.0]
    reach = world.features.norm(dim=1).max()
    for _ in range(steps):
        p, gradient = world.objective_gradient(theta, PassAtK(k))
        rates.append(p)
        if p.min() > 1 - 1e-4:
            break
        step = growth / float(gradient.norm() * reach)
        theta = theta + step * gradient
        times.append(times[-1] + step)
    return torch.stack(rates), torch.tensor(times[: len(rates)], dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 1.5, 2, 10])
def test_the_slope_rises_everywhere(k):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        theta = 3 * torch.randn(2, dtype=torch.float64, generator=generator)
        for separation in (0.05, 1.0, 3.0):
            world = TwoPointBandit(separation, 0.3)
            assert world.objective_gradient(theta, PassAtK(k))[1][1] > 0


def test_without_separation_it_does_not():
    gradient = TwoPointBandit(0.0, 0.3).objective_gradient((-2.0, -2.0), PassAtK(5))[1]
    assert gradient[1] == 0


@pytest.mark.parametrize("start", [(-2.0, -2.0), (-2.0, 0.0), (3.0, -1.0)])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_flow_solves_both_prompts(start, k):
    rates, _ = flow(TwoPointBandit(1.0, 0.4), start, k, steps=3000)
    assert (rates[-1] > 0.999).all()


def test_pass_at_1_falls_first_and_ends_above_its_start():
    world = TwoPointBandit(0.5, 0.3)
    start = (-2.0, 0.0)
    assert conflict(world, start, [5]).inner_product[0] < 0
    one = flow(world, start, 5, steps=2000)[0] @ world.masses
    lowest = int(one.argmin())
    assert 0 < lowest < len(one) - 1
    assert one[lowest] < one[0] - 0.05
    assert one[-1] > 0.99 > one[0]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_failure_falls_like_the_kth_root_of_time(k):
    """Late in the flow q is about (k^2 D |u|^2 t)^(-1/k) when both prompts are alike."""
    world = TwoPointBandit(2.0, 0.5)  # orthogonal features: the prompts do not interfere
    rates, times = flow(world, (0.0, 1.0), k, steps=2500, growth=0.005)
    q = 1 - rates[:, 0]
    predicted = (k**2 * 0.5 * 2.0 * times[-1]) ** (-1 / k)
    assert float(q[-1]) == pytest.approx(float(predicted), rel=0.03)
    late = len(q) * 3 // 4
    slope = (q[-1] / q[late]).log() / (times[-1] / times[late]).log()
    assert float(slope) == pytest.approx(-1 / k, rel=0.02)


def test_the_loser_of_pass_at_1_recovers_too_but_later():
    """From a start where the easy prompt wins: the time until both are solved to one half."""
    world = TwoPointBandit(1.0, 0.6)
    waits = []
    for k in (1, 2, 4):
        rates, times = flow(world, (-2.0, -4.0), k, steps=6000)
        solved = (rates > 0.5).all(dim=1)
        assert solved[-1]
        waits.append(float(times[solved][0]) * k)  # times k: in units of ascent on J_k / k
    assert waits[0] > 2 * waits[1] > 2 * waits[2]
    assert math.isfinite(waits[0])
