r"""Rewards of complete groups -> advantages and estimates of pass@k, with rewards missing.

A reward that no reward function gave is nan. The other m of the n samples of that group are samples
all the same, and the estimators are applied to them. A group with fewer than an estimator needs
contributes nothing, and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, advantages
from passgrad.metrics import pass_at_k


def group_rewards(raw: Tensor, weights: Tensor, num_samples: int) -> Tensor:
    """Gathered (rows, functions) rewards -> (P, n) float64: the weighted sum of those given.

    nan where no function gave a reward. Raises UserError for rows that do not form groups.
    """
    if len(raw) % num_samples:
        raise UserError(f"{len(raw)} rewards do not form groups of {num_samples}")
    raw = raw.double()
    total = (raw * weights.to(raw)).nansum(dim=1)
    total[raw.isnan().all(dim=1)] = torch.nan
    return total.view(-1, num_samples).cpu()


def group_advantages(
    rewards: Tensor, weights: Mapping[int, float], estimator: Estimator
) -> tuple[Tensor, int]:
    r"""(P, n) rewards -> (P, n) advantages A of a mixture over k, and how many groups are left out.

    The gradient of the mixture is estimated by :math:`\frac{1}{P} \sum_x \sum_i A_{xi} s_{xi}`.
    ``weights`` are the coefficients of the orders; an estimator that has no order takes no note of
    them. Samples without a reward get 0.
    """
    made = torch.zeros_like(rewards)
    dropped = 0
    for rows, some in _by_size(rewards):
        try:
            values = _advantages(some, weights, estimator)
        except UserError:
            if some.shape[1] == rewards.shape[1]:
                raise
            dropped += len(some)
            continue
        place = made[rows]
        place[~rewards[rows].isnan()] = values.reshape(-1)
        made[rows] = place
    return made, dropped


def max_at_k(rewards: Tensor, k: int) -> Tensor:
    r"""The mean over the k-subsets of a group of their best reward, (P,), float64.

    Unbiased for E[max of k rewards]; for rewards of 0 and 1 that is pass@k, as estimated by
    :func:`passgrad.pass_at_k`. nan for groups with fewer than k rewards.
    """
    made = torch.full((len(rewards),), torch.nan, dtype=torch.float64)
    for rows, some in _by_size(rewards):
        m = some.shape[1]
        if m < k:
            continue
        # The share of subsets that hold one of the c best, for c = 0..m.
        share = np.asarray(pass_at_k(m, np.arange(m + 1), k))
        made[rows] = some.sort(dim=1, descending=True).values @ torch.from_numpy(np.diff(share))
    return made


def group_deviation(rewards: Tensor, scale: str) -> Tensor:
    """What TRL divides advantages by, (P, 1), for ``scale_rewards`` "group" or "batch"."""
    known = ~rewards.isnan()
    if scale == "batch":
        return rewards[known].std().nan_to_num(0.0) + 1e-4
    count = known.sum(1, keepdim=True)
    mean = rewards.nansum(1, keepdim=True) / count
    square = (rewards - mean).square().nansum(1, keepdim=True)
    return (square / (count - 1).clamp(min=1)).sqrt() + 1e-4


def _advantages(rewards: Tensor, weights: Mapping[int, float], estimator: Estimator) -> Tensor:
    if estimator.takes != "k":
        return advantages(rewards, estimator=estimator)
    orders, values = list(weights), list(weights.values())
    if values == [1.0]:
        return advantages(rewards, orders[0], estimator=estimator)
    return advantages(rewards, orders, weights=values, estimator=estimator)


def _by_size(rewards: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups with as many rewards: their places, and their rewards without the missing ones."""
    known = ~rewards.isnan()
    counts = known.sum(1)
    for size in counts.unique().tolist():
        if size:
            rows = (counts == size).nonzero()[:, 0]
            yield rows, rewards[rows][known[rows]].view(len(rows), size)
