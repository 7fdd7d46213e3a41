"""Estimators of pass@k and of its gradient: biases by exact sums over all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from passgrad.estimators import ESTIMATORS, advantages, get_estimator
from passgrad.metrics import pass_at_k

P = 0.468
UNBIASED = ("pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o")


def _outcomes(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All sequences of n actions of a softmax of three: chances, rewards, scores."""
    policy = torch.tensor([0.2, P - 0.2, 1 - P], dtype=torch.float64)
    right = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    sequences = torch.tensor(list(itertools.product(range(3), repeat=n)))
    scores = torch.eye(3, dtype=torch.float64) - policy
    return policy[sequences].prod(dim=1), right[sequences], scores[sequences]


def _mean(name: str, n: int, k: int) -> torch.Tensor:
    chances, rewards, scores = _outcomes(n)
    made = advantages(rewards, k, estimator=name)
    return chances @ torch.einsum("oi,oia->oa", made, scores)


def _gradient() -> torch.Tensor:
    """The gradient of p in the three logits."""
    policy = torch.tensor([0.2, P - 0.2, 1 - P], dtype=torch.float64)
    right = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    return policy * (right - P)


def unbiased() -> dict[str, float]:
    """Largest error of the mean of the unbiased estimators, n up to 6, over all outcomes."""
    worst, cases = 0.0, 0
    for name in UNBIASED:
        one = get_estimator(name)
        for n in range(max(2, one.fewest), 7):
            for k in range(1, n - one.spare + 1):
                target = k * (1 - P) ** (k - 1) * _gradient()
                worst = max(worst, float((_mean(name, n, k) - target).abs().max()))
                cases += 1
    return {"error": worst, "cases": cases, "estimators": len(ESTIMATORS)}


def plug_in() -> dict[str, float]:
    """Mean over target of the plug-in weights of the paper's Section 5, at p = 0.468."""
    found = {}
    for n, k in ((4, 2), (5, 3), (6, 3), (6, 4)):
        target = k * (1 - P) ** (k - 1) * _gradient()
        mean = _mean("plug-in", n, k)
        found[f"n{n}_k{k}"] = float(mean @ target / (target @ target))
    return found


def pass_at_k_estimate() -> dict[str, float]:
    """The unbiased estimate of pass@k: error of its mean, and what the plug-in makes of it."""
    n, worst = 6, 0.0
    law = torch.distributions.Binomial(n, torch.tensor(0.2, dtype=torch.float64))
    counts = np.arange(n + 1)
    chances = law.log_prob(torch.arange(n + 1).double()).exp().numpy()
    for k in range(1, n + 1):
        mean = float(chances @ np.asarray(pass_at_k(np.full(n + 1, n), counts, k)))
        worst = max(worst, abs(mean - (1 - 0.8**k)))
    naive = float(chances @ (1 - (1 - counts / n) ** 3))
    return {"error": worst, "plug_in": naive, "truth": 1 - 0.8**3}
