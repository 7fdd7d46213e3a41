"""Graded rewards: the binary coefficients, level by level, are the estimator of max@k."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.estimators import advantages

pytestmark = pytest.mark.statement("prop-levels")


def groups(n, k, *, with_sample=None, without=()):
    """The k-subsets of range(n), with or without given samples."""
    free = [i for i in range(n) if i not in without]
    for group in itertools.combinations(free, k):
        if with_sample is None or with_sample in group:
            yield group


def best(rewards, group):
    return max(rewards[i] for i in group)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def pkpo(r, k, i):
    n = len(r)
    return sum(best(r, g) for g in groups(n, k, with_sample=i)) / math.comb(n, k)


def pkpo_loo(r, k, i):
    """s_i less the mean over j of the s_j of the group without i."""
    n = len(r)
    others = [j for j in range(n) if j != i]
    rest = [r[j] for j in others]
    return pkpo(r, k, i) - mean(pkpo(rest, k, place) for place in range(n - 1))


def pkpo_loo1(r, k, i):
    n = len(r)
    if k == 1:
        return (r[i] - mean(r[j] for j in range(n) if j != i)) / n
    gains = (best(r, g) - best(r, [j for j in g if j != i]) for g in groups(n, k, with_sample=i))
    return sum(gains) / math.comb(n, k)


def centred_l2o(r, k, i):
    n = len(r)
    total = 0.0
    for j in range(n):
        if j != i:
            free = groups(n, k - 1, without=(i, j))
            total += mean(best(r, (i, *g)) - best(r, (j, *g)) for g in free)
    return k / (n * (n - 1)) * total


def passk_numerator(r, k, i):
    n = len(r)
    inside = mean(best(r, g) for g in groups(n, k, with_sample=i))
    return (inside - mean(best(r, g) for g in groups(n, k))) / n


def passk(r, k, i):
    every = [best(r, g) for g in groups(len(r), k)]
    centre = mean(every)
    deviation = math.sqrt(mean((v - centre) ** 2 for v in every))
    return passk_numerator(r, k, i) / (deviation + 1e-6)


def tang(r, k, i):
    return max(r) - max(v for j, v in enumerate(r) if j != i)


def tang_centred(r, k, i):
    return tang(r, k, i) - mean(tang(r, k, j) for j in range(len(r)))


BY_HAND = {
    "pkpo": (pkpo, 0),
    "pkpo-loo": (pkpo_loo, 1),
    "pkpo-loo1": (pkpo_loo1, 0),
    "centred-l2o": (centred_l2o, 1),
    "passk-training-unscaled": (passk_numerator, 1),
    "passk-training": (passk, 1),
}


def check(name, rewards, ks):
    by_hand, _ = BY_HAND[name]
    made = advantages(rewards, ks, estimator=name)
    for place, k in enumerate(ks):
        expected = [[by_hand(row, k, i) for i in range(len(row))] for row in rewards.tolist()]
        torch.testing.assert_close(
            made[place], torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-11
        )


def test_the_estimators_of_max_at_k_by_all_subsets(case):
    for name, n in itertools.product(BY_HAND, (2, 3, 6)):
        generator = torch.Generator().manual_seed(n)
        rewards = torch.randn(4, n, dtype=torch.float64, generator=generator)
        rewards[1] = rewards[1].round()  # ties
        rewards[2] = 0.5  # nothing to tell apart, and no rounding of the sums by hand
        with case(estimator=name, n=n):
            check(name, rewards, list(range(1, n - BY_HAND[name][1] + 1)))


@settings(deadline=None, max_examples=40)  # the machine may be busy
@given(
    name=st.sampled_from(sorted(BY_HAND)),
    row=st.lists(st.integers(-3, 3), min_size=2, max_size=6),
    share=st.floats(0, 1),
)
def test_ties_signs_and_levels_of_any_kind(name, row, share):
    spare = BY_HAND[name][1]
    k = 1 + round(share * (len(row) - spare - 1))
    check(name, torch.tensor([row, [v / 2 for v in row]], dtype=torch.float64), [k])


@pytest.mark.parametrize(("name", "by_hand"), [("tang-loo", tang), ("tang-centred", tang_centred)])
def test_the_leave_one_out_maximum(name, by_hand):
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    expected = [[by_hand(row, 4, i) for i in range(4)] for row in rewards.tolist()]
    torch.testing.assert_close(
        advantages(rewards, estimator=name), torch.tensor(expected, dtype=torch.float64)
    )


def test_reinforce_max_pays_everyone_the_best():
    rewards = torch.tensor([[0.2, -1.0, 0.5]], dtype=torch.float64)
    made = advantages(rewards, estimator="reinforce-max")
    torch.testing.assert_close(made, torch.full_like(rewards, 0.5))


@pytest.mark.parametrize("name", ["pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o"])
def test_the_mean_gradient_is_that_of_max_at_k_by_all_outcomes(name):
    """Three graded rewards, n = 4: the sum over outcomes against the derivative of E max."""
    logits = torch.tensor([0.2, -0.7, 0.4], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([1.0, 2.5, -0.3], dtype=torch.float64)
    n = 4
    actions = torch.tensor(list(itertools.product(range(3), repeat=n)))
    for k in (1, 2, 3):
        policy = logits.softmax(dim=0)
        chances = policy[actions[:, :k]].prod(dim=1) / 3 ** (n - k)
        objective = chances @ values[actions[:, :k]].amax(dim=1)
        (target,) = torch.autograd.grad(objective, logits)
        policy = policy.detach()
        made = advantages(values[actions], k, estimator=name)
        scores = torch.eye(3, dtype=torch.float64)[actions] - policy
        mean_gradient = torch.einsum("o,oi,oia->a", policy[actions].prod(dim=1), made, scores)
        torch.testing.assert_close(mean_gradient, target, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "name", ["pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o", "passk-training", "grpo", "rloo"]
)
def test_the_graded_path_agrees_with_the_binary_one(name):
    """Rewards of 0 and 2 are not binary, but twice a binary reward."""
    generator = torch.Generator().manual_seed(2)
    rewards = torch.randint(0, 2, (40, 9), generator=generator).double()
    k = None if name in ("grpo", "rloo") else [1, 2, 5, 8]
    scale = 1 if name in ("passk-training", "grpo") else 2
    torch.testing.assert_close(
        advantages(2 * rewards, k, estimator=name),
        scale * advantages(rewards, k, estimator=name),
        rtol=1e-5 if scale == 1 else 1e-9,  # the small constant in the deviation does not scale
        atol=1e-12,
    )
