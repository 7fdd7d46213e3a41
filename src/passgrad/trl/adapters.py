r"""The same advantages for other trainers: verl, SkyRL, rllm and slime.

The first three have a registry of advantage estimators, slime a hook behind its rewards. What they
get is :func:`passgrad.advantages` on complete groups, multiplied by the number of samples of a
group, since these trainers average over samples. Their own settings decide what becomes of it: an
average over tokens of the batch or over the tokens of each completion is biased in length (in verl
take ``loss_agg_mode="seq-mean-token-sum-norm"``), and what is standardised or clipped afterwards is
no longer the gradient of pass@k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.trl.groups import group_advantages
from passgrad.trl.schedules import FixedK, as_plan

# Where the registries are, the newest place first.
_VERL = (("verl.trainer.ppo.core_algos", "register_adv_est"),)
_SKYRL = (
    ("skyrl.backends.skyrl_train.utils.ppo_utils", "register_advantage_estimator"),
    ("skyrl_train.utils.ppo_utils", "register_advantage_estimator"),
)
_RLLM = (
    ("rllm.trainer.algorithms.advantage", "register_adv_estimator"),
    ("rllm.trainer.algorithms.advantage", "register_rllm_adv_estimator"),
    ("rllm.trainer.common.advantage", "register_rllm_adv_estimator"),
    ("rllm.experimental.common.advantage", "register_rllm_adv_estimator"),
)


def register_verl(
    name: str = "passk", k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Register pass@k with verl, for ``algorithm.adv_estimator=<name>``; returns the function.

    :param k: An order or a mixture, as in the trainers for TRL.
    :raises UserError: Without verl, and for orders and estimators that do not fit.
    """
    return _registrar("verl", _VERL)(name)(verl_estimator(k, estimator=estimator))


def register_skyrl(
    name: str = "passk", k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Register pass@k with SkyRL, for ``trainer.algorithm.advantage_estimator=<name>``; returns the
    function, which is called as verl calls it.

    :param k: An order or a mixture, as in the trainers for TRL.
    :raises UserError: Without SkyRL, and for orders and estimators that do not fit.
    """
    return _registrar("skyrl", _SKYRL)(name)(verl_estimator(k, estimator=estimator))


def register_rllm(
    name: str = "passk", k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]:
    """Register pass@k with rllm; returns the function.

    :param k: An order or a mixture, as in the trainers for TRL.
    :raises UserError: Without rllm, and for orders and estimators that do not fit.
    """
    return _registrar("rllm", _RLLM)(name)(rllm_estimator(k, estimator=estimator))


def verl_estimator(
    k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The function that verl calls, without registering it."""
    weights, chosen = _weights(k), get_estimator(estimator)

    def passk_advantages(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: np.ndarray | None = None,
        config: Any = None,
        **rest: Any,
    ) -> tuple[Tensor, Tensor]:
        """(B, T) rewards and mask, and (B,) group labels -> (B, T) advantages and returns."""
        if index is None:
            raise UserError("pass@k needs the group of every sample: verl passes it as index")
        with torch.no_grad():
            scores = token_level_rewards.sum(-1).double().cpu()
            flat = torch.zeros_like(scores)
            labels = np.asarray(index)
            for label in dict.fromkeys(labels.tolist()):
                rows = torch.from_numpy(np.flatnonzero(labels == label))
                flat[rows] = _scaled(scores[rows], weights, chosen)
            made = flat.to(token_level_rewards)[:, None] * response_mask
        return made, made

    return passk_advantages


def rllm_estimator(
    k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]:
    """The function that rllm calls, without registering it."""
    weights, chosen = _weights(k), get_estimator(estimator)

    def passk_advantages(
        rewards: Sequence[np.ndarray], algorithm_config: Any = None, **rest: Any
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """One array of rewards a group -> one of advantages, and one of returns, a group."""
        made = [
            _scaled(
                torch.as_tensor(np.asarray(group), dtype=torch.float64), weights, chosen
            ).numpy()
            for group in rewards
        ]
        return made, made

    return passk_advantages


def slime_rewards(
    k: Any = 8, *, estimator: str | Estimator = "pkpo-loo1"
) -> Callable[[Any, Sequence[Any]], tuple[list[float], list[float]]]:
    """The function for slime's ``--custom-reward-post-process-path``: put it under a name in a
    module of yours, and name that.

    It takes the place of slime's normalisation of rewards. Its second list is the advantages, which
    slime spreads over the tokens with ``--advantage-estimator grpo``.

    :param k: An order or a mixture, as in the trainers for TRL.
    """
    weights, chosen = _weights(k), get_estimator(estimator)

    def passk_rewards(args: Any, samples: Sequence[Any]) -> tuple[list[float], list[float]]:
        """Arguments of the run and samples with a group and a reward -> raw rewards, advantages."""
        raw = [float(sample.get_reward_value(args)) for sample in samples]
        labels = [sample.group_index for sample in samples]
        if None in labels:
            raise UserError("pass@k needs the group of every sample: slime sets group_index")
        flat = torch.zeros(len(raw), dtype=torch.float64)
        for label in dict.fromkeys(labels):
            rows = torch.tensor([place for place, own in enumerate(labels) if own == label])
            rewards = torch.tensor(raw, dtype=torch.float64)[rows]
            flat[rows] = _scaled(rewards, weights, chosen)
        return raw, flat.tolist()

    return passk_rewards


def _scaled(rewards: Tensor, weights: dict[int, float], estimator: Estimator) -> Tensor:
    """N A of one group, (n,) -> (n,)."""
    return group_advantages(rewards[None], weights, estimator)[0][0] * len(rewards)


def _weights(k: Any) -> dict[int, float]:
    plan = as_plan(k)
    if not isinstance(plan, FixedK):
        raise UserError("an adapter takes an order or a mixture: schedules live in the trainer")
    return plan.weights(0.0)


def _registrar(package: str, places: Sequence[tuple[str, str]]) -> Callable[..., Any]:
    reasons = []
    for module, name in places:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            reasons.append(f"{module}.{name} ({error})")
    raise UserError(
        f"{package} has no registry of advantage estimators in the places that are known: "
        f"{'; '.join(reasons)}; install it in this environment, or register the function yourself: "
        f"passgrad.trl.adapters.{'rllm' if package == 'rllm' else 'verl'}_estimator(k) makes it"
    )
