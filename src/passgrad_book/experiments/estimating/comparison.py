"""Estimates of <grad J_k, grad J_1> by several ways from the same samples, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from passgrad.estimators import get_estimator
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import influence as terms
from passgrad.measurement.crossfit import cross_fit
from passgrad.measurement.estimate import estimate_conflict
from passgrad.measurement.samples import SampledGradients
from passgrad.measurement.store import StoredPasses
from passgrad.progress import Progress, Silent
from passgrad.stats.bands import Array, standard_error
from passgrad.stats.bands import intervals as interval_ends
from passgrad.worlds.language import LanguageWorld
from passgrad_book.experiments.estimating.naive import biased_conflict
from passgrad_book.experiments.estimating.short_answers import sample_language_world

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("cross-fit", "same-sample", "plug-in")


def estimates_by_method(
    samples: SampledGradients,
    ks: Sequence[int],
    *,
    estimator: str = "pkpo-loo1",
    seed: int = 0,
) -> dict[str, Array]:
    """The estimate for fixed prompts by each of :data:`METHODS`, (K,) or (K, R) arrays.

    Four gradients and the derivatives along them, two of these over half of the answers each.
    """
    orders = sorted(set(ks))
    chosen = get_estimator(estimator)
    fit = cross_fit(samples, orders, [1], estimator=chosen, split="completions", seed=seed)
    found = {"cross-fit": terms.curve(fit, "fixed")[fit.places(orders)].numpy()}
    for method in ("same-sample", "plug-in"):
        found[method] = biased_conflict(samples, orders, method=method, estimator=chosen)
    return found


def linear_cosines(
    samples: SampledGradients, ks: Sequence[int], *, level: float, seed: int
) -> dict[str, Array]:
    """The cosines with linearised intervals at each k by itself, held to [-1, 1], as the stored
    results have them; :mod:`passgrad.stats.ratio` has what a measurement says.
    """
    chosen = get_estimator("pkpo-loo1")
    fit = cross_fit(samples, ks, ks, estimator=chosen, split="completions", seed=seed)
    inner = terms.curve(fit, "fixed")[fit.places(fit.reported)].numpy()
    norms = terms.squared_norms(fit, "fixed").numpy()
    by_inner, by_norm = (
        terms.influences(fit, "fixed", product, chosen, seed=seed).numpy()
        for product in ("inner", "norm")
    )
    seen = norms > standard_error(by_norm)
    scale = np.sqrt(np.where(seen & seen[:1], norms * norms[:1], np.nan))
    cosine = inner / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = by_norm[:1] / norms[:1, None, None] + by_norm / norms[:, None, None]
    e = by_inner / scale[:, None, None] - cosine[:, None, None] * slope / 2
    low, high = np.full_like(cosine, -1.0), np.full_like(cosine, 1.0)
    known = np.isfinite(cosine)
    if known.any():
        ends = interval_ends(cosine[known], e[known], level)
        low[known], high[known] = (np.clip(end, -1, 1) for end in ends)
    low[known & (np.asarray(fit.reported) == 1)] = 1.0
    rows = [fit.reported.index(k) for k in ks]
    return {"cosine": cosine[rows], "cosine_low": low[rows], "cosine_high": high[rows]}


def compare_methods(
    world: LanguageWorld,
    ks: Sequence[int],
    *,
    num_samples: int,
    max_new_tokens: int,
    replications: int,
    bands: int = 1,
    level: float = 0.95,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Estimates on independent samples of a language model, at the weights that it holds now.

    Tables: "estimates" with a row for each replication, method and k; "intervals" with those of
    the first ``bands`` replications (more passes: one of each kind for every k). The passes are
    kept in ``folder`` (one a world and seed), so that a run that was killed goes on; ``progress``
    is told of one stage, in replications.
    """
    import pandas as pd

    orders = sorted(set(ks))
    drawn = sample_language_world(
        world,
        num_samples,
        max_new_tokens=max_new_tokens,
        replications=replications,
        seed=seed,
    )
    progress = progress or Silent()
    progress.stage("replications of the estimates", replications)
    rows, intervals = [], []
    for turn, (completions, rewards) in enumerate(drawn):
        passes = CompletionPasses(world.model, completions, rewards, world.masses)
        samples = StoredPasses(passes, None if folder is None else folder / str(turn))
        for method, values in estimates_by_method(samples, orders, seed=seed).items():
            rows += [
                {"replication": turn, "method": method, "k": k, "value": float(value)}
                for k, value in zip(orders, values, strict=True)
            ]
        if turn < bands:
            found = estimate_conflict(samples, orders, prompts="fixed", level=level, seed=seed)
            table = found.to_frame().drop(columns="unsolved_weight")
            table = table.assign(**linear_cosines(samples, orders, level=level, seed=seed))
            intervals.append(table.assign(replication=turn))
        progress.advance()
    return {"estimates": pd.DataFrame(rows), "intervals": pd.concat(intervals, ignore_index=True)}
