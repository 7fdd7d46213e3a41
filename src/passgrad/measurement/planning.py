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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from passgrad.errors import UserError
from passgrad.stats.bands import Array
from passgrad.stats.binomial import check_level
from passgrad.stats.intervals import Prompts, check_prompts

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def possible(self) -> Plan:
        """The rows that have a number: those with a conflict to be seen, and enough to see it."""
        rows = tuple(row for row in self.rows if math.isfinite(row["tokens"]))
        return replace(self, rows=rows)

    def __str__(self) -> str:
        sentences = [_sentence(row, self) for row in self.rows if row["effect"] < 0]
        without = [row["k"] for row in self.rows if row["effect"] >= 0]
        if without:
            sentences.append(
                f"At k = {', '.join(map(str, without))} the product is not negative: there is no "
                "conflict of that size to be seen. Say by --effect (effect in Python) which one "
                "would matter to you, such as 0.1 for a tenth of ||grad J_1||^2."
            )
        return " ".join(sentences) + f" {self.source}"


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
    infinite.

    :raises UserError: For probabilities outside (0, 1), and samples that are too few for a k.
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
    possible = math.isfinite(m) and math.isfinite(n)
    prompts = options["prompts"]
    size = (int(m), int(n)) if possible else (4, _least(model, model.ks[row], prompts))
    effect = model.at(_answers(size[1], prompts)).effect[row]
    error = standard_errors(model, *size, prompts)[0][row] if possible else math.nan
    return {
        "k": model.ks[row],
        "num_prompts": m,
        "num_samples": n,
        "effect": float(effect),
        "standard_error": float(error),
        "power": float(power(model, *size, **options)[row]) if possible else math.nan,
        "tokens": m * (fixed + n * each),
    }


def _sentence(row: dict[str, Any], planned: Plan) -> str:
    what = f"At k = {row['k']}"
    if not math.isfinite(row["tokens"]):
        return f"{what} no number of samples is enough for a power of {planned.power:.0%}."
    return (
        f"{what}, {row['num_prompts']:,.0f} prompts with {row['num_samples']:,.0f} samples each "
        f"show the conflict with probability {row['power']:.0%} ({planned.level:.0%} interval)."
    )


def _parts(model: Model, n: int, prompts: Prompts) -> tuple[Array, Array]:
    """The variance is first / M + second / M^2."""
    components = model.at(_answers(n, prompts))
    if prompts == "fixed":
        return components.within / 2, components.second_within / 2
    return components.between + components.within, 2 * components.second


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
