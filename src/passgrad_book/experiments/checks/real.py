"""Real success rates and a real run: results of ``real_rates`` and ``real_run``."""

from __future__ import annotations

from passgrad_book.build import results


def run() -> dict[str, float]:
    """From the first window of the run to the last."""
    found = results.load("real_run", "4-windows")
    changes = found["changes"]
    whole = changes.iloc[: changes["k"].nunique()].set_index("k")
    first = found["findings"].drop_duplicates("finding").set_index("finding")["count"]
    return {
        "lowest_end": float(whole["band_low"].min()),
        "product_1": float(whole["first_order"][1]),
        "rose": int(first.get("rose", 0)),
        "fell": int(first.get("fell", 0)),
    }


def rates() -> dict[str, float]:
    """Where the weight of pass@32 lies."""
    found = results.load("real_rates", "all")
    weights = found["weights"].set_index("k")
    return {
        "weight_never_solved": float(weights["never_solved"][32]),
        "never_solved": float(found["summary"]["never"].iloc[0]),
    }
