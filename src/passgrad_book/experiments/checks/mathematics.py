"""The paper's measurement as it is printed and as it is corrected."""

from __future__ import annotations

from typing import Any

import torch

from passgrad_book.build import results
from passgrad_book.experiments.mathematics.as_printed import ablation, exact
from passgrad_book.experiments.mathematics.class_scores import Law
from passgrad_book.experiments.mathematics.math_study import rewards_of, vectors_of

EXPERIMENT, K = "math_conflict", 32


def conventions() -> dict[str, float]:
    """Two conventions of the same sums, where the truth is known: cosines at k = 32.

    ``printed_in_errors`` is the size of the printed cosine, and ``noise_over_exact`` that of its
    standard deviation over new answers in units of the exact cosine. ``corrected_error`` is the
    corrected product less the exact one, in standard deviations over new answers, and
    ``corrected_noise_over_exact`` that deviation in units of the exact product.
    ``sum_over_mean_and_kept`` is the printed product over N times the same with means.
    """
    stored = results.load(EXPERIMENT, "conventions")
    vectors = vectors_of(stored.tables)
    n = int(stored["facts"]["num_samples"].to_numpy()[0])
    rewards: dict[Law, torch.Tensor] = {
        "printed": rewards_of(stored.tables, "printed"),
        "policy": rewards_of(stored.tables, "policy"),
    }
    table = ablation(vectors, rewards, n, K, replications=50)
    rows: dict[str, Any] = {str(row["step"]): row for row in table.to_dict("records")}
    success = torch.from_numpy(stored["prompts"]["success"].to_numpy(float).copy())
    inner, cosine = exact(vectors, "all parameters", success, [K])
    printed, mean, corrected = (
        rows[name] for name in ("all parameters", "mean, not sum", "cross-fitted")
    )
    product = float(inner[0])
    return {
        "exact": float(cosine[0]),
        "printed": printed["cosine"],
        "printed_error": printed["cosine_error"],
        "printed_in_errors": abs(printed["cosine"]) / printed["cosine_error"],
        "noise_over_exact": printed["cosine_error"] / abs(float(cosine[0])),
        "corrected_error": abs(corrected["product"] - product) / corrected["product_error"],
        "corrected_noise_over_exact": corrected["product_error"] / abs(product),
        "prompts": len(stored["prompts"]),
        "kept": printed["kept"],
        "sum_over_mean_and_kept": printed["product"] / mean["product"] / printed["kept"],
    }
