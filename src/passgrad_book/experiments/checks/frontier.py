"""Steps of one length along methods of gradient surgery: results of ``conflict_free``.

The seeds are those that are stored; every number is the worst or the mean of them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from passgrad.errors import UserError
from passgrad_book.build import paths, results

EXPERIMENT = "frontier_language"


def _paths() -> list[pd.DataFrame]:
    """One row a method and step, a table a seed."""
    names = sorted(file.stem for file in (paths.results() / EXPERIMENT / "cpu").glob("seed-*.json"))
    if not names:
        raise UserError(f"no stored result of {EXPERIMENT}; run make results")
    return [results.load(EXPERIMENT, name)["path"].sort_values("step") for name in names]


def _changes() -> list[dict[str, tuple[float, float]]]:
    """Change of pass@1 and pass@k over all steps: method -> (of pass@1, of pass@k), a seed each."""
    found = []
    for path in _paths():
        changes = {}
        for method, rows in path.groupby("method"):
            values = rows[["pass_at_1", "pass_at_k"]].to_numpy(float)
            one, many = (values[-1] - values[0]).tolist()
            changes[str(method)] = (one, many)
        found.append(changes)
    return found


def metrics() -> dict[str, float]:
    """Cosine of the gradients in each metric, all weights, one seed."""
    table = results.load("metrics_language", "seed-0")["prices"].drop_duplicates("metric")
    cosine = table.set_index("metric")["cosine"]
    natural = cosine[[name for name in cosine.index if name.startswith("natural")]]
    return {
        "plain": float(cosine["plain"]),
        "adam": float(cosine["Adam"]),
        "natural_lowest": float(natural.min()),
        "natural_highest": float(natural.max()),
    }


def prices() -> dict[str, float]:
    """What a step up one objective does to the other: the largest change by the first step, and the
    share of all steps in which its sign is that of the cosine before the step. ``start`` is the
    largest cosine before the first step, ``ends`` the number of these ascents, two a seed, on
    which it turns positive.
    """
    seeds = _paths()
    first: dict[str, list[float]] = {"1": [], "k": []}
    starts: list[float] = []
    right = counted = ends = 0
    for path in seeds:
        for method, other in (("pass@k", "1"), ("pass@1", "k")):
            rows = path[path["method"] == method].dropna(subset="cosine")
            change = rows[f"realised_{other}"].to_numpy(float)
            first[other].append(float(change[0]))
            cosine = rows["cosine"].to_numpy(float)
            starts.append(float(cosine[0]))
            ends += int(cosine[0] < 0 < cosine.max())
            right += int((np.sign(change) == np.sign(cosine)).sum())
            counted += len(rows)
    return {
        "seeds": len(seeds),
        "start": max(starts),
        "ends": ends,
        "pass_at_1_by_a_step_up_pass_at_k": max(first["1"]),
        "pass_at_k_by_a_step_up_pass_at_1": max(first["k"]),
        "foretold": right / counted,
    }


def surgery() -> dict[str, float]:
    """What the methods gain in both objectives: the smallest gain over seeds."""
    seeds = _changes()
    found: dict[str, float] = {"seeds": len(seeds)}
    for name, method in (("pcgrad", "pcgrad"), ("mgda", "mgda"), ("mixture", "mixture 0.5")):
        found[name] = min(min(one[method]) for one in seeds)
    found["constrained_pass_at_1"] = min(one["constrained"][0] for one in seeds)
    shares = [one["constrained"][1] / one["pass@k"][1] for one in seeds]
    return found | {"constrained_share_of_pass_at_k": min(shares)}
