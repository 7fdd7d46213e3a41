"""Our functions in the code of verl and SkyRL themselves, which `make adapters` installs.

It is skipped where they are not installed, which is so in the project's own environment.
"""

import importlib
import sys
import types

import numpy as np
import pytest
import torch

from passgrad import advantages
from passgrad.trl import register_skyrl, register_verl

#: two groups of four completions of three tokens, in turn, with ragged ends
ORDER = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
GROUPS = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]]).double()
LABELS = np.array(["a"] * 4 + ["b"] * 4, dtype=object)[ORDER.numpy()]


def batch():
    mask = torch.ones(8, 3)
    mask[:, 2] = torch.arange(8) % 2
    rewards = torch.zeros(8, 3)
    rewards[:, 1] = GROUPS.reshape(-1)[ORDER].float()
    return rewards, mask


def expected(k, mask):
    values = 4 * advantages(GROUPS, k, weights=None if isinstance(k, int) else [0.5, 0.5])
    return values.reshape(-1)[ORDER].float()[:, None] * mask


def test_verl_computes_our_advantages():
    pytest.importorskip("verl")
    trainer = importlib.import_module("verl.trainer.ppo.ray_trainer")
    protocol = importlib.import_module("verl.protocol")
    register_verl("passk-test", 2)
    rewards, mask = batch()
    data = protocol.DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": LABELS},
    )
    made = trainer.compute_advantage(data, "passk-test", config={})
    torch.testing.assert_close(made.batch["advantages"], expected(2, mask))


def test_the_loss_of_verl_has_the_gradient_of_pass_at_k():
    """With ``seq-mean-token-sum``, mean over completions of the sums over their tokens."""
    core = pytest.importorskip("verl.trainer.ppo.core_algos")
    rewards, mask = batch()
    given = core.get_adv_estimator_fn("passk-test")(
        token_level_rewards=rewards, response_mask=mask, index=LABELS, config={}
    )[0]
    logprobs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ratio = (logprobs - logprobs.detach()).exp()
    loss = core.agg_loss(-given * ratio, mask, "seq-mean-token-sum")
    (gradient,) = torch.autograd.grad(loss, logprobs)
    own = advantages(GROUPS, 2).reshape(-1)[ORDER].float()[:, None] * mask
    torch.testing.assert_close(gradient, -own / len(GROUPS))


def test_skyrl_computes_our_advantages(monkeypatch):
    skyrl = pytest.importorskip("skyrl")
    if sys.version_info < (3, 12):
        # SkyRL wants Python 3.12: its configuration and its servers are left out, and the
        # configuration is a type annotation in what is called here.
        backends = types.ModuleType("skyrl.backends")
        backends.__path__ = [f"{skyrl.__path__[0]}/backends"]
        monkeypatch.setitem(sys.modules, "skyrl.backends", backends)
        config = types.ModuleType("skyrl.train.config")
        config.AlgorithmConfig = object
        monkeypatch.setitem(sys.modules, "skyrl.train.config", config)
        monkeypatch.setitem(sys.modules, "skyrl.train", types.ModuleType("skyrl.train"))
    utils = importlib.import_module("skyrl.backends.skyrl_train.utils.ppo_utils")
    register_skyrl("passk-test", {1: 0.5, 2: 0.5})
    rewards, mask = batch()
    made, returns = utils.compute_advantages_and_returns(
        rewards, mask, LABELS, "passk-test", config=None
    )
    torch.testing.assert_close(made, expected([1, 2], mask))
    assert torch.equal(made, returns)
