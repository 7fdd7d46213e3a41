r"""The unbiased estimators of the gradients of pass@k and max@k.

All satisfy :math:`A_+(c+1) - A_-(c) = (k/n) S_c` with S_c of :mod:`passgrad.estimators.counts`:
for binary rewards that is necessary and sufficient, since the two sides are the coefficients of
e(p) and of w_k(p) in one basis of polynomials. They differ in the baseline A_-(c) alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from passgrad.estimators.base import Estimator
from passgrad.estimators.counts import decisive_share


def parts(n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c: (n + 1,), k: (K, 1), S_c: (K, n + 1) with S_n = 0, and S_{c-1}: (K, n + 1)."""
    share = decisive_share(n, ks)
    zero = torch.zeros_like(share[:, :1])
    c = torch.arange(n + 1, dtype=torch.float64)
    k = torch.tensor(list(ks), dtype=torch.float64)[:, None]
    return c, k, torch.cat([share, zero], dim=1), torch.cat([zero, share], dim=1)


class ReinforceMax(Estimator):
    r"""REINFORCE with the group's best reward, from n = k samples: :math:`A_i = \max_j r_j`.

    Binary: :math:`A_+ = 1`, :math:`A_-(c) = 1\{c \ge 1\}`. Graded rewards likewise.
    (P, n) rewards, (P, n) advantages. Ascends J_n, bias factor 1.
    Variance: the general formula (:meth:`Estimator.variance`); the largest of the family, since
    every sample is paid for the success of the group.
    Source: the score function estimator of E[max of n rewards] (Williams, 1992).
    """

    name = "reinforce-max"
    takes = "n"
    unbiased = True
    plus, minus = r"$1$", r"$1\{c \ge 1\}$"
    ascends, bias = r"pass@n, $k = n$", r"$1$"
    source = "score function"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        plus = torch.ones(len(ks), n + 1, dtype=torch.float64)
        minus = plus.clone()
        minus[:, 0] = 0.0
        return plus, minus


class PKPO(Estimator):
    r"""The s of PKPO: :math:`s_i = \binom{n}{k}^{-1} \sum_{I \ni i, |I| = k} \max_I r`, n >= k.

    Binary: :math:`A_+ = k/n` and :math:`A_-(c) = (k/n)(1 - S_c) = (k/n) \rho(n-1, c, k-1)`.
    (P, n) rewards, (P, n) advantages, or (K, P, n). Ascends J_k, bias factor 1.
    Variance: the general formula; without a baseline, it is large where p is.
    Source: Walder and Karkhanis (2025), Theorem 2.
    """

    name = "pkpo"
    unbiased = True
    plus, minus = r"$\frac{k}{n}$", r"$\frac{k}{n}(1 - S_c)$"
    ascends, bias = r"pass@k", r"$1$"
    source = "{cite:t}`walder2025pkpo`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        _, k, share, _ = parts(n, ks)
        return (k / n).expand_as(share).clone(), k / n * (1 - share)


class PKPOLeaveOneOut(Estimator):
    r"""The sloo of PKPO: s_i less the mean of the s_j, j != i, computed without sample i; n > k.

    Binary: the coefficients of :class:`PKPO` less :math:`\frac{k}{n-1} \rho(n-1, c_{-i}, k)`,
    where :math:`c_{-i}` counts the right answers other than i.
    (P, n) rewards, (P, n) advantages, or (K, P, n). Ascends J_k, bias factor 1. The advantages do
    not sum to zero: their baseline is n / (n - 1) times that of :class:`CentredL2O`.
    Variance: the general formula. Source: Walder and Karkhanis (2025).
    """

    name = "pkpo-loo"
    spare = 1
    fewest = 2
    unbiased = True
    plus = r"`pkpo` less $\frac{k}{n-1} \rho(n-1, c-1, k)$"
    minus = r"`pkpo` less $\frac{k}{n-1} \rho(n-1, c, k)$"
    ascends, bias = r"pass@k", r"$1$"
    source = "{cite:t}`walder2025pkpo`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c, k, share, before = parts(n, ks)
        # 1 - rho(n - 1, c, k) = S_c (n - k - c) / (n - k); the share is 0 where this is negative.
        plus = k / n - k / (n - 1) * (1 - before * (n - k - (c - 1)) / (n - k))
        minus = k / n * (1 - share) - k / (n - 1) * (1 - share * (n - k - c) / (n - k))
        return plus, minus


class PKPOLooMinusOne(Estimator):
    r"""The sloo-1 of PKPO: the mean of :math:`\max_I r - \max_{I \setminus i} r`, times k / n.

    Over all groups I of k samples with i in them, n >= k. Binary: :math:`A_+(c) = (k/n) S_{c-1}`
    and :math:`A_- = 0`: a right answer is paid for the groups that it alone saves.
    (P, n) rewards, (P, n) advantages, or (K, P, n). Ascends J_k, bias factor 1. For k = 1, where
    no sample is left to compare with, it is :class:`RLOO`, as in its paper.
    Variance: the general formula. Source: Walder and Karkhanis (2025), their choice.
    """

    name = "pkpo-loo1"
    unbiased = True
    plus, minus = r"$\frac{k}{n} S_{c-1}$", r"$0$"
    ascends, bias = r"pass@k", r"$1$"
    source = "{cite:t}`walder2025pkpo`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c, k, _, before = parts(n, ks)
        plus, minus = k / n * before, torch.zeros_like(before)
        first = k[:, 0] == 1
        if n > 1:
            plus[first], minus[first] = (n - c) / (n * (n - 1)), -c / (n * (n - 1))
        return plus, minus


class TangLeaveOneOut(Estimator):
    r"""Leave-one-out maximum, from n = k samples: :math:`A_i = \max_j r_j - \max_{j \ne i} r_j`.

    Binary: :math:`A_+(c) = 1\{c = 1\}`, :math:`A_- = 0`. It is :class:`PKPOLooMinusOne` at n = k.
    (P, n) rewards, (P, n) advantages. Ascends J_n, bias factor 1.
    Variance: the general formula. Source: Tang et al. (2025).
    """

    name = "tang-loo"
    takes = "n"
    fewest = 2
    unbiased = True
    plus, minus = r"$1\{c = 1\}$", r"$0$"
    ascends, bias = r"pass@n, $k = n$", r"$1$"
    source = "{cite:t}`tang2025`"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        plus = torch.zeros(len(ks), n + 1, dtype=torch.float64)
        plus[:, 1] = 1.0
        return plus, torch.zeros_like(plus)


class CentredL2O(Estimator):
    r"""Leave-two-out: sample i is compared with each j != i in groups that hold neither; n > k.

    .. math:: A_i = \frac{k}{n(n-1)} \sum_{j \ne i}
              E_{T}\bigl[\max(r_i, \max_T r) - \max(r_j, \max_T r)\bigr],

    T uniform over the sets of k - 1 samples without i and j. Swapping i and j flips the sign, so
    the advantages sum to zero. Binary: :math:`A_+(c) = \frac{k}{n} \frac{n-c}{n-k} S_c` and
    :math:`A_-(c) = -\frac{k}{n} \frac{c}{n-k} S_c`; k = 1 is :class:`RLOO`.
    (P, n) rewards, (P, n) advantages, or (K, P, n). Ascends J_k, bias factor 1; for binary rewards
    no other estimator is centred and unbiased. Graded rewards cost no more than a sort.
    Variance: the general formula.
    Source: derived here. Believed to be the baseline of MaxPO (arXiv:2606.06080), whose formula
    was not at hand.
    """

    name = "centred-l2o"
    spare = 1
    fewest = 2
    unbiased = True
    centred = True
    plus = r"$\frac{k}{n} \frac{n-c}{n-k} S_c$"
    minus = r"$-\frac{k}{n} \frac{c}{n-k} S_c$"
    ascends, bias = r"pass@k", r"$1$"
    source = "derived here"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        c, k, share, _ = parts(n, ks)
        scale = k / (n * (n - k)) * share
        return scale * (n - c), -scale * c
