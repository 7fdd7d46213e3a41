"""Training runs of the book, whose success rates are exact, read as a log would show them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from passgrad.measurement.logs.compared import compare
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.orders import Orders
from passgrad_book.build import paths, results

EXPERIMENT = "training_pass_at_k"


def read_own_runs(ks: list[int], answers: int, seed: int = 0) -> pd.DataFrame:
    """One row a stored run and order: the exact change of pass@k from the first step to the last,
    its exact first order E[w_k(p)(p' - p)], and what a log of ``answers`` answers a prompt at both
    steps says, with its interval for these prompts.

    Columns: start, objective, seed, k, change, first_order, estimate, low, high.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for file in sorted((paths.results() / EXPERIMENT / "cpu").glob("*.json")):
        run = results.load(EXPERIMENT, file.stem)
        given = run.record["parameters"]
        rates = run["prompts"].pivot(index="step", columns="id", values="p")
        before, after = rates.iloc[0].to_numpy(), rates.iloc[-1].to_numpy()
        size = len(before)
        log = Visits.of(
            [*rates.columns] * 2,
            np.repeat([0, 1], size),
            answers,
            rng.binomial(answers, np.concatenate([before, after])),
        )
        read = compare(log, Window(0, 0), Window(1, 1), Orders.of(ks), reading="fixed")
        for place, k in enumerate(ks):
            product = read.product[place]
            rows.append(
                {
                    "start": given["start"],
                    "objective": given["objective"],
                    "seed": given["seed"],
                    "k": k,
                    "change": float(((1 - before) ** k - (1 - after) ** k).mean()),
                    "first_order": float((k * (1 - before) ** (k - 1) * (after - before)).mean()),
                    "estimate": float(product.value),
                    "low": float(product.low),
                    "high": float(product.high),
                }
            )
    return pd.DataFrame(rows)
