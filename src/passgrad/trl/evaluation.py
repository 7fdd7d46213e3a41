"""pass@1 and pass@k of held-out prompts during training, with intervals.

The interval is for prompts of this kind: the P prompts count as a sample of a law
(:func:`passgrad.stats.pass_at_k_interval`). Of graded rewards it is the t-interval of the means
over k-subsets of their best.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import stats
from torch import Tensor

from passgrad.stats import pass_at_k_interval
from passgrad.trl.groups import max_at_k


def held_out_metrics(
    rewards: Tensor, orders: Iterable[int], level: float = 0.95
) -> dict[str, float]:
    """(P, n) rewards, nan where there is none -> pass@k with its ends, as "pass@8_low".

    Groups with fewer than k rewards do not count for that k; an order that fewer than two groups
    have is left out.
    """
    metrics: dict[str, float] = {}
    given = (~rewards.isnan()).sum(1)
    known = rewards[~rewards.isnan()]
    binary = bool(((known == 0) | (known == 1)).all())
    for k in sorted(set(orders)):
        enough = given >= k
        if int(enough.sum()) < 2:
            continue
        if binary:
            right = rewards[enough].nansum(1).numpy()
            mean, low, high = pass_at_k_interval(given[enough].numpy(), right, k, level=level)
        else:
            values = max_at_k(rewards[enough], k).numpy()
            mean = float(values.mean())
            reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1)
            low, high = (mean + sign * reach / len(values) ** 0.5 for sign in (-1, 1))
        metrics |= {f"pass@{k}": mean, f"pass@{k}_low": low, f"pass@{k}_high": high}
    return {name: float(value) for name, value in metrics.items()}
