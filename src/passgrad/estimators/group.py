"""What trainers ship: advantages relative to the group, and the objectives they really ascend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators.apply import ascending, by_ranks
from passgrad.estimators.base import Estimator, GivenOrders
from passgrad.estimators.counts import binomial_law, decisive_share, rates
from passgrad.estimators.pass_at_k import parts


class RLOO(Estimator):
    r"""The reward less the mean of the others: :math:`A_i = (r_i - \bar r_{-i}) / n`.

    Binary: :math:`A_+ = \frac{n-c}{n(n-1)}` and :math:`A_- = -\frac{c}{n(n-1)}`; graded rewards
    likewise. (P, n) rewards, (P, n) advantages, n >= 2.
    Ascends J_1, bias factor 1 for k = 1 and :math:`1 / w_k(p)` held against another k.
    Variance: the general formula. Source: Kool et al. (2019), Ahmadian et al. (2024).
    """

    name = "rloo"
    takes = "none"
    fewest = 2
    unbiased = True
    centred = True
    plus, minus = r"$\frac{n-c}{n(n-1)}$", r"$-\frac{c}{n(n-1)}$"
    ascends, bias = r"pass@1", r"$\frac{1}{w_k(p)}$"
    source = "leave-one-out"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c = torch.arange(n + 1, dtype=torch.float64).expand(len(ks), -1)
        return (n - c) / (n * (n - 1)), -c / (n * (n - 1))


@dataclass(frozen=True)
class GRPO(Estimator):
    r"""The reward less the group mean, over the group deviation: :math:`(r_i - \bar r)/(n \sigma)`.

    :math:`\sigma` is the deviation of the rewards plus ``epsilon``; ``correction`` = 1 divides the
    sum of squares by n - 1, 0 by n. The defaults, 1 and 1e-6, are those of verl; TRL adds 1e-4.
    (P, n) rewards of any kind, (P, n) advantages, n >= 2; 0 where all rewards are equal.
    Effective weight :math:`E[c(n-c)/(n^2 \sigma_c)] / (p(1-p))`, c ~ Bin(n, p), which tends to
    :math:`1/\sqrt{p(1-p)}` with n: GRPO ascends :math:`E[2 \arcsin \sqrt p]` (Davis and Recht,
    2025). Bias factor: that over :math:`w_k(p)`. Variance: the general formula.
    Source: Shao et al. (2024, arXiv:2402.03300). The averages over tokens and the clipping of the
    trainers are left out.
    """

    epsilon: float = 1e-6
    correction: int = 1

    name = "grpo"
    takes = "none"
    fewest = 2
    centred = True
    plus, minus = r"$\frac{n-c}{n^2 \sigma_c}$", r"$-\frac{c}{n^2 \sigma_c}$"
    ascends = r"$2 \arcsin \sqrt{p}$ as $n \to \infty$"
    bias = r"$\frac{\mathbb{E}[c(n-c)/\sigma_c]}{n^2 p(1-p)\,w_k(p)}$"
    source = "{cite:t}`davis2025`"

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        if self.correction not in (0, 1):
            raise UserError(f"correction must be 0 or 1, got {self.correction!r}")

    def deviation(self, n: int) -> Tensor:
        """sigma_c for c = 0..n: (n + 1,), epsilon included."""
        c = torch.arange(n + 1, dtype=torch.float64)
        return (c * (n - c) / (n * (n - self.correction))).sqrt() + self.epsilon

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c = torch.arange(n + 1, dtype=torch.float64).expand(len(ks), -1)
        return (
            _divided((n - c) / n**2, self.deviation(n)),
            _divided(-c / n**2, self.deviation(n)),
        )

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        p = rates(p)
        c = torch.arange(n + 1, dtype=torch.float64)
        pairs = _divided(c * (n - c) / n**2, self.deviation(n))
        weight = (binomial_law(p, n) * pairs).sum(-1) / (p * (1 - p))
        return self._over_target(weight, p, orders, single)

    def _graded(self, rewards: Tensor, ks: Sequence[int], out: Tensor | None) -> Tensor:
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        deviation = rewards.std(dim=1, correction=self.correction, keepdim=True) + self.epsilon
        made = _divided(centred, deviation) / rewards.shape[1]
        return _repeated(made, len(ks), out)


@dataclass(frozen=True)
class PassKTraining(Estimator):
    r"""Pass@k Training: the mean reward of the groups of k with sample i, less that of all groups.

    Over all groups of k, a group's reward being its best; divided by the deviation
    :math:`\sigma = \sqrt{\rho (1 - \rho)}` of the group rewards plus ``epsilon`` where
    ``standardise``, and by n. Binary, with :math:`\rho = \rho(n, c, k)`:
    :math:`A_+ = (1-\rho)/(n\sigma)` and :math:`A_- = (1 - \rho - S_c)/(n\sigma)`; graded rewards
    likewise. (P, n) rewards, (P, n) advantages, or (K, P, n), n > k (at n = k all are 0).
    The numerator is (n-k)/(nk) times :class:`CentredL2O`: without the deviation it ascends J_k,
    scaled alike on all prompts, with that bias factor. With it, the weight is
    :math:`E[c(1-\rho)/(n\sigma)]/(p(1-p))`, and tends to :math:`w_k / (k \sqrt{f_k(1-f_k)})` with
    n, the slope of :math:`\frac{2}{k} \arcsin\sqrt{f_k(p)}`. Variance: the general formula.
    Source: Chen et al. (2025, arXiv:2508.10751) and its code, which adds 1e-6 to the deviation,
    the default here.
    """

    standardise: bool = True
    epsilon: float = 1e-6

    spare = 1
    fewest = 2
    centred = True
    source = "{cite:t}`passktraining2025`"

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    @property
    def name(self) -> str:  # type: ignore[override]
        """With or without the deviation."""
        return "passk-training" if self.standardise else "passk-training-unscaled"

    @property
    def plus(self) -> str:  # type: ignore[override]
        return r"$\frac{1-\rho}{n\sigma}$" if self.standardise else r"$\frac{1-\rho}{n}$"

    @property
    def minus(self) -> str:  # type: ignore[override]
        below = r"n\sigma" if self.standardise else "n"
        return rf"$\frac{{1-\rho-S_c}}{{{below}}}$"

    @property
    def ascends(self) -> str:  # type: ignore[override]
        if self.standardise:
            return r"$\frac{2}{k} \arcsin \sqrt{f_k(p)}$ as $n \to \infty$"
        return "pass@k, scaled"

    @property
    def bias(self) -> str:  # type: ignore[override]
        if self.standardise:
            return r"$\frac{\mathbb{E}[c(1-\rho)/\sigma]}{n p(1-p)\,w_k(p)}$"
        return r"$\frac{n-k}{nk}$"

    def deviation(self, n: int, ks: Sequence[int]) -> Tensor:
        """The divisor sigma + epsilon for c = 0..n: (K, n + 1); ones without the deviation."""
        failure = 1 - self._share_solved(n, ks)
        if not self.standardise:
            return torch.ones_like(failure)
        return (failure * (1 - failure)).sqrt() + self.epsilon

    @staticmethod
    def _share_solved(n: int, ks: Sequence[int]) -> Tensor:
        """rho(n, c, k), the share of groups with a right answer: (K, n + 1)."""
        # C(n - c, k) / C(n, k) is S_c of n + 1 samples and the order k + 1.
        return 1 - decisive_share(n + 1, [k + 1 for k in ks])

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c, _, share, _ = parts(n, ks)
        # 1 - rho = S_c (n - c) / n, so nothing has to cancel.
        deviation = self.deviation(n, ks)
        return _divided(share * (n - c) / n**2, deviation), _divided(-share * c / n**2, deviation)

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        p = rates(p)
        if not self.standardise:
            scales = torch.tensor([(n - one) / (n * one) for one in orders], dtype=torch.float64)
            factor = scales.reshape(-1, *[1] * p.ndim) * torch.ones_like(p)
            return factor[0] if single else factor
        c = torch.arange(n + 1, dtype=torch.float64)
        paid = _divided(c * (1 - self._share_solved(n, orders)) / n, self.deviation(n, orders))
        weight = torch.einsum("kc,...c->k...", paid, binomial_law(p, n)) / (p * (1 - p))
        return self._over_target(weight[0] if single else weight, p, orders, single)

    def _graded(self, rewards: Tensor, ks: Sequence[int], out: Tensor | None) -> Tensor:
        n = rewards.shape[1]
        plain = PassKTraining(standardise=False).tables(n, ks)
        made = by_ranks(rewards, *plain, out=out)
        if self.standardise:
            ranked = rewards.gather(1, ascending(rewards))
            # Sample i of the ranked ones is the best of a group with chance C(i-1, k-1) / C(n, k).
            failure = 1 - self._share_solved(n, ks)
            law = failure.flip(1).diff(dim=1).to(rewards)
            mean = law @ ranked.T
            centred = ranked[None] - mean[:, :, None]
            deviation = (law[:, None, :] * centred.square()).sum(dim=2).sqrt() + self.epsilon
            made.copy_(_divided(made, deviation[:, :, None]))
        return made


@dataclass(frozen=True)
class MaxRL(Estimator):
    r"""The reward less the group mean, over the group mean: :math:`(r_i - \bar r) / (n \bar r)`.

    Binary rewards only: :math:`A_+ = 1/c - 1/n`, :math:`A_- = -1/n`, and 0 where c = 0.
    (P, n) rewards, (P, n) advantages, n >= 2.
    Effective weight :math:`\sum_{j=1}^{n-1} (1-p)^{j-1}`, the slope of log p to the order n - 1 in
    the failure rate; bias factor: that over :math:`w_k(p)`. Variance: the general formula.

    With ``zero_without_success`` = False, :math:`A_- = -1/n` also where c = 0, and the order is n.
    That is the estimator for which the order n is claimed; the quotient above, which trainers
    compute, drops the term and with it one order. Source: Tajwar et al. (2026, arXiv:2602.02710);
    the quotient stands in the code its authors published (with a small constant below, left out
    here) and in TRL's documentation. The text of their theorem was not at hand.
    """

    zero_without_success: bool = True

    takes = "none"
    fewest = 2
    binary_only = True
    source = "{cite:t}`tajwar2026maxrl`"
    plus = r"$\frac{1}{c} - \frac{1}{n}$"

    @property
    def name(self) -> str:  # type: ignore[override]
        """With or without the zero."""
        return "maxrl" if self.zero_without_success else "maxrl-full"

    @property
    def centred(self) -> bool:  # type: ignore[override]
        return self.zero_without_success

    @property
    def minus(self) -> str:  # type: ignore[override]
        return r"$-\frac{1}{n}\,1\{c \ge 1\}$" if self.zero_without_success else r"$-\frac{1}{n}$"

    def order(self, n: int) -> int:
        """The order in the failure rate to which log p is ascended from n samples."""
        return n - 1 if self.zero_without_success else n

    @property
    def ascends(self) -> str:  # type: ignore[override]
        return rf"$\log p$ to order ${'n-1' if self.zero_without_success else 'n'}$"

    @property
    def bias(self) -> str:  # type: ignore[override]
        order = "n-1" if self.zero_without_success else "n"
        return rf"$\frac{{1-(1-p)^{{{order}}}}}{{p\,w_k(p)}}$"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c = torch.arange(n + 1, dtype=torch.float64).expand(len(ks), -1)
        minus = torch.full_like(c, -1 / n)
        if self.zero_without_success:
            minus[:, 0] = 0.0
        return 1 / c.clamp(min=1) - 1 / n, minus

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        failure = 1 - rates(p)
        weight = torch.zeros_like(failure)
        for _ in range(self.order(n)):
            weight = 1 + failure * weight
        return self._over_target(weight, p, orders, single)


@dataclass(frozen=True)
class VerlPassK(Estimator):
    r"""verl's GRPO_PASSK: the best sample is paid its lead over the second best, from n samples.

    :math:`A_i = (r_{(1)} - r_{(2)}) / \sigma` on the best sample (the first of equals, whose lead
    is 0), else 0, with the group deviation :math:`\sigma` (n - 1 below) plus ``epsilon`` where
    ``standardise``, verl's default. Binary: :math:`A_+ = 1\{c = 1\}/\sigma_1`, :math:`A_- = 0`.
    (P, n) rewards of any kind, (P, n) advantages, n >= 2.
    Ascends J_n, scaled. Without the deviation it is :class:`TangLeaveOneOut`. With it, binary
    rewards have the one deviation :math:`\sigma_1 = 1/\sqrt n` wherever a sample is paid at all:
    bias factor :math:`\sqrt n / (1 + \epsilon \sqrt n)` on every prompt, so the direction of the
    gradient over prompts is unbiased. That does not hold for graded rewards.
    Variance: the general formula. Source: verl, read in its code, after Tang et al. (2025); its
    averages over tokens and samples are left out.
    """

    standardise: bool = True
    epsilon: float = 1e-6

    name = "verl-passk"
    takes = "n"
    fewest = 2
    plus, minus = r"$\sqrt{n}\,1\{c = 1\}$", r"$0$"
    ascends, bias = r"pass@n, scaled", r"$\sqrt{n}$"
    source = "verl, after {cite:t}`tang2025`"

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        plus = torch.zeros(len(ks), n + 1, dtype=torch.float64)
        plus[:, 1] = 1 / (n**-0.5 + self.epsilon) if self.standardise else 1.0
        return plus, torch.zeros_like(plus)

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        scale = n**0.5 / (1 + self.epsilon * n**0.5) if self.standardise else 1.0
        factor = torch.full_like(rates(p), scale)
        return factor if single else factor.expand(len(orders), *factor.shape)

    def _graded(self, rewards: Tensor, ks: Sequence[int], out: Tensor | None) -> Tensor:
        plain = torch.zeros(1, rewards.shape[1] + 1, dtype=torch.float64)
        plain[:, 1] = 1.0
        made = by_ranks(rewards, plain, torch.zeros_like(plain), out=None)[0]
        if self.standardise:
            deviation = rewards.std(dim=1, keepdim=True) + self.epsilon
            made = _divided(made, deviation)
        return _repeated(made, len(ks), out)


def _divided(numerator: Tensor, deviation: Tensor) -> Tensor:
    """The quotient, 0 where the deviation is 0: then the numerator is."""
    zero = deviation == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, deviation))


def _repeated(made: Tensor, times: int, out: Tensor | None) -> Tensor:
    """(P, n) -> (K, P, n): an estimator without k gives each order the same."""
    repeated = made.expand(times, -1, -1)
    if out is None:
        return repeated.contiguous() if times > 1 else repeated
    return out.view(repeated.shape).copy_(repeated)


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon < 1:
        raise UserError(f"epsilon must be at least 0 and below 1, got {epsilon!r}")
