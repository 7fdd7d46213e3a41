"""SmolLM2-135M on two conventions for the same sums, exactly: results of ``two_conventions``."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from passgrad_book.build import results
from passgrad_book.build.columns import gaps

EXPERIMENT = "two_conventions"
SEEDS = range(5)


def _table(seed: int, table: str) -> pd.DataFrame:
    return results.load(EXPERIMENT, f"seed-{seed}")[table]


def _product(prompts: pd.DataFrame, k: float) -> float:
    weight = k * (1 - prompts["success"]) ** (k - 1)
    return float((prompts["mass"] * weight * prompts["agreement"]).sum())


def _threshold(prompts: pd.DataFrame) -> float:
    """The first k of a grid at which E[w_k a] is negative, refined to the root before it."""
    grid = np.geomspace(1, 1000, 400)
    values = [_product(prompts, k) for k in grid]
    for place in range(1, len(grid)):
        if values[place] < 0:
            return float(brentq(lambda k: _product(prompts, k), grid[place - 1], grid[place]))
    return math.nan


def conflict() -> dict[str, float]:
    """The worked example: cosines at some k, and the k from which there is a conflict."""
    cosine = _table(0, "conflict").set_index("k")["cosine"]
    return {
        "cosine_at_5": float(cosine[5]),
        "cosine_at_10": float(cosine[10]),
        "cosine_at_32": float(cosine[32]),
        "cosine_at_100": float(cosine[100]),
        "threshold": _threshold(_table(0, "prompts")),
    }


def seeds() -> dict[str, float]:
    """Of five choices of sums: how many conflict at k = 10, 32 and 100."""
    cosines = [_table(seed, "conflict").set_index("k")["cosine"] for seed in SEEDS]
    return {f"conflicts_at_{k}": sum(float(one[k]) < 0 for one in cosines) for k in (10, 32, 100)}


def _change(seed: int, objective: str, k: int) -> float:
    table = _table(seed, "ascents")
    rows = table[(table["objective"] == objective) & (table["k"] == k) & (table["group"] == "all")]
    values = rows.sort_values("step")["pass_at_k"].to_numpy()
    return float(values[-1] - values[0])


def ascents() -> dict[str, float]:
    """Six small steps up pass@32: what they do to pass@1, and whether the cosine foretold it."""
    foretold = 0
    lost = [_change(seed, "pass@32", 1) for seed in SEEDS]
    for seed, change in zip(SEEDS, lost, strict=True):
        cosine = _table(seed, "conflict").set_index("k")["cosine"]
        foretold += (float(cosine[32]) < 0) == (change < 0)
    return {
        "pass_at_1_up_pass_at_32": lost[0],
        "pass_at_32_up_pass_at_32": _change(0, "pass@32", 32),
        "pass_at_32_up_pass_at_1": _change(0, "pass@1", 32),
        "lowered": sum(change < 0 for change in lost),
        "foretold": foretold,
    }


def identity() -> dict[str, float]:
    """Proposition 4.1 over all weights of the model, from the stored columns of every prompt."""
    worst = 0.0
    for seed in SEEDS:
        found = gaps(results.load(EXPERIMENT, f"seed-{seed}").tables)
        worst = max(worst, found["inner_product"])
    return {"gap": worst}


def spread() -> dict[str, float]:
    """The success rates behind the conflict: lowest and highest of the worked example."""
    success = _table(0, "prompts")["success"]
    return {"lowest": float(success.min()), "highest": float(success.max())}
