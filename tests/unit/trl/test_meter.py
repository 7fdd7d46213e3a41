"""The Gram matrix of (grad J_1, grad J_k) of a batch, against all batches there can be."""

import itertools

import pytest
import torch

from passgrad import UserError
from passgrad.estimators import get_estimator
from passgrad.objectives import PassAtK
from passgrad.trl.meter import Batch, half_gradients, measure_gram

FEATURES = torch.tensor([[1.0, 0.3, -0.2], [-0.6, 0.8, 0.1], [0.2, -0.5, 0.9]]).double()
THETA = torch.tensor([0.4, -0.3, 0.2]).double()
SOLVED = torch.sigmoid(FEATURES @ THETA)
SLOPES = (SOLVED * (1 - SOLVED))[:, None] * FEATURES


def batch_of(prompts, rewards):
    """Prompts (P,) with binary rewards (P, n): log pi(r) = log p or log(1 - p)."""
    theta = torch.nn.Parameter(THETA.clone())
    n = rewards.shape[1]
    answers = rewards.reshape(-1)

    def score(rows):
        p = torch.sigmoid(FEATURES[prompts[rows // n]] @ theta)
        return torch.where(answers[rows] > 0, p, 1 - p).log()

    return Batch(rewards, 0, rewards.numel(), score, [theta], 3, None)


def chance(prompts, rewards):
    p = SOLVED[prompts][:, None]
    return float(torch.where(rewards > 0, p, 1 - p).prod())


def all_rewards(num_prompts, n):
    for values in itertools.product([0.0, 1.0], repeat=num_prompts * n):
        yield torch.tensor(values, dtype=torch.float64).view(num_prompts, n)


def gradients(prompts, k):
    return torch.stack(
        [(PassAtK(j).weight(SOLVED)[:, None] * SLOPES)[prompts].mean(0) for j in (1, k)]
    )


@pytest.mark.parametrize("name", ["pkpo-loo1", "pkpo"])
def test_halves_of_prompts_are_unbiased_for_the_law(name):
    expected = torch.zeros(2, 2).double()
    agreement = torch.zeros(3).double()
    for pair in itertools.product(range(3), repeat=2):
        prompts = torch.tensor(pair)
        for rewards in all_rewards(2, 2):
            found = measure_gram(batch_of(prompts, rewards), 2, get_estimator(name), "prompts")
            weight = chance(prompts, rewards) / 9
            expected += weight * found.gram
            agreement[pair[1]] += 3 * weight * found.agreement[1]
    exact = gradients(torch.arange(3), 2)
    torch.testing.assert_close(expected, exact @ exact.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(agreement, SLOPES @ exact[0], rtol=1e-10, atol=1e-12)


def test_halves_of_completions_are_unbiased_for_these_prompts():
    prompts = torch.tensor([0, 1])
    expected = torch.zeros(2, 2).double()
    for rewards in all_rewards(2, 4):
        found = measure_gram(
            batch_of(prompts, rewards), 2, get_estimator("pkpo-loo1"), "completions"
        )
        expected += chance(prompts, rewards) * found.gram
    exact = gradients(prompts, 2)
    torch.testing.assert_close(expected, exact @ exact.T, rtol=1e-10, atol=1e-12)


def test_one_prompt_is_halved():
    prompts = torch.tensor([2])
    expected = torch.zeros(2, 2).double()
    for rewards in all_rewards(1, 4):
        found = measure_gram(batch_of(prompts, rewards), 2, get_estimator("pkpo-loo1"), "prompts")
        expected += chance(prompts, rewards) * found.gram
    exact = gradients(prompts, 2)
    torch.testing.assert_close(expected, exact @ exact.T, rtol=1e-10, atol=1e-12)


def test_the_same_samples_twice_are_biased():
    """What the passes would give without independent parts."""
    prompts = torch.tensor([0, 1])
    naive = torch.zeros(2, 2).double()
    for rewards in all_rewards(2, 2):
        found = measure_gram(batch_of(prompts, rewards), 2, get_estimator("pkpo-loo1"), "prompts")
        naive += chance(prompts, rewards) * (found.gradients @ found.gradients.T)
    exact = gradients(prompts, 2)
    assert naive[0, 0] > 1.2 * (exact @ exact.T)[0, 0]


def test_gradients_of_halves():
    prompts = torch.tensor([0, 1])
    means = [torch.zeros(2, 3).double() for _ in range(3)]
    for rewards in all_rewards(2, 4):
        halves = half_gradients(batch_of(prompts, rewards), 2, get_estimator("pkpo-loo1"), 1.0)
        weight = chance(prompts, rewards)
        for total, one in zip(means, (*halves, halves[0] * halves[1]), strict=True):
            total += weight * one
    exact = (PassAtK(2).weight(SOLVED)[:, None] * SLOPES)[:2]
    for mean in means[:2]:
        torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(means[2], exact**2, rtol=1e-10, atol=1e-12)


def test_what_does_not_fit():
    batch = batch_of(torch.tensor([0]), torch.ones(1, 4).double())
    with pytest.raises(UserError, match="does not fit into half of the 4"):
        measure_gram(batch, 3, get_estimator("pkpo-loo1"), "completions")
    with pytest.raises(UserError, match="GiB and memory=0"):
        half_gradients(batch, 2, get_estimator("pkpo-loo1"), 0.0)


def test_groups_that_all_agree_cost_no_pass():
    batch = batch_of(torch.tensor([0, 1, 2]), torch.ones(3, 2).double())
    scored = []
    counting = Batch(**{**vars(batch), "score": lambda rows: scored.append(rows)})
    found = measure_gram(counting, 2, get_estimator("pkpo-loo1"), "prompts")
    assert not scored
    assert not found.gram.any()


def test_in_larger_parts():
    """Six prompts in four rounds: products of prompts in different rounds, and no others."""
    prompts = torch.tensor([0, 1, 2, 0, 1, 2])
    generator = torch.Generator().manual_seed(2)
    solved = (torch.rand(6, 3, generator=generator) < 0.5).double()
    rewards = solved / 2  # prompts with rewards of 0 and 1 are taken one by one
    batch, one = batch_of(prompts, rewards), get_estimator("pkpo-loo1")
    whole = measure_gram(batch, 2, one, "prompts")
    some = measure_gram(batch, 2, one, "prompts", by_prompt=False)
    torch.testing.assert_close(whole.gradients, some.gradients)
    assert len(some.agreement) == 4
    scores = (solved - SOLVED[prompts][:, None])[..., None] * FEATURES[prompts][:, None]
    u = torch.stack([(one.advantages(rewards, k)[..., None] * scores).sum(1) for k in (1, 2)])
    rounds = torch.tensor([x * 4 // 6 for x in range(6)])
    for found, apart in (
        (whole, ~torch.eye(6, dtype=torch.bool)),
        (some, rounds[:, None] != rounds),
    ):
        products = torch.einsum("jxd,myd->jmxy", u, u) * apart
        torch.testing.assert_close(found.gram, products.sum((2, 3)) / apart.sum())
