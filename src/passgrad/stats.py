"""Intervals: of one prompt's success rate over its samples, of pass@k over the prompts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k


def success_interval(
    num_correct: ArrayLike,
    num_samples: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["exact", "wilson"] = "exact",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two-sided interval (low, high) for the success rate of each prompt, from c of n.

    "exact" (Clopper-Pearson) covers the true rate with at least the nominal probability whatever
    it is; "wilson" covers it with about that probability on average, and is narrower.
    The arguments broadcast. Raises UserError for c outside 0..n, n < 1, a level outside (0, 1)
    or an unknown method.
    """
    from scipy.special import betaincinv, ndtri

    _check_level(level)
    # pass@1 is c / n; computing it validates both counts.
    rate = np.asarray(pass_at_k(num_samples, num_correct, 1))
    n = np.broadcast_to(np.asarray(num_samples, dtype=np.float64), rate.shape)
    c = np.broadcast_to(np.asarray(num_correct, dtype=np.float64), rate.shape)
    if method == "exact":
        tail = (1 - level) / 2
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
    raise UserError(f'method must be "exact" or "wilson", got {method!r}')


def pass_at_k_interval(
    num_samples: ArrayLike,
    num_correct: ArrayLike,
    k: int,
    *,
    level: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> tuple[float, float, float]:
    """The mean over prompts of the unbiased pass@k, with a bootstrap interval: (mean, low, high).

    The prompts are resampled, the samples within a prompt are not. A prompt's estimate is an
    independent draw whose spread already holds both sources of noise, the choice of the prompt
    and its n samples, so resampling prompts carries both. Resampling the samples as well would
    count their noise twice, and with repeated samples the estimate is no longer unbiased: it
    turns into the plug-in 1 - (1 - c / n)^k, which is too low.

    Raises UserError for fewer than two prompts, where nothing can be said about their spread.
    """
    _check_level(level)
    values = np.atleast_1d(pass_at_k(num_samples, num_correct, k))
    num_prompts = values.size
    if values.ndim != 1 or num_prompts < 2:
        raise UserError(
            "an interval over prompts needs the counts of at least 2 prompts, "
            f"got an array of shape {values.shape}"
        )
    rng = np.random.default_rng(seed)
    multiplicities = rng.multinomial(
        num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_resamples
    )
    means = multiplicities @ values / num_prompts
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level must lie strictly between 0 and 1, got {level}")
