"""The outcomes of the training study, as its protocol names them, from the stored readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from passgrad.errors import UserError
from passgrad_book.build import paths, results
from passgrad_book.experiments.study.words import FAMILIES, REGIMES

#: pandas' frames and columns; its stubs do not follow labels of several levels
DataFrame: TypeAlias = Any
Series: TypeAlias = Any

EXPERIMENT = "training_study"
#: the readings at which arms are compared
HORIZONS = (50, 150, 300, 1000)
LEVEL = 0.95
#: a dip is a fall of pass@1 by so much, within so many steps
DIP, DIP_STEPS = 0.01, 150


def read_study(learning_rate: float = 2e-4, *, profile: str = "cpu") -> DataFrame:
    """All readings of the stored records with one learning rate: regime, seed, arm, step, ...

    Seeds that lack a regime are left out, so that means over seeds are of the same seeds.

    :raises UserError: Where none is stored.
    """
    parts = []
    for file in sorted((paths.results() / EXPERIMENT / profile).glob("*.json")):
        record = results.load(EXPERIMENT, file.stem, profile=profile)
        given = record.record["parameters"]
        if given["learning_rate"] == learning_rate:
            parts.append(record["readings"].assign(regime=given["regime"], seed=given["seed"]))
    if not parts:
        raise UserError(f"no record of the study at the rate {learning_rate}: run make study")
    readings = pd.concat(parts, ignore_index=True)
    complete = readings.groupby("seed")["regime"].nunique() == len(REGIMES)
    return readings[readings["seed"].isin(complete.index[complete])].reset_index(drop=True)


def interval(values: Series, level: float = LEVEL) -> Series:
    """Mean and t-interval of one number a seed: mean, low, high, seeds."""
    values = values.dropna()
    size = len(values)
    mean = float(values.mean()) if size else np.nan
    reach = np.nan
    if size > 1:
        reach = stats.t.ppf((1 + level) / 2, size - 1) * float(values.std()) / size**0.5
    return pd.Series({"mean": mean, "low": mean - reach, "high": mean + reach, "seeds": size})


def at(readings: DataFrame, step: int, column: str) -> DataFrame:
    """A column at one step: rows (regime, seed), one column an arm.

    Between two readings it is interpolated: the runs are read at 140 and 160 and not at 150.
    """
    taken = np.sort(readings["step"].unique())
    below, above = taken[taken <= step].max(), taken[taken >= step].min()
    ends = [
        readings[readings["step"] == reading].pivot(
            index=["regime", "seed"], columns="arm", values=column
        )
        for reading in (below, above)
    ]
    share = (step - below) / (above - below) if above > below else 0.0
    return ends[0] if not share else (1 - share) * ends[0] + share * ends[1]


def start_of(readings: DataFrame, column: str) -> Series:
    """A column at step 0, which all arms of a checkpoint share: indexed by (regime, seed)."""
    return at(readings, 0, column).bfill(axis=1).iloc[:, 0]


def differences(readings: DataFrame, step: int, column: str, against: str) -> DataFrame:
    """Of all arms, at one step: rows (regime, seed), one column an arm.

    :param against: An arm, or "start" for the level at step 0.
    """
    levels = at(readings, step, column)
    base = start_of(readings, column) if against == "start" else levels[against]
    return levels.sub(base, axis=0)


def intervals(frame: DataFrame) -> DataFrame:
    """Mean and interval over the seeds of each regime: rows (regime, arm)."""
    rows = {
        (regime, arm): interval(frame.loc[regime, arm])
        for regime in _regimes(frame)
        for arm in frame.columns
    }
    table = pd.DataFrame(rows).T
    table.index.names = ["regime", "arm"]
    return table


def _regimes(frame: DataFrame) -> list[str]:
    present = set(frame.index.get_level_values("regime"))
    return [regime for regime in REGIMES if regime in present]


def paths_of(readings: DataFrame, column: str = "held_pass@1") -> DataFrame:
    """What the path of a run was like: rows (regime, arm, seed).

    Columns: start, lowest, lowest_step, end (levels), below (steps with a level more than half a
    point below the start, each reading standing for the steps up to the next), silent (mean share
    of groups), path (length in the weights).
    """
    rows = []
    for (regime, arm, seed), run in readings.groupby(["regime", "arm", "seed"], sort=False):
        run = run.sort_values("step")
        level, step = run[column].to_numpy(), run["step"].to_numpy()
        covered = np.diff(step)
        rows.append(
            {
                "regime": regime,
                "arm": arm,
                "seed": seed,
                "start": level[0],
                "lowest": level.min(),
                "lowest_step": step[level.argmin()],
                "end": level[-1],
                "below": float(covered[level[:-1] < level[0] - 0.005].sum()),
                "silent": float(np.average(run["silent"].to_numpy()[1:], weights=covered)),
                "path": run["path"].iloc[-1],
            }
        )
    return pd.DataFrame(rows)


def dips(readings: DataFrame, arm: str = "pass@8") -> Series:
    """Whether pass@1 of held-out prompts fell a point below the start early: (regime, seed)."""
    early = readings[(readings["arm"] == arm) & (readings["step"] <= DIP_STEPS)]
    lowest = early.groupby(["regime", "seed"])["held_pass@1"].min()
    return lowest < start_of(readings, "held_pass@1") - DIP


def predictions(readings: DataFrame, arm: str = "pass@8") -> DataFrame:
    """Cosines of the starts and what came of them: one row a (regime, seed).

    Columns: "at the start", "after ten steps", "after ten steps, Adam" (cosines along the arm),
    dip, and loss (pass@1 below that of pass@1 training at step 150).
    """
    run = readings[readings["arm"] == arm].set_index(["regime", "seed"])
    table = pd.DataFrame(
        {
            "at the start": run.loc[run["step"] == 0, "cosine"],
            "after ten steps": run.loc[run["step"] == 10, "cosine"],
            "after ten steps, Adam": run.loc[run["step"] == 10, "cosine_adam"],
        }
    )
    table["dip"] = dips(readings, arm)
    table["loss"] = differences(readings, DIP_STEPS, "held_pass@1", "pass@1")[arm] < 0
    return table


def right_calls(table: DataFrame, outcome: str) -> DataFrame:
    """How often the sign of each predictor was right about an outcome, in all and by regime.

    A negative cosine foretells the outcome, another one its absence; "always" foretells it
    everywhere. Columns: right, of, and the two kinds of errors: missed, false_alarm.
    """
    rows = []
    for name in (*table.columns[:3], "always"):
        foretold = pd.Series(True, table.index) if name == "always" else table[name] < 0
        for regime in ("all", *_regimes(table)):
            chosen = slice(None) if regime == "all" else regime
            said, came = foretold.loc[chosen], table.loc[chosen, outcome]
            rows.append(
                {
                    "predictor": name,
                    "regime": regime,
                    "right": int((said == came).sum()),
                    "of": len(came),
                    "missed": int((~said & came).sum()),
                    "false_alarm": int((said & ~came).sum()),
                }
            )
    return pd.DataFrame(rows)


def kept(readings: DataFrame, family: str = "backwards", step: int = 1000) -> DataFrame:
    """In how many seeds a family ends above one half: rows (regime, arm), columns kept and seeds.

    :raises UserError: For an unknown family.
    """
    if family not in FAMILIES:
        raise UserError(f"there is no family {family!r}; there are: {', '.join(FAMILIES)}")
    ends = at(readings, step, f"held_{family}").dropna(how="all")
    rows = {
        (regime, arm): {
            "kept": int((ends.loc[regime, arm] > 0.5).sum()),
            "seeds": int(ends.loc[regime, arm].notna().sum()),
        }
        for regime in _regimes(ends)
        for arm in ends.columns
    }
    table = pd.DataFrame(rows).T
    table.index.names = ["regime", "arm"]
    return table


def verdicts(readings: DataFrame, against: str = "mixture 0.5", step: int = 1000) -> DataFrame:
    """Each arm beside another: in which regimes its intervals lie above and below zero.

    Columns: "pass@1 above", "pass@1 below", "pass@8 above", "pass@8 below" (names of regimes) and
    "better": above in pass@1 in at least one regime, below in none of the two.
    """
    rows: dict[Any, dict[str, str]] = {}
    for k in (1, 8):
        table = intervals(differences(readings, step, f"held_pass@{k}", against))
        for arm in table.index.unique("arm"):
            own = table.xs(arm, level="arm")
            row = rows.setdefault(arm, {})
            row[f"pass@{k} above"] = ", ".join(own.index[own["low"] > 0])
            row[f"pass@{k} below"] = ", ".join(own.index[own["high"] < 0])
    frame = pd.DataFrame(rows).T.drop(index=against)
    frame["better"] = (
        (frame["pass@1 above"] != "")
        & (frame["pass@1 below"] == "")
        & (frame["pass@8 below"] == "")
    )
    return frame


def shortfalls(readings: DataFrame, step: int = 1000) -> DataFrame:
    """(J_1 + J_8) / 2 of the best arm of a regime less that of an arm, means over seeds.

    Rows are arms, columns regimes and "largest"; sorted by it.
    """
    both = (at(readings, step, "held_pass@1") + at(readings, step, "held_pass@8")) / 2
    means = both.groupby("regime").mean()
    short = (means.max(axis=1) - means.T).T.T
    short = short[_regimes(both)]
    short["largest"] = short.max(axis=1)
    return short.sort_values("largest")


def at_equal_path(readings: DataFrame, column: str, arms: Sequence[str]) -> DataFrame:
    """A column where each run has gone as far in the weights as the shortest of the arms of its
    checkpoint, by linear interpolation between readings: rows (regime, seed), one column an arm.
    """
    chosen = readings[readings["arm"].isin(arms)]
    ends = chosen.groupby(["regime", "seed", "arm"])["path"].max()
    shortest = ends.groupby(["regime", "seed"]).min()
    rows: dict[Any, dict[str, float]] = {}
    for (regime, seed, arm), run in chosen.groupby(["regime", "seed", "arm"]):
        run = run.sort_values("step")
        rows.setdefault((regime, seed), {})[arm] = float(
            np.interp(shortest[regime, seed], run["path"], run[column])
        )
    table = pd.DataFrame(rows).T
    table.index.names = ["regime", "seed"]
    return table[list(arms)]
