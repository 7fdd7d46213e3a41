import numpy as np
import pytest
import torch

from passgrad.estimators import advantages
from passgrad_book.experiments.study.arms import (
    ARMS,
    SURGERY,
    ReverseHazard,
    Surgeon,
    Surgery,
    both_orders,
    rule_of,
)
from passgrad_book.experiments.study.network import draw
from passgrad_book.experiments.study.readings import conflict_row, gradients, level_row, rates
from passgrad_book.experiments.study.starts import checkpoint
from passgrad_book.experiments.study.training import _gradient, reading_steps, train
from passgrad_book.experiments.study.words import prompt_sets


@pytest.fixture(scope="module")
def theta():
    return checkpoint(7, steps=150, batch=96)


@pytest.fixture(scope="module")
def sets():
    return prompt_sets("positive", {"train": 32, "held": 16}, seed=7)


def test_sampled_gradients_are_those_of_the_exact_objectives(theta, sets):
    words = sets["train"]
    assert 0.05 < rates(theta, words).mean() < 0.9
    exact = gradients(theta, words)
    leaf = theta.clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(40):
        tokens = draw(theta, words.prompts, 16, generator)
        right = (tokens == words.answers[:, None]).all(-1).double()
        weights = both_orders(right)
        sampled = [_gradient(leaf, words.prompts, tokens, w).double() for w in weights]
        shares.append([float(s @ e / (e @ e)) for s, e in zip(sampled, exact, strict=True)])
    mean, error = np.mean(shares, 0), np.std(shares, 0, ddof=1) / 40**0.5
    assert (error < 0.1).all()
    assert (np.abs(mean - 1) < 4 * error).all()


def test_the_exact_gradient_is_that_of_the_level(theta, sets):
    # A small step along grad J_8 changes J_8 by the square of its length.
    direction = gradients(theta, sets["train"])[1]
    size = 1e-3 / float(direction.norm())
    ahead, behind = (
        level_row((theta.double() + sign * size * direction).float(), sets)["train_pass@8"]
        for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * size) == pytest.approx(float(direction @ direction), rel=1e-2)


def test_the_cosine_in_the_metric_of_adam(theta, sets):
    plain = conflict_row(theta, sets["train"], None)
    assert np.isnan(plain["cosine_adam"])
    flat = conflict_row(theta, sets["train"], torch.full_like(theta, 4.0))
    assert flat["cosine_adam"] == pytest.approx(plain["cosine"], abs=1e-9)
    # A metric that counts one weight alone leaves gradients of one dimension.
    moment = torch.full_like(theta, 1e30)
    moment[40] = 1.0
    one = conflict_row(theta, sets["train"], moment)
    assert abs(one["cosine_adam"]) == pytest.approx(1, abs=1e-3)


def test_a_run_reads_at_its_steps_and_starts_at_the_checkpoint(theta, sets):
    readings, end = train(theta, sets, "pass@8", seed=3, steps=10, learning_rate=2e-4)
    assert readings["step"].tolist() == reading_steps(10) == [0, 5, 10]
    assert readings["held_pass@1"][0] == level_row(theta, sets)["held_pass@1"]
    assert readings["path"][0] == 0
    assert readings["path"].is_monotonic_increasing
    assert not torch.equal(theta, end)
    again, _ = train(theta, sets, "pass@8", seed=3, steps=10, learning_rate=2e-4)
    assert readings.equals(again)


def test_arms_share_the_start_and_differ_in_their_draws(theta, sets):
    ends = [
        train(theta, sets, arm, seed=3, steps=2, learning_rate=2e-4)[1]
        for arm in ("pass@1", "GRPO", "pcgrad", "half of the gain, Adam")
    ]
    assert all(not torch.equal(ends[0], end) for end in ends[1:])


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in SURGERY])
def test_every_rule_raises_right_answers_and_no_wrong_one_above_them(arm):
    rewards = torch.zeros(32, 16, dtype=torch.float64)
    for row in range(32):
        rewards[row, : row % 17] = 1
    # shuffled within the rows, since some rules cut a group in two
    order = torch.rand(32, 16, generator=torch.Generator().manual_seed(0)).argsort(1)
    rewards = rewards.gather(1, order)
    given = rule_of(arm)(rewards, 0.5)
    assert given.shape == rewards.shape
    right = torch.where(rewards == 1, given, torch.nan)
    wrong = torch.where(rewards == 0, given, torch.nan)
    assert float(right.nan_to_num(nan=0).min()) >= -1e-12
    assert float(wrong.nan_to_num(nan=-1).max()) <= 1e-12


def test_the_mixture_is_what_it_says():
    rewards = (torch.rand(8, 16, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    first, eighth = both_orders(rewards)
    torch.testing.assert_close(rule_of("mixture 0.2")(rewards, 0), 0.2 * first + 0.8 * eighth)
    torch.testing.assert_close(first, advantages(rewards, estimator="rloo"))


def test_the_reverse_hazard_by_hand():
    rule = ReverseHazard()
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).double()
    given = rule(rewards, 0)
    # Of the shares 1/4 and 3/4, one each: f / F is 1 and 1/2.
    torch.testing.assert_close(given[0], torch.tensor([0.75, -0.25, -0.25, -0.25]).double() / 4)
    torch.testing.assert_close(given[1], torch.tensor([0.25] * 3 + [-0.75]).double() / 8)
    assert not given[2:].any()
    # The next batch is weighed by the law of the batches before it: no share of 1/2 was seen.
    assert not rule(torch.tensor([[1.0, 1, 0, 0]]).double(), 0).any()
    # By now shares of 1/4, 1/2 and 3/4 were seen, once each in two batches: f / F at 3/4 is 1/3.
    third = rule(torch.tensor([[1.0, 1, 1, 0]]).double(), 0)
    torch.testing.assert_close(third[0], torch.tensor([0.25] * 3 + [-0.75]).double() / 12)


def test_a_surgeon_keeps_half_of_the_gain_by_its_measurements():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 50, generator=generator).double()
    surgeon = Surgeon(Surgery("constrained", adam=False, keep=0.5))
    assert surgeon.lambdas.tolist() == [1, 0]
    for _ in range(30):
        noise = 0.01 * torch.randn(2, 2, 50, generator=generator).double()
        surgeon.observe(torch.stack([first, second]) + noise, None)
    share, other = surgeon.lambdas.tolist()
    gain = share * first @ first + other * first @ second
    assert float(gain / (other * first @ first)) == pytest.approx(0.5, abs=0.05)


def test_a_surgeon_in_the_metric_of_adam_forgets_the_scale():
    both = torch.tensor([[1.0, 1, 0], [-1, 0.5, 2]])
    surgeon = Surgeon(Surgery("pcgrad", adam=True))
    for scale in (1e6, 1.0, 1e-6):
        surgeon.observe(scale * torch.stack([both, both]), torch.tensor([1.0, 4, 0.25]))
    measured = surgeon.gram.mean
    weighted = both.double() / torch.tensor([1.0, 2, 0.5]).double() @ both.double().T
    torch.testing.assert_close(measured, weighted / weighted.trace(), rtol=1e-5, atol=1e-6)
