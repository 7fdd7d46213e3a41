r"""The policies that maximise pass@k when a policy cannot tell all prompts apart.

A policy with two actions sees s, and given s the right action is 1 with the posterior
:math:`\eta(s)`. If it answers 1 with probability :math:`\pi`, its conditional pass@k is

.. math:: (1 - \eta) (1 - \pi^k) + \eta (1 - (1 - \pi)^k),

which is strictly concave for k > 1 and largest where the log-odds of the answer are those of the
truth, divided by k - 1:

.. math:: \mathrm{logit} \, \pi_k = \frac{\mathrm{logit} \, \eta}{k - 1}.

Pass@2 matches probabilities, larger k hedge, and only k = 1 takes the better bet. In the Gaussian
bandit the log-odds are linear in s, so the policy that is best among all functions of s is one of
the two-parameter policies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.orders import check_k
from passgrad.worlds.bandit import GaussianBandit


def hedged_answer(posterior: Tensor | float, k: float) -> Tensor:
    """The probability of action 1 that maximises pass@k where action 1 is right with ``posterior``.

    For k = 1 it is 0 or 1, and 1/2 where both answers are as good. The result has the shape of
    ``posterior``, float64. Raises UserError for a posterior outside [0, 1] or k < 1.
    """
    eta = torch.as_tensor(posterior, dtype=torch.float64)
    if not ((eta >= 0) & (eta <= 1)).all():
        raise UserError("posterior must lie between 0 and 1")
    if check_k(k) == 1:
        return (torch.sign(eta - 0.5) + 1) / 2
    return torch.sigmoid(torch.logit(eta) / (k - 1))


def optimal_theta(k: float, separation: float, hard_fraction: float) -> Tensor:
    """The theta that maximises pass@k in the Gaussian bandit, (logit h, separation) / (k - 1).

    No function of the feature does better. For k = 1 the best policy is a step, which a finite
    theta only approaches: raises UserError there, and outside the domain of the bandit.
    """
    if check_k(k) == 1:
        raise UserError("pass@1 has no finite optimum: its best policy is a step, take k > 1")
    GaussianBandit(separation, hard_fraction, 3)  # refuses what is not a population
    log_odds = math.log(hard_fraction) - math.log1p(-hard_fraction)
    return torch.tensor([log_odds, separation], dtype=torch.float64) / (k - 1)


def best_pass_at_1(separation: float, hard_fraction: float) -> float:
    """The largest pass@1 of any policy in the Gaussian bandit: that of the better bet at every s.

    Answering 1 exactly where logit h + separation * s > 0 is right with the probability
    (1 - h) Phi(t + d/2) + h Phi(d/2 - t), t = -logit(h) / d; max(h, 1 - h) at separation d = 0.
    """
    GaussianBandit(separation, hard_fraction, 3)
    h, d = hard_fraction, abs(separation)
    if d == 0:
        return max(h, 1 - h)
    log_odds = math.log(h) - math.log1p(-h)
    easy, hard = d / 2 - log_odds / d, d / 2 + log_odds / d
    phi = torch.special.ndtr(torch.tensor([easy, hard], dtype=torch.float64))
    return float((1 - h) * phi[0] + h * phi[1])
