"""Small made files in the form of the real ones, for witnesses and tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from passgrad_book.build import paths
from passgrad_book.experiments.real.files import STRATA


def made_rates() -> str:
    """A table of 3,000 prompts with counts of 128 and strata; its path."""
    rng = np.random.default_rng(0)
    correct = rng.binomial(128, rng.beta(0.3, 0.4, 6000))
    inside = np.stack([rng.random(6000) < share for share in (0.25, 0.3, 0.3, 0.0, 0.0)], axis=1)
    inside[:, 3], inside[:, 4] = correct >= 109, correct <= 3
    names = ["+".join(np.array(STRATA)[row]) for row in inside]
    table = pd.DataFrame({"num_correct": correct, "num_samples": 128, "files": names})
    return _written(table[table["files"] != ""], "rates.csv.gz")


def made_run() -> str:
    """A run of 80 prompts over 6 visits of 8 answers; its path."""
    rng = np.random.default_rng(1)
    p = rng.beta(0.4, 0.5, 80)
    visits = [np.clip(p + 0.05 * visit * p * (1 - p), 0, 1) for visit in range(6)]
    table = pd.DataFrame(
        {
            "prompt": np.tile(np.arange(80), 6),
            "visit": np.repeat(np.arange(6), 80),
            "num_correct": np.concatenate([rng.binomial(8, rate) for rate in visits]),
            "num_samples": 8,
        }
    )
    return _written(table, "run.csv.gz")


def made_tables() -> str:
    """Six published rows of two sources; its path."""
    table = pd.DataFrame(
        {
            "source": ["One 2501.00001 table"] * 3 + ["Two 2501.00002 tables 1, 2"] * 3,
            "method": ["A", "B", "RS-GRPO"] * 2,
            "d_pass_1": [-1.0, -0.5, 0.2, 0.4, -2.0, 1.0],
            "d_pass_k": [2.0, 3.0, 1.0, -0.1, 4.0, 0.5],
        }
    )
    return _written(table, "tables.csv.gz")


def _written(table: pd.DataFrame, name: str) -> str:
    path = Path(paths.build()) / "experiments" / "made" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a time, so that the file is the same whenever it is made.
    table.to_csv(path, index=False, compression={"method": "gzip", "mtime": 0})
    return str(path)
