from dataclasses import replace

import pytest
import torch

from passgrad.errors import UserError
from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement.parts import estimate_parts
from passgrad.measurement.samples import bandit_steps
from passgrad.measurement.step import predict_step
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

THETA = torch.tensor([-0.4, 0.7], dtype=torch.float64)


def test_scores_are_those_of_the_policy():
    world = TwoPointBandit(separation=1.0)
    samples = sample_bandit(world, THETA, 50, seed=1)
    for x in (0, 1):
        for answer in (0.0, 1.0):

            def log_policy(theta, x=x, answer=answer):
                p = torch.sigmoid(world.signed_features[x] @ theta)
                return p.log() if answer == 1.0 else (1 - p).log()

            expected = torch.autograd.functional.jacobian(log_policy, THETA)
            chosen = samples.scores[x][samples.rewards[x] == answer]
            assert len(chosen) > 5
            torch.testing.assert_close(chosen, expected.expand_as(chosen))


def test_answers_are_right_as_often_as_the_world_says():
    world = GaussianBandit().sample(5, 5, seed=0)
    samples = sample_bandit(world, THETA, 50, replications=400, seed=2)
    p = world.success(THETA)
    deviation = (samples.rewards.mean((0, 2)) - p) / (p * (1 - p) / 20_000).sqrt()
    assert deviation.abs().max() < 4.5
    assert samples.rewards.shape == (400, 10, 50)
    assert torch.equal(samples.masses, world.masses)


def test_new_prompts_are_drawn_in_each_replication():
    world = GaussianBandit(hard_fraction=0.4)
    samples = sample_bandit(world, THETA, 2, num_prompts=300, replications=40, seed=3)
    assert samples.rewards.shape == (40, 300, 2)
    torch.testing.assert_close(samples.masses, torch.full((300,), 1 / 300).double())
    # The first coordinate of a score has the sign of r - p on hard prompts, the other on easy ones.
    hard = ((samples.scores[..., 0] > 0) == (samples.rewards == 1))[..., 0].double()
    assert abs(hard.mean() - 0.4) < 0.02
    assert len(hard.mean(dim=1).unique()) > 10


def test_products_are_sums_of_products_of_scores():
    samples = sample_bandit(TwoPointBandit(), THETA, 3, seed=4)
    c = torch.randn(2, 2, 3, dtype=torch.float64)
    where = torch.tensor([[True, False, True], [False, True, True]])
    gradients = samples.gradients(c)
    kernel = torch.einsum("xid,yjd->xiyj", samples.scores, samples.scores)
    expected = torch.einsum("lyj,xiyj->lxi", c, kernel) * where
    torch.testing.assert_close(samples.directional(gradients, where), expected)
    within = torch.einsum("lxj,xixj->lxi", c, kernel) * where
    torch.testing.assert_close(samples.own(c, where), within)
    # Gradients may be handed back one by one.
    torch.testing.assert_close(samples.directional(gradients[1:], where), expected[1:])


@pytest.mark.parametrize("name", ["num_prompts", "replications"])
def test_refusals(name):
    with pytest.raises(UserError, match=f"{name} must be at least 1"):
        sample_bandit(TwoPointBandit(), THETA, 3, **{name: 0})
    with pytest.raises(UserError, match="num_samples must be at least 1"):
        sample_bandit(TwoPointBandit(), THETA, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: {"rewards": samples.rewards / 2}, "rewards must be 0 or 1"),
        (lambda samples: {"masses": 2 * samples.masses}, "masses must be positive and add up to 1"),
        (lambda samples: {"masses": samples.masses[:3]}, "12 prompts need as many masses"),
    ],
)
@pytest.mark.parametrize("measured", [estimate_conflict, estimate_parts, predict_step])
def test_all_that_is_measured_takes_the_same_samples(measured, change, message):
    samples = bandit_steps(TwoPointBandit(), THETA, torch.arange(12) % 2, 8)
    k = 2 if measured is predict_step else [2]
    measured(samples, k)
    with pytest.raises(UserError, match=message):
        measured(replace(samples, **change(samples)), k)


def test_a_step_needs_second_derivatives():
    with pytest.raises(UserError, match="give hessians and theta"):
        predict_step(sample_bandit(TwoPointBandit(), THETA, 8, num_prompts=12), 2)
