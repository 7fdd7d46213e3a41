"""What other trainers call, called as they call it. Their own code is in tests/adapters."""

import sys
import types

import numpy as np
import pytest
import torch

from passgrad import UserError, advantages
from passgrad.trl import register_rllm, register_skyrl, register_verl, slime_rewards
from passgrad.trl.adapters import rllm_estimator, verl_estimator

REWARDS = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]]).double()


def test_verl_by_its_keywords():
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])  # groups in turn
    index = np.array(["a"] * 4 + ["b"] * 4, dtype=object)[order.numpy()]
    mask = torch.ones(8, 3)
    mask[:, 2] = torch.arange(8) % 2
    rewards = torch.zeros(8, 3)
    rewards[:, 1] = REWARDS.reshape(-1)[order]
    call = verl_estimator(2)
    made, returns = call(
        token_level_rewards=rewards, response_mask=mask, index=index, config=None,
        non_tensor_batch={}, reward_baselines=None,
    )  # fmt: skip
    expected = (4 * advantages(REWARDS, 2)).reshape(-1)[order].float()
    torch.testing.assert_close(made, expected[:, None] * mask)
    assert torch.equal(made, returns)
    assert made.dtype == rewards.dtype
    with pytest.raises(UserError, match="index"):
        call(rewards, mask)


def test_rllm_by_its_keywords():
    groups = [REWARDS[0].numpy(), np.array([1.0, 0.0, 1.0])]
    made, returns = rllm_estimator({1: 0.5, 2: 0.5})(rewards=groups, algorithm_config=object())
    for got, group in zip(made, groups, strict=True):
        n = len(group)
        expected = n * advantages(group[None], [1, 2], weights=[0.5, 0.5])[0]
        np.testing.assert_allclose(got, expected)
    assert returns is made


def test_registering(monkeypatch):
    known = {}

    def register(name):
        return lambda function: known.setdefault(name, function)

    verl = types.ModuleType("verl.trainer.ppo.core_algos")
    verl.register_adv_est = register
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", verl)
    rllm = types.ModuleType("rllm.trainer.algorithms.advantage")
    rllm.register_adv_estimator = register
    for name in ("rllm", "rllm.trainer", "rllm.trainer.algorithms"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "rllm.trainer.algorithms.advantage", rllm)
    assert register_verl("passk8", 8) is known["passk8"]
    assert register_rllm("passk4", 4) is known["passk4"]
    assert known["passk4"]([np.array([1.0, 0, 0, 0, 0])])[0][0].shape == (5,)


def test_without_the_packages():
    for register, name, place in (
        (register_verl, "verl", "verl.trainer.ppo.core_algos"),
        (register_skyrl, "skyrl", "skyrl.backends.skyrl_train.utils.ppo_utils"),
        (register_rllm, "rllm", "rllm.trainer.algorithms.advantage"),
    ):
        with pytest.raises(UserError, match=f"{name} has no registry .*{place}.*install it"):
            register()
    from passgrad.trl import AnnealedK

    with pytest.raises(UserError, match="schedules live in the trainer"):
        verl_estimator(AnnealedK())


def test_slime_by_its_arguments():
    class Sample:
        def __init__(self, group, reward):
            self.group_index, self.reward = group, reward

        def get_reward_value(self, args):
            return self.reward[args.reward_key] if args.reward_key else self.reward

    order = [0, 4, 1, 5, 2, 6, 3, 7]
    flat = REWARDS.reshape(-1).tolist()
    samples = [Sample(place // 4, {"acc": flat[place]}) for place in order]
    args = types.SimpleNamespace(reward_key="acc")
    raw, given = slime_rewards(2)(args, samples)
    assert raw == [flat[place] for place in order]
    expected = (4 * advantages(REWARDS, 2)).reshape(-1)[torch.tensor(order)]
    assert given == pytest.approx(expected.tolist())
    samples[3].group_index = None
    with pytest.raises(UserError, match="group_index"):
        slime_rewards(2)(args, samples)
