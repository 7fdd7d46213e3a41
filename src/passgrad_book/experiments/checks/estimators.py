"""Estimators of pass@k and of its gradient: biases by exact sums over all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from passgrad.estimators import ESTIMATORS, advantages, get_estimator
from passgrad.metrics import pass_at_k

P = 0.468
UNBIASED = ("pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o")


class Enumerated:
    """All outcomes of n samples of a policy over a few actions, with their chances, rewards and
    scores: what is a mean over them is a sum.
    """

    def __init__(self, n: int, policy: Tensor, right: Tensor) -> None:
        """``policy`` and ``right``, (A,): the chance and the reward of each action."""
        self.policy, self.right = policy, right
        actions = torch.tensor(list(itertools.product(range(len(policy)), repeat=n)))
        self.chances = policy[actions].prod(dim=1)
        self.rewards = right[actions]
        self.all_scores = torch.eye(len(policy), dtype=torch.float64) - policy
        self.scores = self.all_scores[actions]
        self.p = float(policy @ right)
        self.gradient = (policy * right) @ self.all_scores
        """Of the mean reward, in the logits, (A,)."""

    def estimates(self, coefficients: Tensor) -> Tensor:
        """sum_i A_i s_i for every outcome, (outcomes, A), of coefficients (outcomes, n)."""
        return torch.einsum("oi,oia->oa", coefficients, self.scores)

    def mean(self, coefficients: Tensor) -> Tensor:
        """The mean of :meth:`estimates`, (A,)."""
        return self.chances @ self.estimates(coefficients)

    def variance(self, coefficients: Tensor) -> float:
        """E||estimate - mean||^2."""
        away = self.estimates(coefficients) - self.mean(coefficients)
        return float(self.chances @ away.square().sum(dim=1))

    def class_moments(self) -> dict[str, float]:
        """||mu_1||^2, and the traces of the covariances within right and within wrong answers."""
        moments = []
        for kind in (self.right, 1 - self.right):
            law = self.policy * kind / (self.policy @ kind)
            mu = law @ self.all_scores
            moments.append((mu, float(law @ (self.all_scores - mu).square().sum(dim=1))))
        (mu, noise_right), (_, noise_wrong) = moments
        return {
            "mean_square": float(mu.square().sum()),
            "noise_right": noise_right,
            "noise_wrong": noise_wrong,
        }


def _space(n: int) -> Enumerated:
    """Three actions of which two are right, with the rate ``P`` together."""
    policy = torch.tensor([0.2, P - 0.2, 1 - P], dtype=torch.float64)
    return Enumerated(n, policy, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))


def _mean_and_target(name: str, n: int, k: int) -> tuple[Tensor, Tensor]:
    space = _space(n)
    mean = space.mean(advantages(space.rewards, k, estimator=name))
    return mean, k * (1 - P) ** (k - 1) * space.gradient


def unbiased() -> dict[str, float]:
    """Largest error of the mean of the unbiased estimators, n up to 6, over all outcomes."""
    worst, cases = 0.0, 0
    for name in UNBIASED:
        one = get_estimator(name)
        for n in range(max(2, one.fewest), 7):
            for k in range(1, n - one.spare + 1):
                mean, target = _mean_and_target(name, n, k)
                worst = max(worst, float((mean - target).abs().max()))
                cases += 1
    return {"error": worst, "cases": cases, "estimators": len(ESTIMATORS)}


def plug_in() -> dict[str, float]:
    """Mean over target of the plug-in weights of the paper's Section 5, at p = 0.468."""
    found = {}
    for n, k in ((4, 2), (5, 3), (6, 3), (6, 4)):
        mean, target = _mean_and_target("plug-in", n, k)
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
