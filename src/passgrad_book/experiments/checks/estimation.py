"""The conflict estimated from samples: bias of the obvious ways, and coverage."""

from __future__ import annotations

from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.measurement import influence as terms
from passgrad.measurement import sample_bandit
from passgrad.measurement.crossfit import cross_fit
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.build import results
from passgrad_book.experiments.estimating.naive import biased_conflict

THETA, K, REPLICATIONS = (-1.0, 0.0), 2, 1000


def same_sample_bias() -> dict[str, float]:
    """Bias over the exact product at k = 2 of three estimates from four answers a prompt.

    For the cross-fit, also in standard errors of the simulation.
    """
    world = GaussianBandit(0.2, 0.2).sample(48, 16, seed=7)
    truth = float(conflict(world, THETA, [K]).inner_product[0])
    samples = sample_bandit(world, THETA, 4, replications=REPLICATIONS, seed=4)
    fit = cross_fit(
        samples, [1, K], [1], estimator=get_estimator("pkpo-loo1"), split="completions", seed=0
    )
    cross = terms.curve(fit, "fixed")[fit.places([K])][0].numpy()
    same = biased_conflict(samples, [K])[0]
    plug_in = biased_conflict(samples, [K], method="plug-in")[0]
    error = float(cross.std()) / REPLICATIONS**0.5
    return {
        "same_sample": float(same.mean()) / truth - 1,
        "plug_in": float(plug_in.mean()) / truth - 1,
        "cross_fit_in_standard_errors": abs(float(cross.mean()) - truth) / error,
    }


def _coverage(experiment: str) -> dict[str, float]:
    table = results.load(experiment, "seed-0")["coverage"]
    # Splitting the completions of new prompts is there for comparison; it is not the default.
    halves = table["split"] == "completions"
    single = table["target"].str.startswith("k = ")
    band = table["target"] == "band"
    return {
        "lowest": float(table[single & ~halves]["coverage"].min()),
        "lowest_band": float(table[band & ~halves]["coverage"].min()),
        "lowest_by_completions": float(table[halves & (single | band)]["coverage"].min()),
        "cases": int((single & ~halves).sum()),
    }


def coverage_bandit() -> dict[str, float]:
    """Coverage of 95 % intervals and bands for the bandit."""
    return _coverage("coverage_bandit")


def coverage_small_language_model() -> dict[str, float]:
    """Coverage of 95 % intervals and bands for a small language model with an exact answer law."""
    return _coverage("coverage_language")


def language() -> dict[str, float]:
    """SmolLM2: means of three estimates over sets of completions, against the exact product.

    The largest error over k, in standard errors of that mean, and the share of intervals of the
    first set that hold the exact value.
    """
    stored = results.load("compared_methods", "seed-0")
    exact = stored["exact"].set_index("k")["inner_product"]
    frame = stored["estimates"]
    found: dict[str, float] = {}
    error = (
        stored["intervals"].set_index("k")["standard_error"] / frame["replication"].nunique() ** 0.5
    )
    for method, name in (("cross-fit", "cross_fit"), ("plug-in", "plug_in")):
        mean = frame[frame["method"] == method].groupby("k")["value"].mean()
        found[f"{name}_largest_error"] = float(((mean - exact[mean.index]) / error).abs().max())
    found["plug_in_over_exact_at_32"] = float(
        frame[(frame["method"] == "plug-in") & (frame["k"] == 32)]["value"].mean() / exact[32]
    )
    inside = stored["intervals"].set_index("k")
    held = (inside["low"] <= exact[inside.index]) & (exact[inside.index] <= inside["high"])
    found["intervals_that_hold"] = float(held.mean())
    return found


def gsm8k() -> dict[str, float]:
    """GSM8K with SmolLM2-135M, from the stored counts: what a model of this size can show."""
    counts = results.load("word_problems", "seed-0")["counts"]
    return {
        "prompts": len(counts),
        "samples": float(counts["samples"].iloc[0]),
        "right": float(counts["correct"].sum()),
        "solved_once": float((counts["correct"] > 0).sum()),
        "answered": float(counts["answered"].mean()),
    }
