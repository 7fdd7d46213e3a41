"""The public files of success rates: read from a local path, or from their public place.

- DeepScaleR prompts with the right answers of Qwen2.5-Math-7B among 128: AdaRFT (Shi et al., 2025,
  arXiv:2504.05520), repository limenlp/verl at fe9979a, Apache-2.0; derived table: one row a
  prompt with its count and the strata that it stands in.
- Right answers of 8 at each visit of a GRPO run of Qwen2.5-Math-1.5B: One-Shot RLVR (Wang et al.,
  2025, arXiv:2504.20571), repository ypwang61/One-Shot-RLVR at 21ed529, Apache-2.0.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd

from passgrad.errors import UserError
from passgrad.measurement.logs.visits import Visits

STRATA = ("uniform", "skew_easy", "skew_difficult", "easy_extreme", "hard_extreme")
_ADARFT = (
    "https://raw.githubusercontent.com/limenlp/verl/fe9979a/verl/data/deepscaler_{}_train.parquet"
)
_ONE_SHOT = (
    "https://raw.githubusercontent.com/ypwang61/One-Shot-RLVR/21ed529/data/acc_step_500.json"
)
_ANSWERS, _SECONDS = 128, 60


def rates(path: str = "") -> pd.DataFrame:
    """One row a prompt: num_samples, num_correct, and for each of :data:`STRATA` whether it stands
    there.

    :param path: The derived table (csv, packed or not); empty: the five files of the public place.
    :raises UserError: For a file that is missing or has other columns, and without a network.
    """
    if not path:
        return _from_strata({stratum: _public(_ADARFT.format(stratum)) for stratum in STRATA})
    table = _table(path, ("num_correct", "num_samples", "files"))
    inside = table["files"].str.split("+")
    columns = {stratum: inside.map(lambda names, s=stratum: s in names) for stratum in STRATA}
    return table[["num_samples", "num_correct"]].assign(**columns)


def run_visits(path: str = "") -> Visits:
    """The visits of the GRPO run.

    :param path: A table with prompt, visit, num_correct and num_samples; empty: the public place.
    :raises UserError: As :func:`rates`.
    """
    if path:
        table = _table(path, ("prompt", "visit", "num_correct", "num_samples"))
    else:
        shares: dict[str, list[float]] = json.loads(_download(_ONE_SHOT))
        table = pd.DataFrame(
            [
                {
                    "prompt": prompt,
                    "visit": visit,
                    "num_correct": round(8 * share),
                    "num_samples": 8,
                }
                for prompt, row in shares.items()
                for visit, share in enumerate(row)
            ]
        )
    return Visits.of(table["prompt"], table["visit"], table["num_samples"], table["num_correct"])


def _from_strata(files: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a prompt, known by its text, from the files of the strata."""
    counted: dict[str, dict[str, Any]] = {}
    for stratum, table in files.items():
        for text, difficulty in zip(table["prompt"].astype(str), table["difficulty"], strict=True):
            correct = round(_ANSWERS * (1 - float(difficulty) / 100))
            row = counted.setdefault(text, {"num_samples": _ANSWERS, "num_correct": correct})
            # A problem that was scored twice keeps its lower count, as in the derived table.
            row["num_correct"] = min(row["num_correct"], correct)
            row[stratum] = True
    return pd.DataFrame(counted.values()).reindex(
        columns=["num_samples", "num_correct", *STRATA], fill_value=False
    ).fillna(False)  # fmt: skip


def _table(path: str, columns: tuple[str, ...]) -> pd.DataFrame:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; leave the path empty for the public place")
    read = pd.read_parquet if path.endswith(".parquet") else pd.read_csv
    table: pd.DataFrame = read(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}")
    return table


def _public(url: str) -> pd.DataFrame:
    from io import BytesIO

    return pd.read_parquet(BytesIO(_download(url)))


def _download(url: str) -> bytes:
    try:
        with urlopen(url, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except (URLError, OSError) as error:
        raise UserError(
            f"{url} cannot be read ({error}); give a local copy by the path of this experiment"
        ) from None
    return content


def stratum_weights(table: pd.DataFrame, edges: tuple[int, ...]) -> pd.DataFrame:
    """How many prompts of the population a row stands for: columns weight, least and most.

    Both tails are complete: every prompt with at most 3 or at least 109 right answers is there, so
    that its weight is 1. The middle is what three samples of it caught. Within counts that lie
    close together these are independent, so that two of them tell the number of prompts (Lincoln
    and Petersen, with Chapman's correction); the weight is the mean over the three pairs, with the
    least and the most beside it.

    :param edges: Of the bins of counts in the middle, from 4 to 109.
    """
    correct = table["num_correct"].to_numpy()
    result = pd.DataFrame(1.0, index=table.index, columns=["weight", "least", "most"])
    samples = [table[name].to_numpy() for name in ("uniform", "skew_easy", "skew_difficult")]
    for low, high in pairwise(edges):
        inside = (correct >= low) & (correct < high)
        sizes = []
        for first, second in ((0, 1), (0, 2), (1, 2)):
            a, b = samples[first][inside], samples[second][inside]
            sizes.append((a.sum() + 1) * (b.sum() + 1) / ((a & b).sum() + 1) - 1)
        caught = max(int(inside.sum()), 1)
        of_bin = [max(size / caught, 1.0) for size in (np.mean(sizes), min(sizes), max(sizes))]
        result.loc[inside] = of_bin
    return result
