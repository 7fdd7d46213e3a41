r"""Where the weight of pass@k lies among the prompts of a log, and which groups are silent.

The weight of a prompt is :math:`w_k(p) = k (1 - p)^{k - 1}`. A prompt without a right answer gives
no gradient in a sample, whatever it weighs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from passgrad.estimators import get_estimator
from passgrad.measurement.logs.change import mean_with_band, weights
from passgrad.measurement.logs.visits import IntArray, Visits
from passgrad.metrics import pass_at_k
from passgrad.orders import Orders

Array = NDArray[np.float64]

# Advantages are of order 1 / n; rounding leaves less than this.
_ZERO = 1e-12


def weight_table(
    num_samples: IntArray,
    num_correct: IntArray,
    ks: Orders,
    *,
    masses: Array | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row an order k: how pass@k weighs M prompts with these counts.

    ``mean_weight`` is E[w_k(p)]. ``never_solved`` is the share of the weight on prompts without a
    right answer, with the ends of its interval over prompts. ``effective_prompts`` is the number
    (E w)^2 / E w^2 as a share of the prompts; nan where n < 2k - 2, which its second moment takes.

    :param masses: (M,) the weight of each prompt's stratum; equal by default.
    """
    share = np.full(len(num_samples), 1 / len(num_samples)) if masses is None else masses
    share = share / share.sum()
    known = [k for k in ks if k - 1 <= num_samples.min()]
    orders = Orders.of(known)
    weight = weights(num_samples, num_correct, orders)
    mean = weight @ share
    never = num_correct == 0
    fraction = (weight * never) @ share / mean
    # Ratio of means: its influence is that of the numerator less the ratio times the denominator.
    residual = (weight * (never[None] - fraction[:, None])) * share * len(share) / mean[:, None]
    spread = mean_with_band(residual, level)
    half = np.asarray(spread.high) - np.asarray(spread.value)
    second = np.array(
        [
            k * k * float((1 - np.asarray(_solved(num_samples, num_correct, 2 * k - 2))) @ share)
            if 2 * k - 2 <= num_samples.min()
            else np.nan
            for k in orders
        ]
    )
    return pd.DataFrame(
        {
            "k": list(orders),
            "mean_weight": mean,
            "never_solved": fraction,
            "low": np.clip(fraction - half, 0, 1),
            "high": np.clip(fraction + half, 0, 1),
            "effective_prompts": np.where(second > 0, mean**2 / second, np.nan),
        }
    )


def _solved(num_samples: IntArray, num_correct: IntArray, k: int) -> Array:
    return np.zeros(len(num_samples)) if k == 0 else np.asarray(
        pass_at_k(num_samples, num_correct, k)
    )  # fmt: skip


def silent_table(visits: Visits, ks: Orders, estimator: str = "pkpo-loo1") -> pd.DataFrame:
    """One row an order k: the share of the logged groups whose advantages are all zero.

    A group is one visit. ``silent``: all advantages of the estimator are zero. ``unsolved``: the
    groups without a right answer, which are among them. ``redrawn``: groups that dynamic sampling
    draws again, all right or all wrong; the same at every k. ``silent`` is nan where some group
    has fewer answers than the estimator takes.
    """
    n, c = visits.num_samples, visits.num_correct
    advantages = get_estimator(estimator)
    share = np.zeros(len(ks))
    for size in np.unique(n):
        right = np.bincount(c[n == size], minlength=size + 1)
        for place, k in enumerate(ks):
            if k > size or (k == size > 1):
                share[place] = np.nan
                continue
            plus, minus = (x[0].numpy() for x in advantages.coefficients(int(size), [k]))
            counts = np.arange(size + 1)
            quiet = ((np.abs(plus) < _ZERO) | (counts == 0)) & (
                (np.abs(minus) < _ZERO) | (counts == size)
            )
            share[place] += right[quiet].sum() / len(n)
    return pd.DataFrame(
        {
            "k": list(ks),
            "silent": share,
            "unsolved": float((c == 0).mean()),
            "redrawn": float(((c == 0) | (c == n)).mean()),
        }
    )


def selected(visits: Visits, least: float = 10.0) -> bool:
    """Whether groups that are all right or all wrong were left out of the log.

    None is there although ``least`` or more would be expected if every group of a prompt had the
    prompt's mean rate. Counts that were selected by their outcome give biased rates.
    """
    n, c = visits.num_samples, visits.num_correct
    several = n > 1
    if ((c == 0) | (c == n))[several].any():
        return False
    total = np.bincount(visits.prompt, weights=n, minlength=visits.num_prompts)
    right = np.bincount(visits.prompt, weights=c, minlength=visits.num_prompts)
    rate = (right / np.maximum(total, 1))[visits.prompt]
    expected = rate**n + (1 - rate) ** n
    return bool(expected[several].sum() >= least)
