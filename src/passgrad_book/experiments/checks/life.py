"""The life of a conflict along pass@1 ascent: results of ``conflict_life``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from passgrad_book.build import results

EXPERIMENT, K = "conflict_life", 8
SEEDS = range(5)


def _orders(seed: int) -> pd.DataFrame:
    table = results.load(EXPERIMENT, f"pass-at-1-seed-{seed}")["orders"]
    return table[table["k"] == K].sort_values("step")


def phases() -> dict[str, float]:
    """Of five runs: how many agree at the start, conflict on the way, and agree at the end.

    A cosine is nan once a gradient has vanished: the end is the last one that exists.
    """
    cosines = [_orders(seed)["cosine"].dropna().to_numpy() for seed in SEEDS]
    conflicts = [one for one in cosines if one.min() < 0]
    return {
        "agree_at_the_start": sum(one[0] > 0 for one in cosines),
        "conflict": len(conflicts),
        "ended": sum(one[-1] > 0 for one in conflicts),
        "deepest": float(min(one.min() for one in cosines)),
    }


def falls() -> dict[str, float]:
    """Between two comparisons of one sign: does pass@8 fall where the gradients conflict, and rise
    where they agree? Changes below 1e-6 are not counted.
    """
    wrong = counted = 0
    for seed in SEEDS:
        table = _orders(seed)
        cosine, value = table["cosine"].to_numpy(), table["pass_at_k"].to_numpy()
        change = np.diff(value)
        same = (np.sign(cosine[1:]) == np.sign(cosine[:-1])) & (np.abs(change) > 1e-6)
        counted += int(same.sum())
        wrong += int((np.sign(change[same]) != np.sign(cosine[1:][same])).sum())
    return {"against_the_sign": wrong, "stretches": counted}
