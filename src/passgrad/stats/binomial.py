"""Intervals for the success rate of one prompt, from the count of its correct samples."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k


def check_level(level: float) -> None:
    """Raise UserError unless the nominal coverage lies strictly between 0 and 1."""
    if not 0 < level < 1:
        raise UserError(f"level must lie strictly between 0 and 1, got {level}")


def success_interval(
    num_correct: ArrayLike,
    num_samples: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["exact", "wilson", "jeffreys"] = "exact",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two-sided interval (low, high) for the success rate of each prompt, from c of n.

    "exact" (Clopper and Pearson, 1934) covers the true rate with at least the nominal probability
    whatever it is, and therefore mostly with more; "wilson" (Wilson, 1927) inverts the score test
    and "jeffreys" takes the quantiles of the posterior Beta(c + 1/2, n - c + 1/2), with the ends 0
    at c = 0 and 1 at c = n (Brown, Cai and DasGupta, 2001): these two cover with about the nominal
    probability on average over rates, less for some, and are narrower.
    The arguments broadcast.

    :raises UserError: For c outside 0..n, n < 1, a level outside (0, 1) or an unknown method.

    >>> [round(float(end), 3) for end in success_interval(3, 10)]
    [0.067, 0.652]
    """
    from scipy.special import betaincinv, ndtri

    check_level(level)
    # pass@1 is c / n; computing it validates both counts.
    rate = np.asarray(pass_at_k(num_samples, num_correct, 1))
    n = np.broadcast_to(np.asarray(num_samples, dtype=np.float64), rate.shape)
    c = np.broadcast_to(np.asarray(num_correct, dtype=np.float64), rate.shape)
    tail = (1 - level) / 2
    if method == "exact":
        # At c = 0 and c = n a parameter of the beta law is 0: the end point is 0 or 1 itself.
        low = np.where(c > 0, betaincinv(np.maximum(c, 1), n - c + 1, tail), 0.0)
        high = np.where(c < n, betaincinv(c + 1, np.maximum(n - c, 1), 1 - tail), 1.0)
        return low, high
    if method == "wilson":
        z2 = ndtri((1 + level) / 2) ** 2
        centre = (c + z2 / 2) / (n + z2)
        half = np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n**2))) / (1 + z2 / n)
        # The ends are 0 and 1 exactly at c = 0 and c = n, but for rounding.
        low = np.where(c > 0, centre - half, 0.0)
        return low, np.where(c < n, centre + half, 1.0)
    if method == "jeffreys":
        low = np.where(c > 0, betaincinv(c + 0.5, n - c + 0.5, tail), 0.0)
        return low, np.where(c < n, betaincinv(c + 0.5, n - c + 0.5, 1 - tail), 1.0)
    raise UserError(f'method must be "exact", "wilson" or "jeffreys", got {method!r}')
