"""What the chapters on real success rates and on a real run store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from passgrad.errors import UserError
from passgrad.measurement.logs.change import Pair, first_order, mean_with_band
from passgrad.measurement.logs.run import logs
from passgrad.measurement.logs.visits import Window
from passgrad.measurement.logs.weighing import weight_table
from passgrad.metrics import pass_at_k
from passgrad.orders import Orders
from passgrad_book.build.experiment import DOUBLE, experiment
from passgrad_book.experiments.real.files import rates, run_visits, stratum_weights
from passgrad_book.experiments.real.made import made_rates, made_run, made_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: bins of the counts between the complete tails
EDGES = (4, 20, 36, 52, 68, 84, 100, 109)


@experiment(version=1, label="all", files=("path",))
def real_rates(*, ks: Sequence[int], path: str = "") -> Mapping[str, pd.DataFrame]:
    """Success rates of Qwen2.5-Math-7B on DeepScaleR, and what pass@k weighs on them.

    Tables: ``histogram``, the number of prompts of the population at each count of right answers of
    128, and of rows seen; ``weights``, one row an order, with the least and the most that the
    number of prompts in the middle leaves open; ``cumulated``, the share of the weight on prompts
    up to a success rate; ``summary``.

    :param path: A local copy (:func:`passgrad_book.experiments.real.files.rates`).
    """
    table = rates(path)
    weighted = stratum_weights(table, EDGES)
    n, c = table["num_samples"].to_numpy(), table["num_correct"].to_numpy()
    orders = Orders.of(ks)
    masses = weighted["weight"].to_numpy()
    counts = [
        np.bincount(c, weights=values, minlength=int(n.max()) + 1)
        for values in (masses, np.ones(len(c)))
    ]
    histogram = pd.DataFrame(
        {"num_correct": np.arange(int(n.max()) + 1), "prompts": counts[0], "rows": counts[1]}
    )
    weights = weight_table(n, c, orders, masses=masses)
    for end in ("least", "most"):
        other = weight_table(n, c, orders, masses=weighted[end].to_numpy())
        weights[f"never_solved_{end}"] = other["never_solved"]
        weights[f"effective_prompts_{end}"] = other["effective_prompts"]
    share = masses / masses.sum()
    weights["pass_at_k"] = [float(np.asarray(pass_at_k(n, c, k)) @ share) for k in orders]
    summary = pd.DataFrame(
        {
            "prompts": [masses.sum()],
            "prompts_least": [weighted["least"].sum()],
            "prompts_most": [weighted["most"].sum()],
            "rows": [len(table)],
            "pass_at_1": [float((c / n) @ share)],
            "never": [float((c == 0) @ share)],
            "hard": [float((c / n <= 0.1) @ share)],
            "easy": [float((c / n >= 0.85) @ share)],
        }
    )
    return {
        "histogram": histogram,
        "weights": weights,
        "cumulated": _cumulated(n, c, share, orders),
        "summary": summary,
    }


def _cumulated(
    n: NDArray[np.int64], c: NDArray[np.int64], share: NDArray[np.float64], ks: Orders
) -> pd.DataFrame:
    """The share of the weight of each order on prompts with at most so many right answers."""
    rows = []
    for k in ks:
        weight = share * (k * (1 - np.asarray(pass_at_k(n, c, k - 1))) if k > 1 else 1.0)
        by_count = np.bincount(c, weights=weight, minlength=int(n.max()) + 1).cumsum()
        rows.append(
            pd.DataFrame(
                {"k": k, "num_correct": np.arange(len(by_count)), "share": by_count / by_count[-1]}
            )
        )
    return pd.concat(rows, ignore_index=True)


@experiment(version=1, label="{windows}-windows", files=("path",))
def real_run(
    *,
    ks: Sequence[int],
    windows: int,
    pairs: Sequence[Sequence[int]],
    level: float,
    false_discoveries: float,
    path: str = "",
) -> Mapping[str, pd.DataFrame]:
    """A GRPO run of Qwen2.5-Math-1.5B through ``passgrad logs``.

    Tables: ``changes`` over ``windows`` windows of equally many answers, from first to last and
    from each to the next; ``pairs``, the same for single pairs; ``groups``; ``findings``,
    how many prompts rose and fell from the first to the last window; ``fallen``, the counts of
    those that fell; ``weights``, ``silent``; ``summary``.

    :param pairs: Windows, each (first, last, first, last).
    :param path: A local copy (:func:`passgrad_book.experiments.real.files.run_visits`).
    """
    visits = run_visits(path)
    found = logs(
        visits, ks=list(ks), windows=windows, level=level, false_discoveries=false_discoveries
    )
    single = [
        logs(
            visits, ks=list(ks), windows=[Window(a, b), Window(c, d)], level=level,
            false_discoveries=false_discoveries,
        )
        for a, b, c, d in pairs
    ]  # fmt: skip
    counted = pd.concat(
        [
            run.whole.prompts["finding"].value_counts().rename_axis("finding").reset_index()
            .assign(before=str(run.whole.before), after=str(run.whole.after))
            for run in (found, *single)
        ],
        ignore_index=True,
    )  # fmt: skip
    fell = found.whole.prompts.query("finding == 'fell'")
    columns = ["samples_before", "correct_before", "samples_after", "correct_after", "adjusted_p"]
    return {
        "changes": found.curve(),
        "pairs": pd.concat([run.whole.to_frame() for run in single], ignore_index=True),
        "groups": found.whole.groups,
        "findings": counted,
        "fallen": fell[columns].reset_index(drop=True),
        "weights": found.weights,
        "silent": found.silent,
        "summary": pd.DataFrame(
            {
                "prompts": [visits.num_prompts],
                "visits": [len(visits.step)],
                "answers": [int(visits.num_samples.sum())],
                "verdict": [found.verdict],
            }
        ),
    }


@experiment(version=1, label="all", files=("path",))
def published_runs(*, path: str) -> Mapping[str, pd.DataFrame]:
    """Published runs for pass@k beside runs for pass@1: table ``counts``, one row a source and kind
    of objective, with how many rows have a lower pass@1 and a higher pass@k, and the least, median
    and largest change of pass@1 in points.

    :param path: A table with source, method, d_pass_1 and d_pass_k, numbers read from the tables of
        arXiv:2509.24261, 2508.10751 and 2505.15201.
    """
    if not path:
        raise UserError("the published tables have no public file; give theirs by path")
    table = pd.read_csv(path)
    source = table["source"].str.extract(r"^(.*?)\s+(\d{4}\.\d{5})")
    kinds = np.where(table["method"] == "RS-GRPO", "risk-sensitive", "pass@k")
    groups = table.assign(source=source[0] + ", arXiv:" + source[1], objective=kinds).groupby(
        ["objective", "source"], sort=True
    )
    return {
        "counts": groups.agg(
            rows=("d_pass_1", "size"),
            lower_pass_1=("d_pass_1", lambda change: int((change < 0).sum())),
            higher_pass_k=("d_pass_k", lambda change: int((change > 0).sum())),
            least_change_1=("d_pass_1", "min"),
            median_change_1=("d_pass_1", "median"),
            largest_change_1=("d_pass_1", "max"),
        ).reset_index()
    }


#: laws of the rates before and after, for the coverage
LAWS = ("nothing changes", "all rise", "hard rise, easy fall", "a curriculum adds prompts")


@experiment(version=1, label="seed-{seed}")
def log_coverage(
    *,
    ks: Sequence[int],
    sizes: Sequence[Sequence[int]],
    replications: int,
    level: float,
    seed: int,
) -> Mapping[str, pd.DataFrame]:
    """How often the intervals of ``passgrad logs`` hold the truth: table ``coverage``.

    One row a law of :data:`LAWS`, a size and an order: the share of intervals that hold the true
    E[w_k(p)(p' - p)], of those that lie above and below it, of bands that hold it at every order,
    and the mean error in standard errors.

    :param sizes: (prompts, answers in the first window, answers in the second).
    """
    orders = Orders.of(list(ks))
    rows = []
    for law in LAWS:
        for num_prompts, n, n_after in sizes:
            fitting = Orders.of([k for k in orders if k <= n])
            rows.append(
                _covered(law, num_prompts, n, n_after, fitting, replications, level, seed).assign(
                    law=law, prompts=num_prompts, answers=n, answers_after=n_after
                )
            )
    return {"coverage": pd.concat(rows, ignore_index=True)}


def _rates(
    law: str, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """U-shaped rates of prompts before and after."""
    p = rng.beta(0.3, 0.4, size)
    if law == "all rise":
        return p, np.clip(p + 0.4 * rng.random(size) * p * (1 - p), 0, 1)
    if law == "hard rise, easy fall":
        return p, np.where(p < 0.1, np.clip(p + 0.05 * rng.random(size), 0, 1), 0.9 * p)
    return p, p


def _covered(
    law: str,
    num_prompts: int,
    n: int,
    n_after: int,
    ks: Orders,
    replications: int,
    level: float,
    seed: int,
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p, after = _rates(law, 1_000_000, rng)
    truth = np.array([(k * (1 - p) ** (k - 1) * (after - p)).mean() for k in ks])
    above, below, held, errors = (np.zeros(len(ks)) for _ in range(4))
    band = 0
    for _ in range(replications):
        p, after = _rates(law, num_prompts, rng)
        there = np.ones(num_prompts, dtype=bool)
        if law == "a curriculum adds prompts":
            there = rng.random(num_prompts) < 0.7  # the others come behind the first window
        p, after = p[there], after[there]
        size = len(p)
        pair = Pair(
            Window(0, 0), Window(1, 1), np.arange(size),
            np.full(size, n), rng.binomial(n, p), np.full(size, n_after),
            rng.binomial(n_after, after),
        )  # fmt: skip
        found = mean_with_band(first_order(pair, ks), level)
        low, high = np.asarray(found.low), np.asarray(found.high)
        above += low > truth
        below += high < truth
        held += (low <= truth) & (truth <= high)
        band += bool(
            ((np.asarray(found.band_low) <= truth) & (truth <= np.asarray(found.band_high))).all()
        )
        error = np.asarray(found.error)
        errors += np.divide(
            np.asarray(found.value) - truth, error, out=np.zeros(len(ks)), where=error > 0
        )
    return pd.DataFrame(
        {
            "k": list(ks),
            "truth": truth,
            "held": held / replications,
            "interval_above": above / replications,
            "interval_below": below / replications,
            "band_held": band / replications,
            "mean_error": errors / replications,
            "replications": replications,
        }
    )


real_rates.witnessed(ks=[1, 2, 8, 32], path=made_rates, tolerance=DOUBLE)
real_run.witnessed(
    ks=[1, 2, 4], windows=3, pairs=[[0, 1, 4, 5]], level=0.95, false_discoveries=0.05,
    path=made_run, tolerance=DOUBLE,
)  # fmt: skip
log_coverage.witnessed(
    ks=[1, 2, 4], sizes=[[50, 8, 4]], replications=20, level=0.95, seed=0, tolerance=DOUBLE
)
published_runs.witnessed(path=made_tables, tolerance=DOUBLE)
