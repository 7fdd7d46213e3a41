"""pass@k of sampled answers, estimated without bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from passgrad.errors import UserError

# exp(-40) is less than a tenth of the distance from 1 to the next float below it.
_CERTAIN = 40.0


def pass_at_k(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike
) -> float | NDArray[np.float64]:
    r"""The unbiased estimate 1 - C(n - c, k) / C(n, k) of pass@k, from n samples with c correct.

    It is the share of the k-subsets of the samples that hold a correct one (Chen et al., 2021).
    The arguments broadcast; the result is a float where all are scalars. The ratio is symmetric
    in c and k and equals

    .. math:: \prod_{i < \min(c, k)} \Bigl(1 - \frac{\max(c, k)}{n - i}\Bigr),

    which is added up in logarithms: no binomial coefficient is formed, nothing cancels, and small
    estimates keep their relative accuracy for n of a million and beyond.

    :raises UserError: For counts that are not whole numbers, k < 1, k > n, c < 0 or c > n.

    >>> pass_at_k(10, 3, 5)
    0.9166666666666666
    """
    n = _whole_numbers(num_samples, "num_samples")
    c = _whole_numbers(num_correct, "num_correct")
    orders = _whole_numbers(k, "k")
    try:
        n, c, orders = np.broadcast_arrays(n, c, orders)
    except ValueError as error:
        raise UserError(
            f"num_samples {n.shape}, num_correct {c.shape} and k {orders.shape} do not broadcast"
        ) from error
    _refuse(orders < 1, "k must be at least 1, got k = {}", orders)
    _refuse(orders > n, "k = {} exceeds num_samples = {}: draw more samples", orders, n)
    _refuse(c < 0, "num_correct must not be negative, got {}", c)
    _refuse(c > n, "num_correct = {} exceeds num_samples = {}", c, n)

    few, many = np.minimum(c, orders), np.maximum(c, orders)
    # The product is at most exp(-few * many / n), and zero where k samples cannot all be wrong.
    certain = (n - c < orders) | (few * many > _CERTAIN * n)
    factors = np.where(certain, 0.0, few)
    log_failure = np.zeros(n.shape)
    for i in range(int(factors.max(initial=0))):
        active = i < factors
        log_failure[active] += np.log1p(-many[active] / (n[active] - i))
    estimate = np.where(certain, 1.0, 0.0 - np.expm1(log_failure))
    return float(estimate) if estimate.ndim == 0 else estimate


def binary_rewards(rewards: ArrayLike) -> NDArray[np.int64]:
    """The (P, n) rewards of n samples for each of P prompts, as integers in {0, 1}.

    Raises UserError for another shape, and for the first entry that is neither 0 nor 1.
    """
    try:
        array = np.asarray(rewards, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            "rewards must be numbers, as many for each prompt, in an array of prompts by samples"
        ) from error
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"rewards must have the shape (prompts, samples), got {array.shape}")
    wrong = np.argwhere((array != 0) & (array != 1))
    if len(wrong):
        prompt, sample = wrong[0]
        raise UserError(
            f"rewards[{prompt}, {sample}] is {array[prompt, sample]:g}: "
            "every reward must be 0 or 1, threshold the verifier's score first"
        )
    return array.astype(np.int64)


def _whole_numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """The values as float64, in which whole numbers up to 2^53 are exact."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be whole numbers, got {values!r}") from error
    whole = np.isfinite(array) & (array == np.round(array))
    _refuse(~whole, name + " must be whole numbers, got {}", array)
    return array


def _refuse(wrong: NDArray[np.bool_], message: str, *values: NDArray[np.float64]) -> None:
    """Raise a UserError with the first offending values."""
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        raise UserError(message.format(*(f"{value[first]:g}" for value in values)))
