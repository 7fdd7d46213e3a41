"""Parts of the variance of a measurement, to plan with (:mod:`passgrad.measurement.planning`): from
assumptions where nothing was measured yet, exact in a bandit, or as a small measurement found them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.estimators.counts import binomial_law
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.planning import Components, Model, Plan, plan
from passgrad.objectives import PassAtK
from passgrad.stats.bands import Array
from passgrad.stats.intervals import Prompts

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

    The last three numbers are assumptions: a pilot replaces them, and the plan should be read as a
    range over them.

    :param rates, masses: The law of the success rate, as points and masses: two clusters, or
        :func:`beta_rates`.
    :param cosine: Of grad J_k and grad J_1: the size of the conflict that is to be seen; one for
        all k, or one for each.
    :param coherence: The mean cosine of the gradients of two prompts. 0 would leave no gradient at
        all; 1 is one direction for all. The length of g_k is
        :math:`\sqrt{\text{coherence}} \, E[w_k(p) \, |\nabla p|]`.
    :param score_noise: tr Cov(score | right) = tr Cov(score | wrong), over the squared length of
        the mean difference of right and wrong scores. 0 for a single right and wrong answer, as in
        a bandit; a language model has many of each.
    :param dimension: The effective one of the noise, (tr S)^2 / tr S^2: noise spreads evenly over
        so many directions, those of the gradients among them.
    :raises UserError: For values out of range.
    """
    chosen = get_estimator(estimator)
    p, law, cosines = _assumptions(rates, masses, cosine, len(ks))
    if not (0 < coherence <= 1 and score_noise >= 0 and dimension >= 1):
        raise UserError(
            "coherence must lie in (0, 1], score_noise be 0 or more, dimension 1 or more"
        )
    source = (
        f"Assumed: coherence {coherence:g}, score noise {score_noise:g}, {dimension:g} effective "
        "dimensions."
    )
    at = _spread_evenly(p, law, cosines, (1, *ks), coherence, score_noise, dimension, chosen)
    return Model(tuple(ks), at, source, chosen.spare)


def _assumptions(rates: Any, masses: Any, cosine: Any, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rates and masses, (T,) each, and a cosine for each order, (K,)."""
    p = torch.as_tensor(rates, dtype=torch.float64).reshape(-1)
    law = torch.as_tensor(masses, dtype=torch.float64).reshape(-1)
    cosines = torch.as_tensor(cosine, dtype=torch.float64).expand(size)
    if len(p) != len(law) or not ((p >= 0) & (p <= 1)).all() or abs(float(law.sum()) - 1) > 1e-8:
        raise UserError("a law of success rates has rates in [0, 1] and masses that add up to 1")
    if (cosines.abs() > 1).any():
        raise UserError("a cosine lies between -1 and 1")
    return p, law, cosines


def _spread_evenly(
    p: Tensor,
    law: Tensor,
    cosines: Tensor,
    orders: tuple[int, ...],
    coherence: float,
    score_noise: float,
    dimension: float,
    estimator: Estimator,
) -> Callable[[int], Components]:
    """The parts of the variance at n, for noise that is the same in all directions."""
    lengths = torch.stack([PassAtK(k).weight(p) for k in orders]) * (p * (1 - p))
    norms = coherence**0.5 * (lengths @ law)
    along = torch.cat([torch.ones(1).double(), cosines])
    inner = (along * norms * norms[0])[1:]
    squares = torch.einsum("at,bt,t->ab", lengths, lengths, law)
    mean_products = torch.outer(norms, norms) * along
    between = squares - torch.where(torch.eye(len(orders)) > 0, norms.square(), mean_products)

    def psi(trace: Tensor) -> Tensor:
        square = norms[1:].square() * trace[0, 0] + norms[0] ** 2 * trace.diagonal()[1:]
        return ((square + 2 * inner * trace[0, 1:]) / dimension).clamp(min=0)

    def tau(trace: Tensor) -> Tensor:
        return (trace[0, 0] * trace.diagonal()[1:] + trace[0, 1:].square()) / dimension

    @lru_cache(maxsize=1024)
    def at(n: int) -> Components:
        moments = advantage_moments(estimator, p, n, orders)
        noise = moments.along * (1 - p).square() + score_noise * (moments.right + moments.wrong)
        within = noise @ law
        return Components(
            inner.numpy(),
            psi(between).numpy(),
            psi(within).numpy(),
            tau(between + within).numpy(),
            tau(within).numpy(),
        )

    return at


def beta_rates(a: float, b: float, points: int = 64) -> tuple[Array, Array]:
    """Points and masses of Beta(a, b), by Gauss and Jacobi: exact for polynomials of degree
    2 ``points`` - 1.
    """
    from scipy.special import roots_jacobi

    if not (a > 0 and b > 0):
        raise UserError(f"a beta law has two positive parameters, got {a:g} and {b:g}")
    x, w = roots_jacobi(points, b - 1, a - 1)
    return (1 + x) / 2, w / w.sum()


def pilot_model(
    estimate: ConflictEstimate,
    num_samples: int,
    *,
    answer_error: Any = None,
    second_order: Any = None,
    effect: Any = None,
) -> Model:
    r"""Parts of the variance from a pilot of M prompts with ``num_samples`` each.

    :param answer_error: The standard error at each k that comes from the answers alone, (K,). For a
        pilot of "new" prompts without it, nothing is assumed to be gained by more samples, which
        asks for more prompts than needed; fewer samples than in the pilot are then refused. A pilot
        of fixed prompts has nothing else.
    :param second_order: tau at each k, (K,), of
        :func:`passgrad.measurement.kernel.conflict_of_kernel`. Without it the whole measured
        variance is scaled as 1 / M, which is too much for more prompts than half of those of the
        pilot, and too little for fewer.
    :param effect: <g_k, g_1> to be seen, (K,); by default as the pilot found it. A pilot that is
        too small to show a conflict has an effect that is mostly noise: say what matters instead.

    Within a prompt the variance is scaled with n as that of the gradient estimate at each k, under
    the law of success rates of the pilot with scores of equal variance, right and wrong.
    """
    return Pilot(
        ks=tuple(int(k) for k in estimate.ks),
        effect=np.asarray(estimate.inner_product if effect is None else effect, dtype=np.float64),
        error=estimate.standard_error,
        degrees=estimate.degrees,
        success=estimate.success,
        num_samples=num_samples,
        prompts=estimate.prompts,
        estimator=estimate.estimator,
        answer_error=answer_error,
        second_order=second_order,
    ).model()


@dataclass(frozen=True, eq=False)
class Pilot:
    """What a small measurement found at the orders ``ks``; arrays (K,), but ``success`` (M,)."""

    ks: tuple[int, ...]
    effect: Array
    error: Array
    degrees: Array
    success: Array
    num_samples: int
    prompts: Prompts
    estimator: str
    answer_error: Array | None = None
    second_order: Array | None = None

    def model(self) -> Model:
        """The parts of the variance at any n."""
        chosen, num_prompts = get_estimator(self.estimator), len(self.success)
        scales = self.answer_error is not None or self.prompts == "fixed"
        pilot_n = self.num_samples // 2 if self.prompts == "fixed" else self.num_samples
        within, between, tau = self._parts()
        at_pilot = self._noise(pilot_n)

        @lru_cache(maxsize=1024)
        def at(n: int) -> Components:
            ratio = self._noise(n) / at_pilot if scales and n != pilot_n else np.ones(len(self.ks))
            return Components(self.effect, between, within * ratio, tau, tau)

        source = f"From a pilot of {num_prompts} prompts with {self.num_samples} samples each."
        if not scales:
            source += " It does not say what more samples a prompt would gain; nothing is assumed."
        measured = np.isfinite(self.degrees).any()
        degrees = float(np.nanmedian(self.degrees)) if measured else float(num_prompts)
        kurtosis = max(1.0, 3 * num_prompts / max(degrees, 1.0))
        return Model(self.ks, at, source, chosen.spare, kurtosis, 2 if scales else pilot_n)

    def _parts(self) -> tuple[Array, Array, Array]:
        """Of the variance within prompts and between them at the pilot's n, and tau."""
        fixed, num_prompts = self.prompts == "fixed", len(self.success)
        zero = np.zeros(len(self.ks))
        tau = zero if self.second_order is None else np.asarray(self.second_order, dtype=float)
        whole = np.asarray(self.error, dtype=float) ** 2 * num_prompts
        # Measured: first / M + 2 second / M^2, the second as in `planning`.
        whole = np.maximum(whole - (1.0 if fixed else 4.0) * tau / num_prompts, 0.0)
        if fixed:
            return 2 * whole, zero, tau
        if self.answer_error is None:
            return zero, whole, tau
        answers = np.asarray(self.answer_error, dtype=float) ** 2 * num_prompts
        within = np.minimum(answers, whole)
        return within, whole - within, tau

    def _noise(self, n: int) -> Array:
        """The size of the noise of one gradient estimate at n, (K,), up to a factor."""
        # A rate of 0 or 1 in the sample is none of the prompt; Jeffreys' posterior mean.
        right = np.asarray(self.success) * self.num_samples
        rates = torch.as_tensor((right + 0.5) / (self.num_samples + 1))
        moments = advantage_moments(get_estimator(self.estimator), rates, n, self.ks)
        noise = moments.along * (1 - rates).square() + moments.right + moments.wrong
        return np.asarray(torch.einsum("kkt->kt", noise).mean(-1))


def pilot_from_folder(folder: str | Path, ks: Sequence[int] | None = None) -> Model:
    """:func:`pilot_model` of what ``passgrad measure`` has written.

    ``curve.parquet`` has k, inner_product, standard_error, degrees, and where they are there
    answer_error and second_order; ``prompts.parquet`` has success; ``measurement.json`` the
    settings.

    :raises UserError: Where there is no finished measurement, or not at these k.
    """
    import pandas as pd

    folder = Path(folder)
    path = folder / "measurement.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished measurement: run passgrad measure first")
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    curve = pd.read_parquet(folder / "curve.parquet")
    if ks is not None:
        missing = sorted(set(ks) - set(curve["k"].astype(int)))
        if missing:
            have = ", ".join(f"{k:g}" for k in curve["k"])
            raise UserError(f"the pilot was not measured at k = {missing[0]}: it has {have}")
        curve = curve[curve["k"].astype(int).isin(ks)]
    success = pd.read_parquet(folder / "prompts.parquet")["success"].to_numpy()
    columns = {name: curve[name].to_numpy() for name in curve.columns}
    return Pilot(
        ks=tuple(int(k) for k in columns["k"]),
        effect=columns["inner_product"],
        error=columns["standard_error"],
        degrees=columns["degrees"],
        success=success,
        num_samples=int(settings["samples"]),
        prompts=settings["reading"],
        estimator=settings["estimator"],
        answer_error=columns.get("answer_error"),
        second_order=columns.get("second_order"),
    ).model()


def _mean_length(folder: Path) -> float:
    """Tokens of a completion of the pilot; 1 where it has none."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = folder / "rollouts.parquet"
    if not path.is_file():
        return 1.0
    ids = pq.read_table(path, columns=["completion_ids"])["completion_ids"]
    return float(pc.mean(pc.list_value_length(ids)).as_py() or 1.0)


def plan_from_pilot(
    pilot: str | Path,
    *,
    ks: Sequence[int] | None = None,
    power: float = 0.9,
    num_prompts: int | None = None,
    num_samples: int | None = None,
    tokens_per_completion: float | None = None,
    effect: float | None = None,
    level: float = 0.95,
) -> Plan:
    """A plan from the folder of a measurement, in its reading of prompts: ``passgrad plan``.

    :param tokens_per_completion: For the cost; by default the mean over those of the pilot.
    :param effect: The size of conflict to be seen as a share of ||grad J_1||^2, positive; by
        default what the pilot found.
    """
    model = pilot_from_folder(pilot, ks)
    if ks is None and any(k > 1 for k in model.ks):
        # At k = 1 the product is a squared norm, and no conflict.
        model = pilot_from_folder(pilot, [k for k in model.ks if k > 1])
    if tokens_per_completion is None:
        tokens_per_completion = _mean_length(Path(pilot))
    text = (Path(pilot) / "measurement.json").read_text(encoding="utf-8")
    prompts: Prompts = json.loads(text)["settings"]["reading"]
    if effect is not None:
        squared_norm = pilot_from_folder(pilot, [1]).at(2).effect[0]
        if not effect > 0:
            raise UserError(f"an effect is a positive share of a squared norm, got {effect:g}")
        if not squared_norm > 0:
            raise UserError(
                f"the pilot puts ||grad J_1||^2 at {squared_norm:.3g}, which is noise and no scale "
                "for an effect: measure with several times as many prompts first"
            )
        as_found = model.at
        asked = np.full(len(model.ks), -effect * squared_norm)
        model = replace(model, at=lambda n: replace(as_found(n), effect=asked))
    return plan(
        model, power=power, num_prompts=num_prompts, num_samples=num_samples,
        tokens_per_completion=tokens_per_completion, prompts=prompts, level=level,
    )  # fmt: skip
