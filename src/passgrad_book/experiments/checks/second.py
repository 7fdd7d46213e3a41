"""Qwen2.5-Coder-0.5B as it comes: results of ``qwen_conflict`` and ``qwen_ascents``."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from passgrad.stats.binomial import success_interval
from passgrad_book.build import results
from passgrad_book.experiments.second_model import ASCENT_SEEDS, SEEDS


def slopes(tables: Mapping[str, pd.DataFrame] | results.Result) -> dict[str, dict[str, float]]:
    """Changes to first order along one unit of length up pass@1 or pass@10 of the train prompts:
    ``"J_1 up J_10"`` and so on, of the train prompts and of those held out.
    """
    orders, outside = tables["conflict"].set_index("k"), tables["held_out"]
    found = {}
    for value, step in ((1, 1), (1, 10), (10, 1), (10, 10)):
        norm = float(orders["norm"][step])
        product = norm**2 if value == step else float(orders["inner_product"][10])
        weight = outside["mass"] * value * (1 - outside["success"]) ** (value - 1)
        found[f"J_{value} up J_{step}"] = {
            "train": product / norm,
            "held out": float((weight * outside[f"slope_{step}"]).sum()) / norm,
        }
    return found


def _of(kind: str) -> list[results.Result]:
    return [results.load("qwen_conflict", f"{kind}-seed-{seed}") for seed in SEEDS[kind]]


def _cosines(kind: str, k: int) -> list[float]:
    return [float(one["conflict"].set_index("k")["cosine"][k]) for one in _of(kind)]


def conflict() -> dict[str, float]:
    """The cosine at k = 10 of every set, conventions and arithmetic."""
    conventions, natural = _cosines("conventions", 10), _cosines("arithmetic", 10)
    opposed = sum(value < 0 for value in conventions)
    low, high = success_interval(opposed, len(conventions))
    return {
        "conventions": opposed,
        "share_low": float(low),
        "share_high": float(high),
        "lowest": min(conventions),
        "highest": max(conventions),
        "arithmetic": sum(value < 0 for value in natural),
        "lowest_arithmetic": min(
            min(_cosines("arithmetic", k)) for k in (2, 3, 5, 10, 20, 32, 100)
        ),
    }


def held_out() -> dict[str, float]:
    """Pass@1 of the prompts held out along a step up pass@10 of the others, to first order."""
    opposed, natural = (
        [slopes(one)["J_1 up J_10"]["held out"] for one in _of(kind)]
        for kind in ("conventions", "arithmetic")
    )
    return {
        "fall": sum(value < 0 for value in opposed),
        "largest_rise": max(opposed),
        "largest_fall": min(opposed),
        "arithmetic_fall": sum(value < 0 for value in natural),
        "arithmetic_least_rise": min(natural),
    }


def changes(method: str, seed: int) -> dict[str, float]:
    """Pass@1 and pass@10 behind six steps less those before, of the train prompts and of those held
    out.
    """
    table = results.load("qwen_ascents", f"conventions-{method}-seed-{seed}")["success"]
    last = table["step"].max()
    found = {}
    for part in ("train", "held out"):
        own = table[table["part"] == part]
        for k in (1, 10):
            values = (1 - (1 - own["success"]) ** k).groupby(own["step"]).mean()
            found[f"J_{k}, {part}"] = float(values[last] - values[0])
    return found


def ascents() -> dict[str, float]:
    """Six steps up pass@10 from every set: what became of pass@1, and what was foretold."""
    lost = {seed: changes("pass-at-k", seed) for seed in ASCENT_SEEDS}
    foretold = 0
    for seed, change in lost.items():
        expected = slopes(results.load("qwen_conflict", f"conventions-seed-{seed}"))["J_1 up J_10"]
        foretold += sum(
            (expected[part] < 0) == (change[f"J_1, {part}"] < 0) for part in ("train", "held out")
        )
    return {
        "train_falls": sum(change["J_1, train"] < 0 for change in lost.values()),
        "held_out_falls": sum(change["J_1, held out"] < 0 for change in lost.values()),
        "foretold": foretold,
    }
