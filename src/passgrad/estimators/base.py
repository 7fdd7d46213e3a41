r"""What an estimator is: advantages for n samples of a prompt, and what they do on average.

The gradient estimate of a prompt is :math:`\sum_i A_i s_i` with the scores
:math:`s_i = \nabla \log \pi(y_i)`: the advantages hold the 1 / n already. For binary rewards an
estimator that treats the samples alike is two functions of the number c of right answers,
:math:`A_+(c)` for right and :math:`A_-(c)` for wrong ones. With :math:`\nabla p = E[r s]`,

.. math:: E\Bigl[\sum_i A_i s_i\Bigr] = e(p) \, \nabla p, \qquad
          e(p) = n \, E_{c \sim \mathrm{Bin}(n-1, p)}[A_+(c+1) - A_-(c)],

and e is the derivative of :math:`E_{c \sim \mathrm{Bin}(n, p)}[V(c)]` with the payoff
:math:`V(c) = \sum_{j < c} (A_+(j+1) - A_-(j))`. All of it is exact, and vectorised over p and k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators.apply import by_counts, by_ranks
from passgrad.estimators.counts import binomial_law, rates
from passgrad.estimators.rewards import as_rewards, refuse_graded, refuse_standardised
from passgrad.objectives import PassAtK
from passgrad.orders import whole_orders

GivenOrders = int | Sequence[int] | None


class Estimator(ABC):
    """One way to turn rewards into advantages.

    A subclass gives its coefficients; effective weight, payoff, objective and variance follow
    from them. Its bias factor it states itself, apart from the coefficients, so that each can
    refute the other.
    """

    name: ClassVar[str]
    """What :func:`passgrad.estimators.advantages` calls it."""
    takes: ClassVar[Literal["k", "n", "none"]] = "k"
    """Whether the order is free, equal to the number of samples, or no concept of the estimator."""
    spare: ClassVar[int] = 0
    """It needs n >= k + spare samples."""
    fewest: ClassVar[int] = 1
    """It needs so many samples whatever k is."""
    binary_only: ClassVar[bool] = False
    """Not defined for rewards other than 0 and 1."""
    unbiased: ClassVar[bool] = False
    """The bias factor is 1: for its own k, for pass@n (``takes`` "n") or for pass@1 ("none")."""
    centred: ClassVar[bool] = False
    """The advantages of a prompt sum to zero, whatever the rewards."""
    # Cells of the generated table, in TeX where there are formulas.
    plus: ClassVar[str]
    minus: ClassVar[str]
    ascends: ClassVar[str]
    bias: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """``A_+(c)`` and ``A_-(c)`` for c = 0..n: two (K, n + 1) float64 tables.

        ``A_+(0)`` and ``A_-(n)`` belong to no sample and are 0. The arguments are not checked.
        """

    def bias_factor(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        """E[estimate] / (w_k(p) grad p), in the shape of p; (K, ...) for K orders.

        1 for an unbiased estimator; nan where w_k(p) is 0 for another one.
        """
        orders, single = self.orders(n, k)
        if not self.unbiased:
            raise NotImplementedError
        if self.takes == "none":  # unbiased for pass@1, whatever k it is held against
            return self._over_target(torch.ones_like(rates(p)), p, orders, single)
        ones = torch.ones(len(orders), *rates(p).shape, dtype=torch.float64)
        return ones[0] if single else ones

    def effective_weight(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        """e(p), what the estimator multiplies grad p by: the shape of p; (K, ...) for K orders."""
        orders, single = self.orders(n, k)
        steps = n * self.payoff_steps(n, orders)
        weight = torch.einsum("kc,...c->k...", steps, binomial_law(rates(p), n - 1))
        return weight[0] if single else weight

    def payoff(self, n: int, k: GivenOrders = None) -> Tensor:
        """V(c) for c = 0..n, whose expectation the estimator ascends: (n + 1,) or (K, n + 1)."""
        orders, single = self.orders(n, k)
        steps = self.payoff_steps(n, orders)
        values = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(dim=1)], dim=1)
        return values[0] if single else values

    def objective(self, p: Any, n: int, k: GivenOrders = None) -> Tensor:
        """F(p) = E[V(c)], the objective of one prompt that is really ascended; 0 at p = 0."""
        values = torch.einsum(
            "kc,...c->k...", self.payoff(n, k).reshape(-1, n + 1), binomial_law(rates(p), n)
        )
        return values[0] if self.orders(n, k)[1] else values

    def variance(
        self,
        p: Any,
        n: int,
        k: GivenOrders = None,
        *,
        mean_square: Any = 1.0,
        noise_right: Any = 0.0,
        noise_wrong: Any = 0.0,
    ) -> Tensor:
        r"""The trace of the covariance of the gradient estimate, for p in (0, 1).

        With mu_1 the mean score of right answers, ``mean_square`` = :math:`\|\mu_1\|^2` and the
        traces ``noise_right``, ``noise_wrong`` of the covariances of the scores within the right
        and within the wrong answers, c ~ Bin(n, p):

        .. math:: \mathrm{Var}_c\bigl[c A_+ - \tfrac{p}{1-p} (n - c) A_-\bigr] \|\mu_1\|^2
                  + E[c A_+^2] \, \mathrm{tr} S_1 + E[(n - c) A_-^2] \, \mathrm{tr} S_0.

        The four of them broadcast; K orders give a leading axis. Raises UserError for p of 0 or 1.
        """
        orders, single = self.orders(n, k)
        p = rates(p)
        if not ((p > 0) & (p < 1)).all():
            raise UserError("a variance needs success rates strictly between 0 and 1")
        odds = (p / (1 - p))[..., None]
        plus, minus = (table.reshape(-1, *[1] * p.ndim, n + 1) for table in self.tables(n, orders))
        c = torch.arange(n + 1, dtype=torch.float64)
        law = binomial_law(p, n)
        along = c * plus - odds * (n - c) * minus
        spread = (along - (law * along).sum(-1, keepdim=True)).square()
        parts = zip(
            (spread, c * plus.square(), (n - c) * minus.square()),
            (mean_square, noise_right, noise_wrong),
            strict=True,
        )
        total = sum(
            (law * values).sum(-1) * torch.as_tensor(scale, dtype=torch.float64)
            for values, scale in parts
        )
        assert isinstance(total, Tensor)
        return total[0] if single else total

    def relative_deviation(self, p: Any, n: int, k: GivenOrders = None, **scores: Any) -> Tensor:
        """The standard deviation over the length of the mean of the estimate, for p in (0, 1).

        ``scores`` are those of :meth:`variance`. The length is e(p) p ||mu_1||.
        """
        size = torch.as_tensor(scores.get("mean_square", 1.0), dtype=torch.float64).sqrt()
        mean = self.effective_weight(p, n, k).abs() * rates(p) * size
        return self.variance(p, n, k, **scores).sqrt() / mean

    def advantages(
        self, rewards: Any, k: GivenOrders = None, *, out: Tensor | None = None
    ) -> Tensor:
        """(P, n) rewards -> (P, n) advantages, or (K, P, n) for a sequence of K orders.

        ``out`` takes the result, in its shape and the dtype of the rewards. Raises UserError for
        rewards or orders that the estimator cannot use.
        """
        tensor, binary = as_rewards(rewards)
        orders, single = self.orders(tensor.shape[1], k, strict=True)
        if binary:
            made = by_counts(tensor, *self.tables(tensor.shape[1], orders), out=out)
        elif self.binary_only:
            refuse_graded(tensor, self.name)
        else:
            refuse_standardised(tensor, k)
            made = self._graded(tensor, orders, out)
        return made[0] if single and out is None else made if out is None else out

    def _graded(self, rewards: Tensor, ks: Sequence[int], out: Tensor | None) -> Tensor:
        """(K, P, n) advantages of rewards that are not binary.

        This default is right for estimators of max@k that are linear in the rewards as long as
        their order stays: the binary coefficients, applied level by level.
        """
        return by_ranks(rewards, *self.tables(rewards.shape[1], ks), out=out)

    def tables(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The coefficients, with zeros where there is no sample of the kind."""
        plus, minus = self.coefficients(n, ks)
        plus[:, 0], minus[:, n] = 0.0, 0.0
        return plus, minus

    def payoff_steps(self, n: int, ks: Sequence[int]) -> Tensor:
        """``A_+(c + 1) - A_-(c)`` for c = 0..n - 1: (K, n)."""
        plus, minus = self.tables(n, ks)
        return plus[:, 1:] - minus[:, :-1]

    def orders(
        self, n: int, k: GivenOrders, *, strict: bool = False
    ) -> tuple[tuple[int, ...], bool]:
        """The orders as a tuple, and whether a single one was asked for.

        Without an order: n where it is fixed to n, 1 for an estimator without one. ``strict``
        also refuses an order of which such an estimator would take no notice. Raises UserError.
        """
        if not isinstance(n, Integral) or n < self.fewest:
            raise UserError(f"{self.name} needs at least {self.fewest} samples a prompt, got {n}")
        if k is None:
            if self.takes == "k":
                raise UserError(f"{self.name} needs k, the order of pass@k to ascend: k=4, say")
            return (n if self.takes == "n" else 1,), True
        single = isinstance(k, Integral) or not hasattr(k, "__iter__")
        orders = whole_orders(k, "k")
        for order in orders:
            self._check_order(n, order, strict)
        return orders, single

    def _check_order(self, n: int, k: int, strict: bool) -> None:
        if self.takes == "none":
            if strict and k != 1:
                raise UserError(
                    f"{self.name} does not depend on k, it ascends something else than pass@{k}: "
                    "leave k out, or take 'pkpo-loo1'"
                )
        elif self.takes == "n":
            if k != n:
                raise UserError(
                    f"{self.name} estimates pass@n from n samples, got n = {n} and k = {k}: "
                    "take 'pkpo-loo1', which uses n > k"
                )
        elif k > n:
            raise UserError(
                f"k = {k} exceeds the {n} samples of a prompt, and no unbiased estimator of its "
                f"gradient exists: draw at least {k + self.spare} samples, or lower k"
            )
        elif n < k + self.spare:
            raise UserError(
                f"{self.name} is centred and needs n >= k + {self.spare} = {k + self.spare} "
                f"samples a prompt, got {n}: draw more, or take 'pkpo-loo1', which does with n = k"
            )

    def _over_target(self, weight: Tensor, p: Any, orders: Sequence[int], single: bool) -> Tensor:
        """The weight, (...) or (K, ...), over w_k(p)."""
        targets = torch.stack([PassAtK(k).weight(rates(p)) for k in orders])
        return (weight / targets)[0] if single else weight / targets
