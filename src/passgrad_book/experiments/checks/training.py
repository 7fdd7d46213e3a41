"""Training with pass@k in TRL's trainer: results of ``training_pass_at_k``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from passgrad.errors import UserError
from passgrad_book.build import paths, results

EXPERIMENT = "training_pass_at_k"


def _runs() -> list[results.Result]:
    """All runs; after a rerun those that it made, and no others."""
    folder = paths.results() / EXPERIMENT / "cpu"
    names = sorted(file.stem for file in folder.glob("*.json"))
    if not names:
        raise UserError(f"no stored result of {EXPERIMENT}; run make results")
    found = [results.load(EXPERIMENT, name) for name in names]
    # One fresh run among two dozen stored ones would hardly move their mean.
    return [one for one in found if one.origin == "computed"] or found


def trainer_estimates() -> dict[str, float]:
    """Mean error of the trainer's own pass@1 and pass@8 of a batch, in standard errors of
    independent batches.
    """
    runs = [one["steps"] for one in _runs()]
    found: dict[str, float] = {"runs": len(runs)}
    for k in (1, 8):
        errors = np.concatenate(
            [(one[f"batch pass@{k}"] - one[f"pass@{k}"]).dropna().to_numpy(float) for one in runs]
        )
        found[f"pass_at_{k}"] = abs(float(errors.mean())) / float(
            errors.std(ddof=1) / len(errors) ** 0.5
        )
        found["batches"] = len(errors)
    return found


def exchange() -> dict[str, float]:
    """Changes of exact pass@1 and pass@8 over whole runs, means over the seeds, by the sign of the
    cosine of their gradients at the start.
    """
    rows = []
    for run in _runs():
        steps, given = run["steps"], run.record["parameters"]
        begin, end = steps.iloc[0], steps.iloc[-1]
        rows.append(
            {
                "start": (given["task"], *given["targets"]),
                "objective": given["objective"],
                "seed": given["seed"],
                "largest step": float(steps["realised pass@1"].min()),
                "end": end["pass@1"],
                "cosine": begin["cosine pass@8"],
                "pass@1": end["pass@1"] - begin["pass@1"],
                "pass@8": end["pass@8"] - begin["pass@8"],
            }
        )
    frame = pd.DataFrame(rows)
    mean = frame.groupby(["start", "objective"]).mean().reset_index()
    apart = mean[mean["cosine"] < 0].set_index("objective")
    together = mean[mean["cosine"] > 0]
    up = frame[frame["objective"] == "pass@8"]
    conflict = up[up["cosine"] < 0]
    ends = frame.pivot(index=["start", "seed"], columns="objective", values="end")
    price = (ends["pass@8"] - ends["pass@1"]).groupby("start")
    reach = stats.t.ppf(0.975, price.count() - 1) * price.std() / price.count() ** 0.5
    change = conflict["pass@1"]
    return {
        "runs": len(rows),
        "starts_with_conflict": apart["start"].nunique(),
        "starts_without": together["start"].nunique(),
        "pass_at_1_up_pass_at_8": float(apart["pass@1"]["pass@8"]),
        "pass_at_8_up_pass_at_1": float(apart["pass@8"]["pass@1"]),
        "upper_end_up_pass_at_8": float(
            change.mean() + stats.t.ppf(0.95, len(change) - 1) * change.std() / len(change) ** 0.5
        ),
        "spread_of_the_one_step": float(np.ptp(conflict["largest step"])),
        "the_one_step": float(conflict["largest step"].mean()),
        "highest_price": float((price.mean() + reach).max()),
        "lowest_without": float(together[["pass@1", "pass@8"]].to_numpy().min()),
    }
