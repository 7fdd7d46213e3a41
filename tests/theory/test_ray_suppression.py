"""Who is pushed down, and until when: pass@k frees the loser sooner, the larger k."""

import math

import pytest
import torch

from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.dynamics.plateau import PlateauBandit

pytestmark = pytest.mark.statement("prop-ray-threshold", "cor-ray-turn")

WORLD = TwoPointBandit(separation=1.0, hard_fraction=0.6)


def speed(world, theta, k):
    """d p(x) / dt along grad J_k, by the kernel: (N,)."""
    p = world.success(theta)
    return world.kernel(theta) @ (world.masses * PassAtK(k).weight(p))


def random_theta(world, seed, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(world.num_parameters, dtype=torch.float64, generator=generator)


def test_two_prompts_the_threshold_of_the_statement():
    checked = 0
    for seed in range(60):
        world = TwoPointBandit(0.7, 0.3)
        theta = random_theta(world, seed)
        p, kernel = world.success(theta), world.kernel(theta)
        winner, loser = (0, 1) if p[0] > p[1] else (1, 0)
        own = world.masses[loser] * kernel[loser, loser]
        push = -world.masses[winner] * kernel[loser, winner]
        assert push > 0
        k_free = 1 + math.log(push / own) / math.log((1 - p[loser]) / (1 - p[winner]))
        for k in (1, 1.5, 2, 4, 8, 30):
            if abs(k - k_free) > 1e-6:
                assert bool(speed(world, theta, k)[loser] > 0) == (k > k_free)
        checked += k_free > 1
    assert checked > 10


def test_the_hardest_prompt_rises_under_large_k(case):
    world = PlateauBandit(5, 0.8)
    for seed in range(20):
        theta = random_theta(world, seed, scale=3.0)
        hardest = int(world.success(theta).argmin())
        with case(seed=seed):
            assert speed(world, theta, 5000)[hardest] > 0


def test_and_need_not_rise_under_pass_at_1():
    signs = set()
    for seed in range(20):
        world = PlateauBandit(5, 0.8)
        theta = random_theta(world, seed, scale=3.0)
        hardest = int(world.success(theta).argmin())
        signs.add(bool(speed(world, theta, 1)[hardest] > 0))
    assert signs == {True, False}


def test_the_set_of_suppressed_states_shrinks_with_k():
    """Two prompts: once free at k, free at every larger k, as long as it is the harder one."""
    for seed in range(40):
        world = TwoPointBandit(1.0, 0.4)
        theta = random_theta(world, seed, scale=2.0)
        loser = int(world.success(theta).argmin())
        free = [bool(speed(world, theta, k)[loser] > 0) for k in (1, 2, 3, 5, 9, 17, 33)]
        assert free == sorted(free)


def flow(k, *, steps=3000, growth=0.01):
    """(steps, 2) rates along J_k from a low start; no logit moves by more than ``growth``."""
    theta = torch.tensor([-1.5, -7.0], dtype=torch.float64)  # logits -2 (easy) and -5 (hard)
    rates = []
    for _ in range(steps):
        p, gradient = WORLD.objective_gradient(theta, PassAtK(k))
        rates.append(p)
        theta = theta + growth / float(gradient.norm() * WORLD.features[0].norm()) * gradient
    return torch.stack(rates)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_the_turn_of_the_loser(k):
    """The winner's failure at the lowest point of the loser goes with the k-th root of its rate."""
    easy, hard = flow(k).T
    turn = int(hard.argmin())
    assert 0 < turn < len(hard) - 1
    ratio = 0.6 * (1 + 1 / 4) / (0.4 * (1 - 1 / 4))
    left = float((easy * (1 - easy) ** k)[turn])
    right = float((ratio * hard * (1 - hard) ** k)[turn])
    assert left == pytest.approx(right, rel=0.02)
    failure = 1 - float(easy[turn])
    low, high = right ** (1 / k), (right / float(easy[turn])) ** (1 / k)
    assert low * 0.98 < failure < high * 1.02


def test_the_loser_turns_at_a_higher_level_the_larger_k():
    lowest = [float(flow(k)[:, 1].min()) for k in (1, 2, 4, 8)]
    assert lowest == sorted(lowest)
    assert lowest[-1] > 3 * lowest[0]
