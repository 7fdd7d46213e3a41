r"""Weights estimated from the same samples as the gradient: what each of them really ascends.

The gradient of pass@k weighs a prompt by :math:`w_k(p) = k (1-p)^{k-1}`. Each estimator here puts
an estimate of that weight in front of an estimate of grad p, and is biased because the two share
samples, or because the weight is biased by itself. The group-centred leave-one-out maximum, biased
as well, is here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from passgrad.estimators.base import Estimator, GivenOrders
from passgrad.estimators.counts import binomial_law, rates
from passgrad.estimators.pass_at_k import parts
from passgrad.objectives import PassAtK


class _BinaryWeights(Estimator):
    """An estimator whose stated weight is a mean over counts, for binary rewards."""

    binary_only = True

    def stated_weight(self, p: Tensor, n: int, k: int) -> Tensor:
        """What multiplies grad p, from the definition of the estimator: the shape of p."""
        raise NotImplementedError

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        stated = torch.stack([self.stated_weight(rates(p), n, one) for one in orders])
        return self._over_target(stated[0] if single else stated, p, orders, single)


class PlugIn(_BinaryWeights):
    r"""The weight at the observed rate, on the right answers: :math:`A_+(c) = w_k(c/n) / n`.

    :math:`A_- = 0`; binary rewards, (P, n) -> (P, n) or (K, P, n), n >= k.
    Ascends :math:`F' = E[w_k((c'+1)/n)]`, c' ~ Bin(n-1, p): a right answer lowers the weight of
    its own prompt. Bias factor :math:`E[c \, w_k(c/n)] / (n p \, w_k(p))`, c ~ Bin(n, p): below 1
    where p is moderate, far above 1 where :math:`w_k(p)` is small. Variance: the general formula.
    Source: the weights of Barakat et al. (2026), section 5, as its printed numbers imply.
    """

    name = "plug-in"
    plus, minus = r"$\frac{1}{n} w_k(\frac{c}{n})$", r"$0$"
    ascends = r"$F' = \mathbb{E}\,w_k(\frac{c'+1}{n})$"
    bias = r"$\frac{\mathbb{E}[c\,w_k(c/n)]}{n p\,w_k(p)}$"
    source = "{cite:t}`barakat2026passk`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c = torch.arange(n + 1, dtype=torch.float64)
        plus = torch.stack([PassAtK(k).weight(c / n) / n for k in ks])
        return plus, torch.zeros_like(plus)

    def stated_weight(self, p: Tensor, n: int, k: int) -> Tensor:
        c = torch.arange(1, n + 1, dtype=torch.float64)
        # E[c h(c)] / (n p) over Bin(n, p) is E[h(c + 1)] over Bin(n - 1, p), also at p = 0.
        return (binomial_law(p, n - 1) * PassAtK(k).weight(c / n)).sum(-1)


class PlugInLeaveOneOut(_BinaryWeights):
    r"""The weight at the rate of the others: :math:`A_i = w_k((c - r_i)/(n-1)) \, r_i / n`.

    Binary rewards, (P, n) -> (P, n) or (K, P, n), n >= k and n >= 2.
    Ascends :math:`F' = E[w_k(c'/(n-1))]`, c' ~ Bin(n-1, p). Weight and sample are independent, so
    that the bias is that of the weight alone, whose convexity makes it too large from k = 3 on:
    bias factor :math:`E[w_k(c'/(n-1))] / w_k(p)`, 1 for k <= 2. Variance: the general formula.
    Source: a common repair of :class:`PlugIn`.
    """

    name = "plug-in-loo"
    fewest = 2
    plus, minus = r"$\frac{1}{n} w_k(\frac{c-1}{n-1})$", r"$0$"
    ascends = r"$F' = \mathbb{E}\,w_k(\frac{c'}{n-1})$"
    bias = r"$\frac{\mathbb{E}\,w_k(c'/(n-1))}{w_k(p)}$"
    source = "variant"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        others = (torch.arange(n + 1, dtype=torch.float64) - 1).clamp(min=0) / (n - 1)
        plus = torch.stack([PassAtK(k).weight(others) / n for k in ks])
        return plus, torch.zeros_like(plus)

    def stated_weight(self, p: Tensor, n: int, k: int) -> Tensor:
        c = torch.arange(n, dtype=torch.float64)
        return (binomial_law(p, n - 1) * PassAtK(k).weight(c / (n - 1))).sum(-1)


class UWeight(_BinaryWeights):
    r"""The unbiased estimate of the weight from all n samples, on the right answers.

    :math:`A_+(c) = \frac{k}{n} \binom{n-c}{k-1} / \binom{n}{k-1}` and :math:`A_- = 0`; binary
    rewards, (P, n) -> (P, n) or (K, P, n), n >= k.
    Each factor is unbiased and the product is not, as they share a sample: bias factor exactly
    (n - k + 1) / n. It ascends J_k, scaled, alike on all prompts. Variance: the general formula.
    Source: a common repair of :class:`PlugIn`.
    """

    name = "u-weight"
    plus = r"$\frac{k}{n} \binom{n-c}{k-1} / \binom{n}{k-1}$"
    minus = r"$0$"
    ascends, bias = r"pass@k, scaled", r"$\frac{n-k+1}{n}$"
    source = "variant"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        # C(n - c, k - 1) / C(n, k - 1) is S_c of n + 1 samples.
        share = parts(n + 1, ks)[2][:, : n + 1]
        k = torch.tensor(list(ks), dtype=torch.float64)[:, None]
        return k / n * share, torch.zeros_like(share)

    def stated_weight(self, p: Tensor, n: int, k: int) -> Tensor:
        return PassAtK(k).weight(p) * ((n - k + 1) / n)


class PlugInCentred(_BinaryWeights):
    r"""The weight at the observed rate times the advantages of RLOO.

    :math:`A_+(c) = w_k(c/n) \frac{n-c}{n(n-1)}`, :math:`A_-(c) = -w_k(c/n) \frac{c}{n(n-1)}`;
    binary rewards, (P, n) -> (P, n) or (K, P, n), n >= k and n >= 2.
    Ascends :math:`F' = E[w_k((c'+1)/n)]`, c' ~ Bin(n-2, p): the weight sees one right and one
    wrong sample for certain, the pair that makes the gradient. Bias factor: that over
    :math:`w_k(p)`. Variance: the general formula. Source: a common repair of :class:`PlugIn`.
    """

    name = "plug-in-centred"
    fewest = 2
    centred = True
    plus = r"$w_k(\frac{c}{n}) \frac{n-c}{n(n-1)}$"
    minus = r"$-w_k(\frac{c}{n}) \frac{c}{n(n-1)}$"
    ascends = r"$F' = \mathbb{E}\,w_k(\frac{c''+1}{n})$"
    bias = r"$\frac{\mathbb{E}\,w_k((c''+1)/n)}{w_k(p)}$"
    source = "variant"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c = torch.arange(n + 1, dtype=torch.float64)
        weight = torch.stack([PassAtK(k).weight(c / n) for k in ks]) / (n * (n - 1))
        return weight * (n - c), -weight * c

    def stated_weight(self, p: Tensor, n: int, k: int) -> Tensor:
        c = torch.arange(1, n, dtype=torch.float64)
        return (binomial_law(p, n - 2) * PassAtK(k).weight(c / n)).sum(-1)


class TangCentred(Estimator):
    r"""The leave-one-out maximum, then less its mean over the group; from n samples.

    Binary: :math:`A_+ = 1\{c = 1\}(1 - 1/n)` and :math:`A_- = -1\{c = 1\}/n`; graded rewards
    likewise. (P, n) rewards, (P, n) advantages.
    Ascends J_{n-1}: it is the unbiased, centred estimator of pass@(n - 1), :class:`CentredL2O`
    with k = n - 1. Held against pass@n, its bias factor is (n - 1) / (n (1 - p)).
    Variance: the general formula.
    Source: the group-centred form of Tang et al. (2025), whose own centring may differ in detail.
    """

    name = "tang-centred"
    takes = "n"
    fewest = 2
    centred = True
    plus, minus = r"$1\{c = 1\} \frac{n-1}{n}$", r"$-1\{c = 1\} \frac{1}{n}$"
    ascends, bias = r"pass@$(n-1)$", r"$\frac{n-1}{n(1-p)}$"
    source = "{cite:t}`tang2025`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        plus = torch.zeros(len(ks), n + 1, dtype=torch.float64)
        minus = plus.clone()
        plus[:, 1], minus[:, 1] = 1 - 1 / n, -1 / n
        return plus, minus

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        orders, single = self.orders(n, k)
        factor = (n - 1) / (n * (1 - rates(p)))
        return factor if single else factor.expand(len(orders), *factor.shape)
