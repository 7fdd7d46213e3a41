"""The prompts whose success rate rose or fell between two windows, one by one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from passgrad.measurement.logs.change import Pair
from passgrad.measurement.logs.visits import Visits

Array = NDArray[np.float64]


def p_values(pair: Pair) -> tuple[Array, Array]:
    """One-sided p-values of Fisher's exact test: that the rate did not rise, that it did not fall;
    (M,) each.
    """
    from scipy.stats import hypergeom

    n, c, n_after, c_after = (
        pair.samples_before, pair.correct_before, pair.samples_after, pair.correct_after
    )  # fmt: skip
    law = hypergeom(n + n_after, c + c_after, n_after)
    rose = np.asarray(law.sf(c_after - 1))
    fell = np.asarray(law.cdf(c_after))
    return rose, fell


def adjusted(p: Array) -> Array:
    """p-values adjusted by Benjamini and Hochberg (1995): those at most q are findings among which
    a share of at most q is expected to be false.
    """
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(np.clip(p, 0, 1), method="bh"))


def prompt_table(visits: Visits, pair: Pair, rate: float) -> pd.DataFrame:
    """One row a prompt of the pair, the largest falls first: id, group, text, counts, rates,
    change, adjusted p-value of the two-sided test and what was found: "rose", "fell" or "open".

    :param rate: The share of false findings that is borne among those that rose and fell.
    """
    rose, fell = p_values(pair)
    adjusted_p = adjusted(np.minimum(2 * np.minimum(rose, fell), 1.0))
    before = pair.correct_before / pair.samples_before
    after = pair.correct_after / pair.samples_after
    change = after - before
    finding = np.where(adjusted_p > rate, "open", np.where(change < 0, "fell", "rose"))
    table = pd.DataFrame(
        {
            "prompt_id": [visits.prompt_ids[place] for place in pair.prompt],
            "group": [visits.groups[place] if visits.groups else "" for place in pair.prompt],
            "prompt": [visits.texts[place] if visits.texts else "" for place in pair.prompt],
            "samples_before": pair.samples_before,
            "correct_before": pair.correct_before,
            "samples_after": pair.samples_after,
            "correct_after": pair.correct_after,
            "rate_before": before,
            "rate_after": after,
            "change": change,
            "adjusted_p": adjusted_p,
            "finding": finding,
        }
    )
    return table.sort_values(["change", "prompt_id"], ignore_index=True)
