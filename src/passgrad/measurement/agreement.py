"""Standard errors of the agreement of single prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from passgrad.estimators import Estimator
from passgrad.measurement.crossfit import CrossFit, Pairing


def agreement_error(fit: CrossFit, estimator: Estimator) -> Tensor:
    """The standard error of a(x) given the direction: (..., M), nan with too few answers.

    Jackknife over the answers of each half. A prompt with only right or only wrong answers has
    error 0: nothing in it says how far its a(x) is from 0.
    """
    parts = [_jackknife(pairing, estimator) for pairing in fit.pairings]
    total = parts[0].new_zeros(*parts[0].shape[:-1], fit.shape[0])
    for pairing, part in zip(fit.pairings, parts, strict=True):
        total[..., pairing.half.prompts] += part
    return total.sqrt() / (1 if fit.split == "prompts" else 2)


def _jackknife(pairing: Pairing, estimator: Estimator) -> Tensor:
    """The variance of sum_i A_i d_i, (..., P), with the advantages of k = 1."""
    rewards, d = pairing.rewards, pairing.directional[0]
    m = rewards.shape[-1]
    # One answer fewer must still be enough for the estimator: two, for a comparison with others.
    if m < 3:
        return torch.full_like(rewards[..., 0], torch.nan)
    plus, minus = estimator.tables(m - 1, [1])
    counts = (rewards.sum(-1, keepdim=True) - rewards).long()
    right, wrong = rewards * d, (1 - rewards) * d
    right, wrong = (one.sum(-1, keepdim=True) - one for one in (right, wrong))
    without = plus[0, counts] * right + minus[0, counts] * wrong
    return (m - 1) * without.var(dim=-1, unbiased=False)
