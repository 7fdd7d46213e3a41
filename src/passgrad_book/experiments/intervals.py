"""How often the intervals hold the truth: measured on prompts drawn from laws that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import intervals
from passgrad.stats.binomial import check_level, success_interval
from passgrad.stats.intervals import Prompts
from passgrad.stats.paired import changes
from passgrad.stats.tally import Tally, order_array

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["score", "normal", "bootstrap", "band"]


@dataclass(frozen=True)
class SuccessLaw:
    """A law of the success rate over prompts: a mixture of beta laws, (mass, a, b) each."""

    name: str
    parts: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        table = np.asarray(self.parts, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 3 or not np.all(table > 0):
            raise UserError(f"the law {self.name!r} needs parts (mass, a, b), all positive")
        if abs(table[:, 0].sum() - 1) > 1e-9:
            raise UserError(f"the masses of the law {self.name!r} must add up to 1")

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Independent success rates."""
        mass, a, b = np.asarray(self.parts).T
        part = rng.choice(len(mass), p=mass, size=shape)
        return rng.beta(a[part], b[part])

    def pass_at_k(self, ks: ArrayLike) -> NDArray[np.float64]:
        """The exact J_k = 1 - E[(1 - p)^k] = 1 - B(a, b + k) / B(a, b), averaged over parts."""
        from scipy.special import betaln

        k = np.asarray(ks, dtype=np.float64)
        return np.asarray(
            sum(-m * np.expm1(betaln(a, b + k) - betaln(a, b)) for m, a, b in self.parts)
        )


def _batch(correct: NDArray[np.int64], n: int) -> Tally:
    """The tallies of R sets of P prompts with n samples each; correct (R, P), weight (R, n + 1)."""
    sets, prompts = correct.shape
    flat = correct + (n + 1) * np.arange(sets)[:, None]
    weight = np.bincount(flat.ravel(), minlength=sets * (n + 1)).reshape(sets, n + 1)
    outcomes = np.arange(n + 1, dtype=np.float64)
    return Tally(np.full(n + 1, float(n)), outcomes, weight.astype(np.float64), prompts)


def _fixed_truth(rates: NDArray[np.float64], ks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the prompts drawn of pass@k, (R, K)."""
    with np.errstate(divide="ignore"):
        log_q = np.log1p(-rates)
    return np.stack([-np.expm1(k * log_q).mean(axis=1) for k in ks], axis=1)


def _row(held: ArrayLike, **facts: object) -> dict[str, object]:
    hits = np.asarray(held)
    low, high = success_interval(int(hits.sum()), hits.size)
    return facts | {"coverage": hits.mean(), "low": float(low), "high": float(high)}


def simulate_coverage(
    law: SuccessLaw,
    num_prompts: int,
    num_samples: int,
    ks: ArrayLike,
    *,
    replications: int = 2000,
    level: float = 0.95,
    prompts: Prompts = "new",
    methods: Sequence[Method] = ("score",),
    num_resamples: int = 500,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often an interval for pass@k holds the truth, over replications of the whole study.

    Each replication draws ``num_prompts`` success rates from ``law`` and ``num_samples`` samples of
    each prompt. The truth is J_k of the law for ``prompts="new"`` and the mean of pass@k of the
    prompts drawn for "fixed".

    :returns: One row a method and k with ``truth`` (its mean), ``coverage``, the exact 95 %
        binomial interval ``low``, ``high`` of the coverage, and ``width``, the median length of the
        interval. Methods: "score" (:func:`passgrad.stats.pass_at_k_interval`), "normal" (estimate
        -+ t standard errors of the sample), "bootstrap" (percentile, over prompts), and "band": one
        row, k = 0, that says how often :func:`passgrad.stats.pass_at_k_band` holds the truth at all
        k at once.
    :raises UserError: For k beyond the samples and for an unknown method.
    """
    import pandas as pd

    check_level(level)
    intervals.check_prompts(prompts)
    wanted = order_array(ks)
    pass_at_k(num_samples, 0, wanted)
    unknown = set(methods) - {"score", "normal", "bootstrap", "band"}
    if unknown:
        raise UserError(f"no method {sorted(unknown)[0]!r}: score, normal, bootstrap or band")
    rng = np.random.default_rng(seed)
    rates = law.sample(rng, (replications, num_prompts))
    counts = _batch(rng.binomial(num_samples, rates), num_samples)
    if prompts == "new":
        truth = np.broadcast_to(law.pass_at_k(wanted), (replications, wanted.size))
    else:
        truth = _fixed_truth(rates, wanted)
    rows = []
    for method in methods:
        if method == "score":
            low, high = intervals.intervals(counts, wanted, level, prompts)
        elif method == "normal":
            low, high = _normal(counts, wanted, level, prompts)
        elif method == "bootstrap":
            low, high = _bootstraps(counts, wanted, level, num_resamples, seed)
        else:
            low, high, _ = intervals.band(counts, wanted, level, prompts, seed=seed, draws=draws)
        # An interval that ends at the truth itself holds it, whatever the rounding.
        held = (low <= truth + 1e-12) & (truth <= high + 1e-12)
        facts = {"law": law.name, "prompts": num_prompts, "samples": num_samples, "method": method}
        if method == "band":
            rows.append(_row(held.all(axis=1), **facts, k=0, truth=np.nan, width=np.nan))
            continue
        width = np.median(high - low, axis=0)
        for place, k in enumerate(wanted.tolist()):
            mean = float(truth[:, place].mean())
            rows.append(_row(held[:, place], **facts, k=k, truth=mean, width=float(width[place])))
    return pd.DataFrame(rows)


def percent_cells(table: pd.DataFrame) -> pd.Series:
    """The coverage of each row in percent as text: "95.3±0.7", the longer side of its interval."""
    value = table["coverage"]
    sides = table[["high", "low"]].sub(value, axis=0).abs()
    error = sides.max(axis=1)
    return (100 * value).map("{:.1f}".format) + "±" + (100 * error).map("{:.1f}".format)


def _normal(
    counts: Tally, ks: NDArray[np.int64], level: float, prompts: Prompts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate -+ t standard errors: of the sample, or of the unbiased variance within."""
    from scipy.stats import t

    from passgrad.stats.variance import pass_at_k_variance_estimate

    values = counts.values(ks)
    mean = counts.mean(values)
    if prompts == "new":
        variance = np.diagonal(counts.covariance(values), axis1=-2, axis2=-1)
    else:
        table = pass_at_k_variance_estimate(counts.n[:, None], counts.c[:, None], ks)
        variance = counts.mean(np.asarray(table))
    half = np.sqrt(np.maximum(variance, 0) / counts.num_prompts)
    half = half * t.ppf((1 + level) / 2, counts.num_prompts - 1)
    return mean - half, mean + half


def _bootstraps(
    counts: Tally, ks: NDArray[np.int64], level: float, num_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ends = [
        intervals.bootstrap_interval(
            Tally(counts.n, counts.c, weight, counts.num_prompts),
            ks, level, seed=seed + place, num_resamples=num_resamples,
        )
        for place, weight in enumerate(counts.weight)
    ]  # fmt: skip
    low, high = np.stack(ends, axis=1)
    return low, high


def simulate_change_coverage(
    law: SuccessLaw,
    law_after: SuccessLaw,
    num_prompts: int,
    num_samples: int,
    ks: ArrayLike,
    *,
    kept: float = 0.5,
    replications: int = 2000,
    level: float = 0.95,
    prompts: Prompts = "new",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the intervals of :func:`passgrad.stats.paired_change` hold the true changes.

    Before, success rates are drawn from ``law``; after, a prompt keeps its rate with probability
    ``kept`` and gets one from ``law_after`` otherwise. One row a k with the coverage of the
    interval of that k alone, and a row k = 0 for the joint intervals: all changes held at once.
    Columns as in :func:`simulate_coverage`.
    """
    import pandas as pd

    check_level(level)
    intervals.check_prompts(prompts)
    wanted = order_array(ks)
    pass_at_k(num_samples, 0, wanted)
    if not 0 <= kept <= 1:
        raise UserError(f"kept is a probability, got {kept}")
    rng = np.random.default_rng(seed)
    shape = (replications, num_prompts)
    rates = law.sample(rng, shape)
    rates_after = np.where(rng.random(shape) < kept, rates, law_after.sample(rng, shape))
    correct, correct_after = (rng.binomial(num_samples, r) for r in (rates, rates_after))
    size = num_samples + 1
    pair = _batch(correct * size + correct_after, size * size - 1)
    n = np.full(size * size, float(num_samples))
    outcome = pair.c
    before = Tally(n, outcome // size, pair.weight, num_prompts)
    after = Tally(n, outcome % size, pair.weight, num_prompts)
    if prompts == "new":
        change = (1 - kept) * (law_after.pass_at_k(wanted) - law.pass_at_k(wanted))
        truth = np.broadcast_to(change, (replications, wanted.size))
    else:
        truth = _fixed_truth(rates_after, wanted) - _fixed_truth(rates, wanted)
    facts = {"law": law.name, "prompts": num_prompts, "samples": num_samples}
    rows = []
    for joint in (False, True):
        low, high, *_ = changes(
            before, after, wanted, level, prompts, joint, seed=seed, draws=draws
        )
        held = (low <= truth + 1e-12) & (truth <= high + 1e-12)
        width = np.median(high - low, axis=0)
        if joint:
            name = facts | {"method": "joint", "k": 0, "truth": np.nan, "width": np.nan}
            rows.append(_row(held.all(axis=1), **name))
            continue
        for place, k in enumerate(wanted.tolist()):
            name = facts | {"method": "paired", "k": k, "truth": float(truth[:, place].mean())}
            rows.append(_row(held[:, place], **name, width=float(width[place])))
    return pd.DataFrame(rows)
