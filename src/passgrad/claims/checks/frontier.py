"""Steps of one length along methods of gradient surgery (chapter 13): results of ``conflict_free``.

The seeds are those that are stored; every number is the worst or the mean of them.
"""

from __future__ import annotations

from passgrad import paths, results

EXPERIMENT = "conflict_free"


def _changes() -> list[dict[str, tuple[float, float]]]:
    """Change of pass@1 and pass@k over all steps: method -> (of pass@1, of pass@k), a seed each."""
    folder = paths.results() / EXPERIMENT / "cpu"
    found = []
    for file in sorted(folder.glob("seed-*.json")):
        path = results.load(EXPERIMENT, file.stem)["path"].sort_values("step")
        changes = {}
        for method, rows in path.groupby("method"):
            values = rows[["pass_at_1", "pass_at_k"]].to_numpy(float)
            one, many = (values[-1] - values[0]).tolist()
            changes[str(method)] = (one, many)
        found.append(changes)
    return found


def prices() -> dict[str, float]:
    """What ascending one objective costs the other: the smallest loss over seeds."""
    seeds = _changes()
    return {
        "seeds": len(seeds),
        "pass_at_1_up_pass_at_k": max(one["pass@k"][0] for one in seeds),
        "pass_at_k_up_pass_at_1": max(one["pass@1"][1] for one in seeds),
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
