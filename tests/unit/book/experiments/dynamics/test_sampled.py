import itertools
import math

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad_book.experiments.dynamics.plateau import PlateauBandit
from passgrad_book.experiments.dynamics.sampled import ascend_sampled, gradient_estimate


def leave_one_out(rewards, k):
    """RLOO, for k = 1."""
    n = rewards.shape[1]
    return (rewards - (rewards.sum(1, keepdim=True) - rewards) / (n - 1)) / n


def only_right(rewards, k):
    """(k / n) C(n - c, k - 1) / C(n - 1, k - 1) on right answers: unbiased for pass@k."""
    n = rewards.shape[1]
    wrong = n - rewards.sum(1).long()
    ways = [math.comb(w, k - 1) / math.comb(n - 1, k - 1) for w in wrong.tolist()]
    return rewards * torch.tensor(ways, dtype=rewards.dtype)[:, None] * k / n


def two_pass(rewards, k):
    """As ``only_right`` for k = 2, in tensors."""
    n = rewards.shape[1]
    return rewards * (n - rewards.sum(1, keepdim=True)) / (n - 1) * 2 / n


@pytest.mark.parametrize(
    "world", [TwoPointBandit(1.0, 0.3), PlateauBandit(2, 0.6, masses=[0.3, 0.7])], ids=["2", "p"]
)
@pytest.mark.parametrize(
    ("advantages", "k"), [(leave_one_out, 1), (only_right, 2), (only_right, 3)]
)
def test_its_mean_over_every_outcome_is_the_gradient(world, advantages, k):
    n = 4
    theta = torch.linspace(-1, 1, world.num_parameters, dtype=torch.float64)
    p, jacobian = world.success_and_jacobian(theta)
    mean = torch.zeros(world.num_parameters, dtype=torch.float64)
    for x in range(2):
        for outcome in itertools.product([0.0, 1.0], repeat=n):
            r = torch.tensor(outcome, dtype=torch.float64)
            chance = world.masses[x] * torch.where(r > 0, p[x], 1 - p[x]).prod()
            estimate = gradient_estimate(p[[x]], jacobian[[x]], r[None], advantages, k)
            mean += chance * estimate
    expected = world.objective_gradient(theta, PassAtK(k))[1]
    torch.testing.assert_close(mean, expected, atol=1e-14, rtol=0)


def test_with_many_answers_it_follows_the_population():
    world = GaussianBandit()
    sampled = ascend_sampled(
        world,
        (-2.0, 0.0),
        two_pass,
        k=2,
        num_samples=64,
        num_prompts=256,
        steps=30,
        num_seeds=24,
        every=10,
    )
    exact = ascend(world, (-2.0, 0.0), PassAtK(2), step_size=1.0, steps=30)
    for k in (1, 2):
        levels = sampled.pass_at_k(k)
        error = levels.std(dim=1) / math.sqrt(24)
        away = (levels.mean(dim=1) - exact.pass_at_k(k)[sampled.steps]).abs()
        assert (away[1:] < 4 * error[1:]).all()
        assert float(error[-1]) < 2e-3  # else the line above would say nothing
    assert sampled.steps.tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("world", [TwoPointBandit(), PlateauBandit(3)], ids=["bandit", "plateau"])
def test_levels_are_exact_and_a_seed_repeats(world):
    theta = torch.zeros(world.num_parameters, dtype=torch.float64)
    settings = {"k": 1, "num_samples": 4, "num_prompts": 3, "steps": 6, "num_seeds": 5}
    trace = ascend_sampled(world, theta, leave_one_out, **settings)
    again = ascend_sampled(world, theta, leave_one_out, **settings)
    other = ascend_sampled(world, theta, leave_one_out, **settings, seed=1)
    assert torch.equal(trace.thetas, again.thetas)
    assert not torch.equal(trace.thetas, other.thetas)
    assert trace.thetas.shape == (7, 5, world.num_parameters)
    assert not torch.equal(trace.thetas[-1, 0], trace.thetas[-1, 1])
    expected = world.objective_value(trace.thetas[-1, 3], PassAtK(4))
    assert float(trace.pass_at_k(4)[-1, 3]) == pytest.approx(expected, abs=1e-14)


def test_the_band_holds_its_share_of_the_seeds():
    trace = ascend_sampled(
        TwoPointBandit(),
        (-2.0, -2.0),
        leave_one_out,
        k=1,
        num_samples=4,
        num_prompts=4,
        steps=3,
        num_seeds=40,
    )
    mean, low, high = trace.band(1, share=0.8)
    levels = trace.pass_at_k(1)
    inside = (levels[-1] >= low[-1]) & (levels[-1] <= high[-1])
    assert int(inside.sum()) == 32
    torch.testing.assert_close(mean, levels.mean(1))
    assert low[0] == high[0]


def test_sure_prompts_do_not_break_it():
    world = TwoPointBandit(1.0)
    trace = ascend_sampled(
        world, (800.0, 0.0), leave_one_out, k=1, num_samples=4, num_prompts=8, steps=2
    )
    assert trace.thetas.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples is too small: got 0"),
        ({"num_prompts": 0}, "num_prompts is too small: got 0"),
        ({"num_seeds": 0}, "num_seeds is too small: got 0"),
        ({"every": 0}, "every is too small: got 0"),
        ({"steps": -1}, "steps is too small: got -1"),
        ({"advantages": lambda r, k: r[:, :1]}, "advantages must be finite and of shape"),
        ({"advantages": lambda r, k: r / 0}, "advantages must be finite"),
    ],
)
def test_what_is_refused(arguments, message):
    settings = {
        "advantages": leave_one_out,
        "k": 1,
        "num_samples": 4,
        "num_prompts": 2,
        "steps": 1,
        **arguments,
    }
    with pytest.raises(UserError, match=message):
        ascend_sampled(TwoPointBandit(), (-2.0, -2.0), settings.pop("advantages"), **settings)


def test_the_share_of_a_band():
    trace = ascend_sampled(
        TwoPointBandit(), (0.0, 0.0), leave_one_out, k=1, num_samples=2, num_prompts=1, steps=0
    )
    with pytest.raises(UserError, match="share must lie strictly between 0 and 1"):
        trace.band(1, share=1.0)
