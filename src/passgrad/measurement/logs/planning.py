r"""How many answers a window it takes to decide the sign of the step against pass@k.

The variance of a prompt's estimate is that of its true value over prompts, B, and that of its
answers, A. Two estimates from disjoint halves of the answers share the first alone: their
covariance is B, and A is the rest. With m times the answers the squared error is about
:math:`(B + A / m) / P`: beyond some m more answers help no more, and more prompts must.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from passgrad.errors import UserError
from passgrad.measurement.logs.change import HALVINGS, LEAST_PROMPTS, Pair, first_order, halves
from passgrad.measurement.logs.run import LoggedRun, logs, stored_visits
from passgrad.measurement.logs.visits import Window
from passgrad.orders import Orders
from passgrad.stats.binomial import check_level

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LogPlan:
    """What it takes at each order: (K,)."""

    ks: Orders
    effect: Array
    """The size that is to be seen, as a change of J_k to first order."""
    error: Array
    """The standard error of the log."""
    answers: Array
    """Answers a prompt and window that show it; infinite where no number of them does."""
    prompts: Array
    """Prompts that show it with the answers of the log."""
    answers_now: float
    prompts_now: int
    power: float

    def to_frame(self) -> pd.DataFrame:
        """One row an order."""
        return pd.DataFrame(
            {
                "k": list(self.ks),
                "effect": self.effect,
                "standard_error": self.error,
                "answers_a_window": self.answers,
                "or_prompts": self.prompts,
            }
        )

    def __str__(self) -> str:
        def one_order(place: int) -> str:
            answers, prompts = self.answers[place], self.prompts[place]
            if not math.isfinite(prompts):
                return f"k = {self.ks[place]}: no effect was found to plan for"
            if not math.isfinite(answers):
                return f"k = {self.ks[place]}: {prompts:.0f} prompts; more answers do not suffice"
            return f"k = {self.ks[place]}: {answers:.0f} answers, or {prompts:.0f} prompts"

        lines = "; ".join(map(one_order, range(len(self.ks))))
        return (
            f"To see the effect with a chance of {self.power:.0%} it takes, a prompt and window "
            f"(now {self.answers_now:.0f} answers, {self.prompts_now} prompts): {lines}."
        )


def plan_log(
    result: LoggedRun,
    *,
    ks: Orders | None = None,
    effect: float | None = None,
    power: float = 0.9,
    level: float = 0.95,
    seed: int = 0,
) -> LogPlan:
    """Plan from the first and the last window of a log.

    :param effect: The change of J_k to first order that is to be seen, such as .01; what the log
        found by default, which may be noise.
    :raises UserError: For an order that the log was not read at or whose half of the answers is
        below it, an effect that is not positive, and a power outside (0, 1).
    """
    from scipy.stats import norm

    check_level(level)
    if not 0 < power < 1:
        raise UserError(f"power is {power!r}; give a chance between 0 and 1")
    if effect is not None and not effect > 0:
        raise UserError(f"effect is {effect!r}; give a positive change such as .01")
    whole, visits = result.whole, result.visits
    n, c = visits.counts(whole.before)
    n_after, c_after = visits.counts(whole.after)
    orders = ks or whole.ks
    shared = (n >= 2 * max(orders)) & (n_after >= 2)
    if shared.sum() < LEAST_PROMPTS:
        raise UserError(
            f"{int(shared.sum())} prompts have {2 * max(orders)} answers in {whole.before}: a plan "
            f"for k = {max(orders)} needs twice as many answers as k; name smaller orders by ks "
            "(--ks)"
        )
    counts = [column[shared] for column in (n, c, n_after, c_after)]
    pair = Pair(whole.before, whole.after, np.flatnonzero(shared), *counts)
    between, total = _variances(pair, orders, seed)
    size = pair.num_prompts
    product = first_order(pair, orders).mean(axis=1)
    wanted = np.abs(product) if effect is None else np.full(len(orders), effect)
    needed = (wanted / (norm.ppf((1 + level) / 2) + norm.ppf(power))) ** 2
    room = needed * size - between
    answers_now = float(np.median(np.minimum(pair.samples_before, pair.samples_after)))
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(room > 0, (total - between) / room, np.inf)
        prompts = np.where(needed > 0, np.ceil(total / needed), np.inf)
    answers = np.maximum(np.ceil(times * answers_now), orders.array)
    return LogPlan(
        orders, wanted, np.sqrt(total / size), answers, prompts, answers_now, size, power
    )  # fmt: skip


def plan_from_log(
    folder: Path,
    *,
    ks: Orders | None = None,
    effect: float | None = None,
    power: float = 0.9,
    level: float = 0.95,
) -> LogPlan:
    """:func:`plan_log` of a folder that ``passgrad logs`` left.

    :raises UserError: As that, and for a folder without a reading.
    """
    record = folder / "logs.json"
    if not record.is_file():
        raise UserError(f"{folder} holds no finished passgrad logs")
    content = json.loads(record.read_text(encoding="utf-8"))
    windows = [Window(*steps) for steps in content["windows"]]
    result = logs(
        stored_visits(folder / "counts.parquet"), ks=content["ks"], windows=windows, level=level
    )
    return plan_log(result, ks=ks, effect=effect, power=power, level=level)


def _variances(pair: Pair, ks: Orders, seed: int) -> tuple[Array, Array]:
    """The variance over prompts of the true value, and that of the estimate: (K,) each."""
    rng = np.random.default_rng(seed)
    between = np.zeros(len(ks))
    for _ in range(HALVINGS):
        first, second = halves(pair, rng)
        a, b = (
            values - values.mean(axis=1, keepdims=True)
            for values in (first_order(first, ks), first_order(second, ks))
        )
        between += (a * b).sum(axis=1)
    between = np.maximum(between / (HALVINGS * (pair.num_prompts - 1)), 0.0)
    return between, first_order(pair, ks).var(axis=1, ddof=1)
