"""Changes of pass@1 and pass@k between two checkpoints on the same prompts, taken together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.stats import components
from passgrad.stats.binomial import check_level
from passgrad.stats.interval import Interval, WithInterval
from passgrad.stats.intervals import (
    Prompts,
    check_prompts,
    correlation_of,
    dispersion,
    score_interval,
    simultaneous_critical,
)
from passgrad.stats.tally import Tally, check_counts, order_array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PairedChange(WithInterval):
    """Changes of pass@k at several k, with intervals that hold at all of them at once; (K,).

    ``correlation`` (K, K) is that of the estimated changes, ``critical`` the number of standard
    errors that the intervals take.
    """

    ks: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    interval: Interval
    correlation: NDArray[np.float64]
    critical: float
    level: float

    @property
    def change(self) -> NDArray[np.float64]:
        """The estimated changes, after minus before."""
        return np.asarray(self.interval.value)

    def to_frame(self) -> pd.DataFrame:
        """One row a k: k, before, after, change, low, high."""
        import pandas as pd

        sides = {"k": self.ks, "before": self.before, "after": self.after}
        return pd.DataFrame(sides | self.interval.columns("change"))


def paired_change(
    num_samples: ArrayLike,
    correct_before: ArrayLike,
    correct_after: ArrayLike,
    ks: ArrayLike,
    *,
    num_samples_after: ArrayLike | None = None,
    level: float = 0.95,
    prompts: Prompts = "new",
    simultaneous: bool = True,
    seed: int = 0,
    draws: int = 20_000,
) -> PairedChange:
    """The changes of pass@k, k in ``ks``, between two checkpoints on the same P prompts.

    The counts are aligned by prompt; ``num_samples_after`` is ``num_samples`` by default. The
    intervals hold for all ``ks`` at once with probability ``level``: a fall of pass@1 and a rise
    of pass@k can be read off together. ``simultaneous=False`` gives each its own interval.

    The interval of a difference is put together from the score intervals of its two sides and
    their correlation (Zou and Donner, 2008), so it keeps a length where both are near 1. With
    ``prompts="fixed"`` the two sides are independent, since their samples are.

    :raises UserError: For fewer than two prompts, counts that are not aligned and k beyond the
        samples of a prompt.
    """
    check_level(level)
    check_prompts(prompts)
    after_size = num_samples if num_samples_after is None else num_samples_after
    sides = [check_counts(num_samples, correct_before), check_counts(after_size, correct_after)]
    if sides[0][0].shape != sides[1][0].shape:
        raise UserError(
            f"the counts before are of {sides[0][0].size} prompts, those after of "
            f"{sides[1][0].size}: a paired change needs the same prompts in the same order"
        )
    wanted = order_array(ks)
    cells, weight = np.unique(np.stack([*sides[0], *sides[1]]), axis=1, return_counts=True)
    share = weight.astype(np.float64)
    pair = [Tally(cells[i], cells[i + 1], share, int(weight.sum())) for i in (0, 2)]
    found = changes(pair[0], pair[1], wanted, level, prompts, simultaneous, seed=seed, draws=draws)
    before, after = (side.mean(side.values(wanted)) for side in pair)
    low, high, correlation, critical = found
    interval = Interval(after - before, low=low, high=high)
    return PairedChange(wanted, before, after, interval, correlation, float(critical), level)


def changes(
    before: Tally,
    after: Tally,
    ks: NDArray[np.int64],
    level: float,
    prompts: Prompts,
    simultaneous: bool = True,
    **draw: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The ends (..., K), the correlation (..., K, K) and the critical value of the changes.

    The two tallies list the same pairs of outcomes with the same multiplicities.
    """
    old, new = before.values(ks), after.values(ks)
    sides_alone = before.collapsed(), after.collapsed()
    if prompts == "new":
        correlation = correlation_of(before.covariance(new - old))
        both = before.covariance(np.concatenate([old, new], axis=1))
        size = len(ks)
        sides = np.diagonal(correlation_of(both), offset=size, axis1=-2, axis2=-1)
    else:
        covariance = sum(components.within_covariance(side, ks) for side in sides_alone)
        correlation = correlation_of(np.asarray(covariance))
        sides = np.zeros(before.mean(old).shape)
    degrees = before.num_prompts - 1
    each = correlation if simultaneous else correlation[..., :1, :1]
    critical = simultaneous_critical(each, degrees, level, **draw)
    ends = []
    for side in sides_alone:
        phi = dispersion(side, ks, prompts)
        mean = side.mean(side.values(ks))
        low, high = score_interval(mean, phi, side.num_prompts, critical[..., None])
        ends.append((mean, mean - low, high - mean))
    (start, start_down, start_up), (end, end_down, end_up) = ends
    down = np.sqrt(np.maximum(end_down**2 - 2 * sides * end_down * start_up + start_up**2, 0))
    up = np.sqrt(np.maximum(end_up**2 - 2 * sides * end_up * start_down + start_down**2, 0))
    change = end - start
    return change - down, change + up, correlation, critical
