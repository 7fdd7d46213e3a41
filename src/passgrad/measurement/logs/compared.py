"""Two windows of a log compared: the step against every objective, what it did, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from passgrad.errors import UserError
from passgrad.measurement.logs.change import (
    Estimate,
    Pair,
    first_order,
    mean_with_band,
    pair_of,
    realised,
    within_prompts,
)
from passgrad.measurement.logs.fallen import prompt_table
from passgrad.measurement.logs.visits import IntArray, Visits, Window
from passgrad.orders import Orders
from passgrad.stats.interval import Interval
from passgrad.stats.intervals import Prompts, check_prompts

Array = NDArray[np.float64]

#: the ends of the groups by starting success rate
_RATES = (0.0, 0.25, 0.75, 1.0)
_NAMES = (
    "never solved at first", "solved at most 1 in 4", "1 in 4 to 3 in 4", "more than 3 in 4",
    "always solved at first",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class WindowChange:
    """What changed between two windows; arrays over K orders."""

    before: Window
    after: Window
    ks: Orders
    num_prompts: int
    """Prompts with answers enough in both windows."""
    left_out: int
    """Prompts with answers in one of the windows that are not among them."""
    product: Interval
    """E[w_k(p) (p' - p)] = <grad J_k, theta' - theta> to first order, with a band over the ks."""
    realised: Interval
    """The change of pass@k itself; nan for orders beyond the answers of the second window."""
    curvature: Interval
    """Realised less first order: what curvature takes away."""
    groups: pd.DataFrame
    """One row a group and an order: group, k, num_prompts, part, low, high. The parts of one order
    add up to the product of the prompts that have a group."""
    grouped_by: str
    """"group" or "starting rate"."""
    prompts: pd.DataFrame
    """One row a prompt (:func:`passgrad.measurement.logs.fallen.prompt_table`)."""

    def orders(self, sign: int) -> list[int]:
        """The orders whose product has this sign beyond the band."""
        ends = self.product.band_low if sign > 0 else -np.asarray(self.product.band_high)
        return [k for k, end in zip(self.ks, np.asarray(ends), strict=True) if end > 0]

    def to_frame(self) -> pd.DataFrame:
        """One row an order, with the windows in front."""
        columns = {
            "before": f"{self.before.first}:{self.before.last}",
            "after": f"{self.after.first}:{self.after.last}",
            "k": list(self.ks),
            "num_prompts": self.num_prompts,
        }
        return pd.DataFrame(
            columns
            | self.product.columns("first_order")
            | self.realised.columns("realised", "realised_")
            | self.curvature.columns("curvature", "curvature_")
        )

    def __str__(self) -> str:
        up, down = self.orders(1), self.orders(-1)
        undecided = [k for k in self.ks if k not in up and k not in down]
        span = f"From {self.before} to {self.after}"
        first = f"{100 * float(np.asarray(self.product.value)[0]):+.1f}"
        last = f"{100 * float(np.asarray(self.product.value)[-1]):+.1f}"
        size = f"{first} points at k = {self.ks[0]}, {last} at k = {self.ks[-1]}, to first order"
        if len(up) == len(self.ks):
            return f"{span} the run went up pass@k at every k of {_listed(self.ks)} ({size})."
        if len(down) == len(self.ks):
            return f"{span} the run went down pass@k at every k of {_listed(self.ks)} ({size})."
        parts = [
            f"{words} at k = {_listed(ks)}"
            for words, ks in (
                ("up pass@k", up), ("against pass@k", down)
            )
            if ks
        ]  # fmt: skip
        if not parts:
            return f"{span} the sign of the step against pass@k is open at every k ({size})."
        rest = f"; the sign is open at k = {_listed(undecided)}" if undecided else ""
        return f"{span} the run went {' and '.join(parts)}{rest} ({size})."


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks))


def compare(
    visits: Visits,
    before: Window,
    after: Window,
    ks: Orders,
    *,
    reading: Prompts = "new",
    level: float = 0.95,
    false_discoveries: float = 0.05,
    seed: int = 0,
) -> WindowChange:
    """Compare two windows of a run.

    :param reading: Whether the prompts stand for others like them ("new") or for themselves
        ("fixed"); then an interval takes twice as many answers as the order.
    :param false_discoveries: The share of false ones that is borne among the prompts that are said
        to have risen or fallen.
    :param seed: Of the answers that sort prompts by starting rate.
    :raises UserError: If the sampling law of the two windows differs, and as
        :func:`passgrad.measurement.logs.change.pair_of`.
    """
    check_prompts(reading)
    _check_law(visits, before, after)
    pair = pair_of(visits, before, after, max(ks))
    any_before, any_after = visits.counts(before)[0] > 0, visits.counts(after)[0] > 0
    product, change = first_order(pair, ks), realised(pair, ks)

    def interval(values: Array, of: Estimate) -> Interval:
        influences = within_prompts(pair, ks, of, seed) if reading == "fixed" else None
        return mean_with_band(values, level, influences)

    grouped_by = "group" if any(visits.groups) else "starting rate"
    groups = (
        _by_group(visits, pair, product, ks, level)
        if grouped_by == "group"
        else _by_rate(pair, ks, level, seed)
    )
    return WindowChange(
        before, after, ks, pair.num_prompts,
        int((any_before | any_after).sum()) - pair.num_prompts,
        interval(product, first_order), interval(change, realised),
        interval(change - product, lambda some, orders: realised(some, orders)
                 - first_order(some, orders)),
        groups, grouped_by,
        prompt_table(visits, pair_of(visits, before, after, 1), false_discoveries),
    )  # fmt: skip


def _check_law(visits: Visits, before: Window, after: Window) -> None:
    """Raise a UserError where a setting of the sampling law differs between the windows."""

    def within(values: dict[str, Window], window: Window) -> set[str]:
        return {
            value
            for value, steps in values.items()
            if steps.first <= window.last and window.first <= steps.last
        }

    for name, values in visits.laws.items():
        if name == "model":
            continue
        old, new = within(values, before), within(values, after)
        if old != new:
            raise UserError(
                f"{name} is {', '.join(sorted(old))} in {before} and {', '.join(sorted(new))} in "
                f"{after}: a change of the sampling law is not one of the model; compare windows "
                "(--windows) of one law"
            )


def _parts(
    product: Array, labels: IntArray, names: Sequence[str], ks: Orders, level: float
) -> pd.DataFrame:
    """The part of each group in the mean, with intervals of each by itself."""
    tables = []
    for label, name in enumerate(names):
        inside = labels == label
        if not inside.any():
            continue
        part = mean_with_band(product * inside, level)
        tables.append(
            pd.DataFrame(
                {
                    "group": name,
                    "k": list(ks),
                    "num_prompts": int(inside.sum()),
                    "part": part.value,
                    "low": part.low,
                    "high": part.high,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _by_group(visits: Visits, pair: Pair, product: Array, ks: Orders, level: float) -> pd.DataFrame:
    own = [visits.groups[place] for place in pair.prompt]
    names, labels = np.unique(own, return_inverse=True)
    return _parts(product, labels, [str(name) or "(none)" for name in names], ks, level)


def _by_rate(pair: Pair, ks: Orders, level: float, seed: int) -> pd.DataFrame:
    """Groups by starting rate. Half of the answers of the first window sort the prompts, and the
    other half is estimated from: with the same answers, chance alone would make the hard ones rise.
    """
    rng = np.random.default_rng(seed)
    sorting = pair.samples_before // 2
    correct = rng.hypergeometric(
        pair.correct_before, pair.samples_before - pair.correct_before, sorting
    )
    rate = correct / np.maximum(sorting, 1)
    labels = np.searchsorted(_RATES[1:-1], rate, side="left") + 1
    labels[rate == 0], labels[rate == 1] = 0, len(_NAMES) - 1
    rest = Pair(
        pair.before, pair.after, pair.prompt, pair.samples_before - sorting,
        pair.correct_before - correct, pair.samples_after, pair.correct_after,
    )  # fmt: skip
    fitting = [k for k in ks if k <= rest.samples_before.min() and k <= max(ks) // 2] or [1]
    orders = Orders.of(fitting)
    return _parts(first_order(rest, orders), labels, _NAMES, orders, level)
