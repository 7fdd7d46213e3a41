import math

import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import ESTIMATORS, GRPO, PassKTraining, VerlPassK, get_estimator


def test_known_advantages():
    rewards = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    loo1 = get_estimator("pkpo-loo1").advantages(rewards, 4)
    assert loo1.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4]
    verl = VerlPassK(epsilon=0).advantages(rewards)
    assert verl.tolist() == [[2, 0, 0, 0], [0] * 4, [0] * 4]
    maxrl = get_estimator("maxrl").advantages(rewards)
    assert maxrl.tolist() == [[0.75, -0.25, -0.25, -0.25], [0] * 4, [0] * 4]
    full = get_estimator("maxrl-full").advantages(rewards)
    assert full[1].tolist() == [-0.25] * 4


def test_graded_rewards_of_verl_and_grpo():
    rewards = torch.tensor([[0.5, 2.0, 1.0], [3.0, 3.0, 1.0]], dtype=torch.float64)
    made = VerlPassK().advantages(rewards)
    deviation = float(rewards[0].std()) + 1e-6
    assert made.tolist() == [[0, pytest.approx(1 / deviation), 0], [0, 0, 0]]
    grpo = GRPO().advantages(rewards)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6) / 3
    torch.testing.assert_close(grpo, expected)
    assert VerlPassK().advantages(rewards, [3, 3]).shape == (2, 2, 3)


def test_groups_of_equal_rewards_move_nothing_even_without_a_constant():
    equal = torch.full((2, 4), 0.3, dtype=torch.float64)
    for one, k in (
        (GRPO(epsilon=0), None),
        (PassKTraining(epsilon=0), 2),
        (VerlPassK(epsilon=0), None),
    ):
        made = one.advantages(equal, k)
        assert made.abs().max() < 1e-12


def test_options_are_checked():
    for options in ({"epsilon": -1}, {"epsilon": float("nan")}, {"correction": 2}):
        with pytest.raises(UserError, match="must be"):
            GRPO(**options)
    with pytest.raises(UserError, match="epsilon"):
        PassKTraining(epsilon=1)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_coefficients_of_pass_at_k_training_are_the_published_ones(n):
    for k in range(1, n):
        plus, minus = ESTIMATORS["passk-training"].tables(n, [k])
        for c in range(n + 1):
            rho = 1 - math.comb(n - c, k) / math.comb(n, k)
            sigma = math.sqrt(rho * (1 - rho)) + 1e-6
            if c > 0:
                assert float(plus[0, c]) == pytest.approx((1 - rho) / sigma / n, rel=1e-9)
            if c < n:
                inside = 1 - rho - math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1)
                expected = inside / sigma / n
                assert float(minus[0, c]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_pass_at_k_training_moves_nothing_with_fewer_than_k_wrong_answers():
    rewards = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    made = ESTIMATORS["passk-training"].advantages(rewards, 3)
    assert (made[0] == 0).all()
    assert (made[1] != 0).all()


def test_grpo_of_a_binary_group_by_hand():
    rewards = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    made = GRPO().advantages(rewards)
    sigma = float(rewards.std()) + 1e-6
    expected = (rewards - 0.25) / sigma / 4
    torch.testing.assert_close(made, expected)
    population = GRPO(epsilon=0, correction=0).advantages(rewards)
    torch.testing.assert_close(population[0, 0], torch.tensor(3**0.5 / 4, dtype=torch.float64))
