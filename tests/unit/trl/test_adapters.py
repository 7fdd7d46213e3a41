"""verl and rllm are not installed: what they call is called as they call it."""

import sys
import types

import numpy as np
import pytest
import torch

from passgrad import UserError, advantages
from passgrad.trl import register_rllm, register_verl
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
    rllm = types.ModuleType("rllm")
    rllm.register_adv_estimator = register
    monkeypatch.setitem(sys.modules, "rllm", rllm)
    assert register_verl("passk8", 8) is known["passk8"]
    assert register_rllm("passk4", 4) is known["passk4"]
    assert known["passk4"]([np.array([1.0, 0, 0, 0, 0])])[0][0].shape == (5,)


def test_without_the_packages():
    for register, name in ((register_verl, "verl"), (register_rllm, "rllm")):
        with pytest.raises(UserError, match=f"{name} is not installed"):
            register()
    from passgrad.trl import AnnealedK

    with pytest.raises(UserError, match="schedules live in the trainer"):
        verl_estimator(AnnealedK())
