"""Training with pass@k in TRL's trainer (chapter 12): results of ``training_pass_at_k``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from passgrad import paths, results
from passgrad.errors import UserError

EXPERIMENT = "training_pass_at_k"


def _steps() -> list[pd.DataFrame]:
    """The steps of all runs; after a rerun of the runs that it made, and of no others."""
    folder = paths.results() / EXPERIMENT / "cpu"
    names = sorted(file.stem for file in folder.glob("*.json"))
    if not names:
        raise UserError(f"no stored result of {EXPERIMENT}; run make results")
    found = [results.load(EXPERIMENT, name) for name in names]
    # One fresh run among two dozen stored ones would hardly move their mean.
    fresh = [one for one in found if one.origin == "computed"]
    return [one["steps"] for one in fresh or found]


def trainer_estimates() -> dict[str, float]:
    """Mean error of the trainer's own pass@1 and pass@8 of a batch, in standard errors of
    independent batches.
    """
    runs = _steps()
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


def first_order() -> dict[str, float]:
    """Predicted and realised change of pass@1 of all steps that moved: correlation, and the share
    of steps whose sign was foretold. Steps with a predicted change below 1e-3 are not counted.
    """
    moved = pd.concat(_steps()).dropna(subset="length")
    predicted = moved["predicted pass@1"].to_numpy(float)
    realised = moved["realised pass@1"].to_numpy(float)
    counted = np.abs(predicted) > 1e-3
    return {
        "steps": int(counted.sum()),
        "correlation": float(np.corrcoef(predicted[counted], realised[counted])[0, 1]),
        "signs_foretold": float((np.sign(predicted) == np.sign(realised))[counted].mean()),
    }
