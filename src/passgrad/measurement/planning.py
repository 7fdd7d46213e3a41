r"""How many prompts and samples it takes to see a conflict.

The estimate of :math:`\langle g_k, g_1 \rangle` from M prompts with n samples each
(:func:`passgrad.measurement.estimate_conflict`, halves of equal size) has the variance

.. math:: \mathrm{Var}(C_k) = \frac{P_k + A_k(n)}{M} + \frac{2 \tau_k(n)}{M^2} \quad\text{(new)},
          \qquad \frac{A_k(n/2)}{2 M} + \frac{\tau'_k(n/2)}{2 M^2} \quad\text{(fixed)} .

With u(j) for the gradient estimate of one prompt, :math:`\Sigma_{jk} = \mathrm{Cov}(u(j), u(k))`
over prompts and answers, and :math:`\psi = \langle u(1), g_k \rangle + \langle u(k), g_1 \rangle`:
:math:`P_k` is the variance over prompts of the mean of psi given the prompt, :math:`A_k(n)` the
mean variance of psi within a prompt, and

.. math:: \tau_k = \mathrm{tr}(\Sigma_{11} \Sigma_{kk}) + \mathrm{tr}(\Sigma_{1k}^2)

is what the noises of the two gradients have with each other (:math:`\tau'` with the covariance
within prompts alone). The last term is of second order, and it is what counts where the gradients
are smaller than their noise. The formulas are exact for the two kinds of halves; masses are equal.

The standard error that is *measured* contains the second term twice (the direction is a noisy one,
as in a jackknife). A test at level alpha calls it conflict where the upper end of the interval lies
below zero, which happens with about the probability

.. math:: \Phi\left( \frac{-\langle g_k, g_1 \rangle - t \, s}{\sqrt{\mathrm{Var}(C_k)}} \right),

s the root of the mean measured variance and t the quantile of the interval's t law.
"""

from __future__ import annotations

import math
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
from passgrad.measurement.bands import Array
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.objectives import PassAtK
from passgrad.stats.binomial import check_level
from passgrad.stats.intervals import Prompts, check_prompts

if TYPE_CHECKING:
    from pandas import DataFrame

    from passgrad.worlds.bandit import Bandit

_MOST = 10**7  # prompts, and samples up to the square root of it


@dataclass(frozen=True, eq=False)
class Components:
    """The parts of the variance at n samples a prompt; arrays (K,).

    ``effect``: <g_k, g_1>. ``between``: P_k. ``within``: A_k(n). ``second``: tau_k(n), and
    ``second_within``: tau'_k(n).
    """

    effect: Array
    between: Array
    within: Array
    second: Array
    second_within: Array


@dataclass(frozen=True, eq=False)
class Model:
    """Parts of the variance as a function of n, at the orders ``ks``; ``source`` in words."""

    ks: tuple[int, ...]
    at: Callable[[int], Components]
    source: str
    spare: int = 0
    """Samples that a half needs beyond k."""
    kurtosis: float = 3.0
    """Of psi over prompts: its parts of the variance carry 3 M / kurtosis degrees of freedom."""
    least_samples: int = 2


@dataclass(frozen=True, eq=False)
class Plan:
    """A table: what M prompts with n samples each would show at each k."""

    rows: tuple[dict[str, Any], ...]
    prompts: Prompts
    level: float
    power: float
    source: str

    def to_frame(self) -> DataFrame:
        """k, num_prompts, num_samples, effect, standard_error, power, and the cost in tokens."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def __str__(self) -> str:
        return " ".join(_sentence(row, self) for row in self.rows) + f" {self.source}"


def standard_errors(
    model: Model, num_prompts: int, num_samples: int, prompts: Prompts = "new"
) -> tuple[Array, Array]:
    """The standard deviation of the estimate, and the root of the mean of what is measured for its
    square; both (K,).
    """
    first, second = _parts(model, num_samples, prompts)
    return (
        np.sqrt(first / num_prompts + second / num_prompts**2),
        np.sqrt(first / num_prompts + 2 * second / num_prompts**2),
    )


def power(
    model: Model,
    num_prompts: int,
    num_samples: int,
    *,
    prompts: Prompts = "new",
    level: float = 0.95,
) -> Array:
    """The probability, (K,), that the interval at k lies below zero altogether."""
    from scipy.stats import norm, t

    true, said = standard_errors(model, num_prompts, num_samples, prompts)
    degrees = max(1.0, min(3 * num_prompts / model.kurtosis, max(num_prompts - 1, 1)))
    critical = t.ppf((1 + level) / 2, degrees)
    effect = model.at(_answers(num_samples, prompts)).effect
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(norm.cdf((-effect - critical * said) / true))


def needed_prompts(model: Model, k: int, num_samples: int, target: float, **options: Any) -> float:
    """The smallest M with that power at k, infinite where none has it (no conflict, say)."""
    row = model.ks.index(k)
    return _smallest(lambda size: power(model, size, num_samples, **options)[row], target, 4, _MOST)


def needed_samples(model: Model, k: int, num_prompts: int, target: float, **options: Any) -> float:
    """The smallest n with that power at k; infinite where prompts, not samples, are too few."""
    row, least = model.ks.index(k), _least(model, k, options.get("prompts", "new"))
    return _smallest(
        lambda size: power(model, num_prompts, size, **options)[row], target, least, 2**14
    )


def plan(
    model: Model,
    *,
    power: float = 0.9,
    num_prompts: int | None = None,
    num_samples: int | None = None,
    tokens_per_completion: float = 1.0,
    tokens_per_prompt: float = 0.0,
    prompts: Prompts = "new",
    level: float = 0.95,
) -> Plan:
    """What is needed for a power at each k of the model.

    With ``num_samples``: the prompts for it. With ``num_prompts``: the samples for it. With both:
    the power of them. With neither: the cheapest (M, n), where a prompt costs
    ``tokens_per_prompt`` and each completion ``tokens_per_completion``. Numbers that cannot be are
    infinite. Raises UserError for probabilities outside (0, 1) and counts below 1.
    """
    check_level(level)
    check_prompts(prompts)
    if not 0 < power < 1:
        raise UserError(f"power must lie between 0 and 1, got {power:g}")
    options: dict[str, Any] = {"prompts": prompts, "level": level}
    rows = []
    for row, k in enumerate(model.ks):
        least = _least(model, k, prompts)
        if num_samples is not None and num_samples < least:
            raise UserError(
                f"k = {k} needs at least {least} samples a prompt here, got {num_samples}"
            )
        if num_prompts is not None and num_samples is not None:
            m, n = float(num_prompts), float(num_samples)
        elif num_samples is not None:
            m, n = needed_prompts(model, k, num_samples, power, **options), float(num_samples)
        elif num_prompts is not None:
            m, n = float(num_prompts), needed_samples(model, k, num_prompts, power, **options)
        else:
            m, n = _cheapest(
                model, k, power, least, tokens_per_prompt, tokens_per_completion, options
            )
        rows.append(_row(model, row, m, n, tokens_per_prompt, tokens_per_completion, options))
    return Plan(tuple(rows), prompts, level, power, model.source)


def _cheapest(
    model: Model, k: int, target: float, least: int, fixed: float, each: float, options: Any
) -> tuple[float, float]:
    """Over sizes of n in steps of a tenth."""
    best = (math.inf, math.inf, float(least))
    sizes = sorted({math.ceil(least * 1.1**step) for step in range(60)})
    for n in (size for size in sizes if size <= 2**12):
        m = needed_prompts(model, k, n, target, **options)
        cost = m * (fixed + n * each)
        best = min(best, (cost, m, float(n)))
        if m == 4 or cost > 2 * best[0]:  # from here on samples only cost more
            break
    return best[1:]


def _row(
    model: Model, row: int, m: float, n: float, fixed: float, each: float, options: Any
) -> dict[str, Any]:
    known = math.isfinite(m) and math.isfinite(n)
    size = (int(m), int(n)) if known else (4, _least(model, model.ks[row], options["prompts"]))
    effect = model.at(_answers(size[1], options["prompts"])).effect[row]
    return {
        "k": model.ks[row],
        "num_prompts": m,
        "num_samples": n,
        "effect": float(effect),
        "standard_error": (
            float(standard_errors(model, *size, options["prompts"])[0][row]) if known else math.nan
        ),
        "power": float(power(model, *size, **options)[row]) if known else math.nan,
        "tokens": m * (fixed + n * each),
    }


def _sentence(row: dict[str, Any], made: Plan) -> str:
    what = f"At k = {row['k']}"
    if row["effect"] >= 0:
        return f"{what} no conflict is to be seen: the product is not negative."
    if not math.isfinite(row["tokens"]):
        return f"{what} no number of samples is enough for a power of {made.power:.0%}."
    return (
        f"{what}, {row['num_prompts']:,.0f} prompts with {row['num_samples']:,.0f} samples each "
        f"show the conflict with probability {row['power']:.0%} ({made.level:.0%} interval)."
    )


def _parts(model: Model, n: int, prompts: Prompts) -> tuple[Array, Array]:
    """The variance is first / M + second / M^2."""
    found = model.at(_answers(n, prompts))
    if prompts == "fixed":
        return found.within / 2, found.second_within / 2
    return found.between + found.within, 2 * found.second


def _answers(n: int, prompts: Prompts) -> int:
    """Those that one gradient estimate of a prompt is made from."""
    return n // 2 if prompts == "fixed" else n


def _least(model: Model, k: int, prompts: Prompts) -> int:
    need = max(k + model.spare, 2, model.least_samples)
    return 2 * need if prompts == "fixed" else need


def _smallest(reach: Callable[[int], float], target: float, low: int, most: int) -> float:
    """The smallest whole number from ``low`` that reaches the target; reach increases."""
    high = low
    while reach(high) < target:
        if high >= most:
            return math.inf
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        if reach(middle) < target:
            low = middle + 1
        else:
            high = middle
    return float(high)


# Models: where the parts come from.


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

    Parameters
    ----------
    rates, masses
        The law of the success rate, as points and masses: two clusters, or :func:`beta_rates`.
    cosine
        Of grad J_k and grad J_1: the size of the conflict that is to be seen; one for all k, or one
        for each.
    coherence
        The mean cosine of the gradients of two prompts. 0 would leave no gradient at all; 1 is one
        direction for all. The length of g_k is
        :math:`\sqrt{\text{coherence}} \, E[w_k(p) \, |\nabla p|]`.
    score_noise
        tr Cov(score | right) = tr Cov(score | wrong), over the squared length of the mean
        difference of right and wrong scores. 0 for a single right and wrong answer, as in a bandit;
        a language model has many of each.
    dimension
        The effective one of the noise, (tr S)^2 / tr S^2: noise spreads evenly over so many
        directions, those of the gradients among them.

    The last three are assumptions: a pilot replaces them, and the plan should be read as a range
    over them. Raises UserError for values out of range.
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
    return _pilot(
        tuple(int(k) for k in estimate.ks),
        np.asarray(estimate.inner_product if effect is None else effect, dtype=np.float64),
        estimate.standard_error,
        len(estimate.success),
        num_samples,
        estimate.success,
        estimate.prompts,
        estimate.estimator,
        estimate.degrees,
        answer_error,
        second_order,
    )


def _pilot(
    ks: tuple[int, ...],
    effect: Array,
    error: Array,
    num_prompts: int,
    num_samples: int,
    success: Array,
    prompts: Prompts,
    estimator: str,
    degrees: Array,
    answer_error: Any,
    second_order: Any,
) -> Model:
    chosen = get_estimator(estimator)
    known = answer_error is not None or prompts == "fixed"
    tau = np.zeros(len(ks)) if second_order is None else np.asarray(second_order, dtype=float)
    fixed = prompts == "fixed"
    pilot_n = num_samples // 2 if fixed else num_samples
    whole = np.asarray(error, dtype=float) ** 2 * num_prompts
    # Measured: first / M + 2 second / M^2, the second as in `_parts`.
    whole = np.maximum(whole - (1.0 if fixed else 4.0) * tau / num_prompts, 0.0)
    if fixed:
        within, between = 2 * whole, np.zeros(len(ks))
    elif answer_error is not None:
        within = np.minimum(np.asarray(answer_error, dtype=float) ** 2 * num_prompts, whole)
        between = whole - within
    else:
        within, between = np.zeros(len(ks)), whole
    # A rate of 0 or 1 in the sample is none of the prompt; Jeffreys' posterior mean.
    rates = torch.as_tensor((np.asarray(success) * num_samples + 0.5) / (num_samples + 1))

    def size(n: int) -> Array:
        moments = advantage_moments(chosen, rates, n, ks)
        noise = moments.along * (1 - rates).square() + moments.right + moments.wrong
        return np.asarray(torch.einsum("kkt->kt", noise).mean(-1))

    at_pilot = size(pilot_n)

    @lru_cache(maxsize=1024)
    def at(n: int) -> Components:
        ratio = size(n) / at_pilot if known and n != pilot_n else np.ones(len(ks))
        return Components(effect, between, within * ratio, tau, tau)

    source = f"From a pilot of {num_prompts} prompts with {num_samples} samples each."
    if not known:
        source += " It does not say what more samples a prompt would gain; nothing is assumed."
    dof = float(np.nanmedian(degrees)) if np.isfinite(degrees).any() else float(num_prompts)
    return Model(
        ks, at, source, chosen.spare, max(1.0, 3 * num_prompts / max(dof, 1.0)),
        2 if known else pilot_n,
    )  # fmt: skip


def pilot_from_folder(folder: str | Path, ks: Sequence[int] | None = None) -> Model:
    """:func:`pilot_model` of what ``passgrad measure`` has written.

    ``curve.parquet`` has k, inner_product, standard_error, degrees, and where they are there
    answer_error and second_order; ``prompts.parquet`` has success; ``measurement.json`` the
    settings. Raises UserError where there is no finished measurement, or not at these k.
    """
    import json

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
    return _pilot(
        tuple(int(k) for k in columns["k"]), columns["inner_product"], columns["standard_error"],
        len(success), int(settings["num_samples"]), success, settings["prompts"],
        settings["estimator"], columns["degrees"], columns.get("answer_error"),
        columns.get("second_order"),
    )  # fmt: skip


def plan_command(
    pilot: str | Path,
    *,
    ks: Sequence[int] | None = None,
    power: float = 0.9,
    num_prompts: int | None = None,
    num_samples: int | None = None,
    tokens_per_completion: float = 1.0,
    effect: float | None = None,
    level: float = 0.95,
) -> Plan:
    """The body of ``passgrad plan``: a plan from a pilot, in its reading of prompts.

    :param effect: The size of conflict to be seen as a share of ||grad J_1||^2, positive; by
        default what the pilot found.
    """
    import json

    model = pilot_from_folder(pilot, ks)
    text = (Path(pilot) / "measurement.json").read_text(encoding="utf-8")
    prompts: Prompts = json.loads(text)["settings"]["prompts"]
    if effect is not None:
        one = pilot_from_folder(pilot, [1]).at(2).effect[0]
        if not (effect > 0 and one > 0):
            raise UserError(
                f"an effect of {effect:g} of a squared norm of {one:.3g}: both must be positive"
            )
        before = model.at
        size = np.full(len(model.ks), -effect * one)
        model = replace(model, at=lambda n: replace(before(n), effect=size))
    return plan(
        model, power=power, num_prompts=num_prompts, num_samples=num_samples,
        tokens_per_completion=tokens_per_completion, prompts=prompts, level=level,
    )  # fmt: skip
