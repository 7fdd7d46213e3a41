"""Parts of the variance of a measurement from assumptions, to plan with where nothing was measured
yet (:mod:`passgrad.measurement.planning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.estimators.counts import binomial_law
from passgrad.measurement.planning import Components, Model
from passgrad.objectives import PassAtK
from passgrad.stats.bands import Array

if TYPE_CHECKING:
    from passgrad.worlds.bandit import Bandit


@dataclass(frozen=True, eq=False)
class Advantages:
    """What the advantages of two orders do together on one prompt, as functions of p: arrays
    (K, K, T). Scores enter as in :meth:`passgrad.estimators.Estimator.variance`.
    """

    along: Tensor
    """Of the product of the mean scores of right answers."""
    right: Tensor
    """Of the covariance of scores within the right answers."""
    wrong: Tensor
    """Of that within the wrong ones."""


def advantage_moments(estimator: Estimator, p: Tensor, n: int, ks: Sequence[int]) -> Advantages:
    """For success rates (T,) and orders ``ks``."""
    p = p.double().clamp(0, 1 - 1e-9)
    plus, minus = estimator.tables(n, tuple(ks))
    c = torch.arange(n + 1, dtype=torch.float64)
    law = binomial_law(p, n)
    odds = (p / (1 - p))[:, None]
    along = (c * plus)[:, None] - odds * ((n - c) * minus)[:, None]
    spread = along - (law * along).sum(-1, keepdim=True)
    return Advantages(
        torch.einsum("atc,btc,tc->abt", spread, spread, law),
        torch.einsum("ac,bc,c,tc->abt", plus, plus, c, law),
        torch.einsum("ac,bc,c,tc->abt", minus, minus, n - c, law),
    )


def bandit_model(
    world: Bandit, theta: Any, ks: Sequence[int], *, estimator: str | Estimator = "pkpo-loo1"
) -> Model:
    """The exact parts in a bandit, whose scores are known: to check the formulas by simulation.

    For "new" prompts they are drawn from its masses; "fixed" ones need equal masses.
    """
    chosen = get_estimator(estimator)
    orders = (1, *ks)
    p, jacobian = world.success_and_jacobian(theta)
    mean_right = jacobian / p[:, None]
    masses = world.masses
    means = torch.stack([PassAtK(k).weight(p)[:, None] * jacobian for k in orders])
    g = torch.einsum("t,ktd->kd", masses, means)
    between = torch.einsum("t,atd,bte->abde", masses, means, means)
    between -= torch.einsum("ad,be->abde", g, g)

    @lru_cache(maxsize=1024)
    def at(n: int) -> Components:
        moments = advantage_moments(chosen, p, n, orders)
        within = torch.einsum("t,abt,td,te->abde", masses, moments.along, mean_right, mean_right)
        total = between + within
        return Components(
            (g[1:] @ g[0]).numpy(),
            _psi(between, g).numpy(),
            _psi(within, g).numpy(),
            _tau(total).numpy(),
            _tau(within).numpy(),
        )

    return Model(tuple(ks), at, "The parts of the variance are exact.", chosen.spare)


def _psi(sigma: Tensor, g: Tensor) -> Tensor:
    """The variance of <u(1), g_k> + <u(k), g_1> for covariances (1 + K, 1 + K, d, d): (K,)."""
    first = torch.einsum("kd,de,ke->k", g[1:], sigma[0, 0], g[1:])
    other = torch.einsum("d,kkde,e->k", g[0], sigma[1:, 1:], g[0])
    cross = torch.einsum("kd,kde,e->k", g[1:], sigma[0, 1:], g[0])
    return first + other + 2 * cross


def _tau(sigma: Tensor) -> Tensor:
    """tr(S_11 S_kk) + tr(S_1k S_1k), (K,)."""
    both = torch.einsum("de,kked->k", sigma[0, 0], sigma[1:, 1:])
    return both + torch.einsum("kde,ked->k", sigma[0, 1:], sigma[0, 1:])


def assumed_model(
    rates: Any,
    masses: Any,
    ks: Sequence[int],
    *,
    cosine: float | Sequence[float],
    coherence: float = 0.1,
    score_noise: float = 1.0,
    dimension: float = 100.0,
    estimator: str | Estimator = "pkpo-loo1",
) -> Model:
    r"""Parts of the variance without a pilot, in units of the squared length of the mean score.

    ``coherence``, ``score_noise`` and ``dimension`` are assumptions: a pilot replaces them, and the
    plan should be read as a range over them.

    :param rates, masses: The law of the success rate, as points and masses: two clusters, or
        :func:`beta_rates`.
    :param cosine: Of grad J_k and grad J_1: the size of the conflict that is to be seen; one for
        all k, or one for each.
    :param coherence: The mean cosine of the gradients of two prompts. 0 would leave no gradient at
        all; 1 is one direction for all. The length of g_k is :math:`\sqrt{\text{coherence}} \,
        E[w_k(p) \, |\nabla p|]`.
    :param score_noise: tr Cov(score | right) = tr Cov(score | wrong), over the squared length of
        the mean difference of right and wrong scores. 0 for a single right and wrong answer, as in
        a bandit; a language model has many of each.
    :param dimension: The effective one of the noise, (tr S)^2 / tr S^2: noise spreads evenly over
        so many directions, those of the gradients among them.
    :raises UserError: For values out of range.
    """
    chosen = get_estimator(estimator)
    p = torch.as_tensor(rates, dtype=torch.float64).reshape(-1)
    law = torch.as_tensor(masses, dtype=torch.float64).reshape(-1)
    cosines = torch.as_tensor(cosine, dtype=torch.float64).expand(len(ks))
    if len(p) != len(law) or not ((p >= 0) & (p <= 1)).all() or abs(float(law.sum()) - 1) > 1e-8:
        raise UserError("a law of success rates has rates in [0, 1] and masses that add up to 1")
    if not (0 < coherence <= 1 and score_noise >= 0 and dimension >= 1):
        raise UserError(
            "coherence must lie in (0, 1], score_noise be 0 or more, dimension 1 or more"
        )
    if (cosines.abs() > 1).any():
        raise UserError("a cosine lies between -1 and 1")
    orders = (1, *ks)
    slope = p * (1 - p)
    lengths = torch.stack([PassAtK(k).weight(p) for k in orders]) * slope
    norms = coherence**0.5 * (lengths @ law)
    products = torch.cat([torch.ones(1).double(), cosines])[:, None] * norms[:, None] * norms[0]
    inner = products[1:, 0]
    squares = torch.einsum("at,bt,t->ab", lengths, lengths, law)
    mean_products = torch.outer(norms, norms) * torch.cat([torch.ones(1).double(), cosines])
    between = squares - torch.where(torch.eye(len(orders)) > 0, norms.square(), mean_products)

    @lru_cache(maxsize=1024)
    def at(n: int) -> Components:
        moments = advantage_moments(chosen, p, n, orders)
        noise = moments.along * (1 - p).square() + score_noise * (moments.right + moments.wrong)
        within = noise @ law

        def psi(trace: Tensor) -> Tensor:
            square = norms[1:].square() * trace[0, 0] + norms[0] ** 2 * trace.diagonal()[1:]
            return ((square + 2 * inner * trace[0, 1:]) / dimension).clamp(min=0)

        def tau(trace: Tensor) -> Tensor:
            return (trace[0, 0] * trace.diagonal()[1:] + trace[0, 1:].square()) / dimension

        return Components(
            inner.numpy(),
            psi(between).numpy(),
            psi(within).numpy(),
            tau(between + within).numpy(),
            tau(within).numpy(),
        )

    source = (
        f"Assumed: coherence {coherence:g}, score noise {score_noise:g}, {dimension:g} effective "
        "dimensions."
    )
    return Model(tuple(ks), at, source, chosen.spare)


def beta_rates(a: float, b: float, points: int = 64) -> tuple[Array, Array]:
    """Points and masses of Beta(a, b), by Gauss and Jacobi: exact for polynomials of degree
    2 ``points`` - 1.
    """
    from scipy.special import roots_jacobi

    if not (a > 0 and b > 0):
        raise UserError(f"a beta law has two positive parameters, got {a:g} and {b:g}")
    x, w = roots_jacobi(points, b - 1, a - 1)
    return (1 + x) / 2, w / w.sum()
