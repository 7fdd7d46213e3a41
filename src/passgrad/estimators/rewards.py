"""What comes in: rewards of n samples a prompt, checked once, and the traps they can hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Trainers add up to 1e-4 to the deviation they divide by, and that of binary rewards may be 0.06.
_DEVIATION_SLACK = 5e-3
_MEAN_SLACK = 1e-4


def as_rewards(rewards: Any) -> tuple[Tensor, bool]:
    """The (P, n) rewards as a floating tensor, and whether all of them are 0 or 1.

    Floating tensors keep their dtype and device, anything else becomes float64.
    Raises UserError for another shape, for rewards that are not numbers, and for nan or infinity.
    """
    try:
        tensor = torch.as_tensor(rewards).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            "rewards must be numbers, as many for each prompt, in an array of prompts by samples"
        ) from error
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise UserError(
            f"rewards must have the shape (prompts, samples), got {tuple(tensor.shape)}"
        )
    if tensor.dtype not in _FLOATS:
        if tensor.is_complex():
            raise UserError("rewards must be real numbers")
        tensor = tensor.double()
    # A nan fails the first comparison; infinity is its own square and fails the second.
    if torch.equal(tensor * tensor, tensor) and bool(tensor.amax() <= 1):
        return tensor, True
    finite = torch.isfinite(tensor)
    if not finite.all():
        prompt, sample = (~finite).nonzero()[0].tolist()
        raise UserError(
            f"rewards[{prompt}, {sample}] is {tensor[prompt, sample].item()}: "
            "give every sample a finite reward, 0 for one without an answer"
        )
    return tensor, False


def refuse_graded(rewards: Tensor, name: str) -> None:
    """Raise the UserError of an estimator that is defined for binary rewards only."""
    prompt, sample = ((rewards != 0) & (rewards != 1)).nonzero()[0].tolist()
    raise UserError(
        f"{name} is defined for rewards of 0 and 1, but rewards[{prompt}, {sample}] is "
        f"{rewards[prompt, sample].item():g}: threshold the verifier's score first"
    )


def is_group_standardised(values: Any) -> bool:
    r"""Whether (P, n) values look as if each row had been centred and divided by its deviation.

    That is: every row has mean 0 and standard deviation 1 (with either convention), or is 0.
    Within a group of binary rewards, any transform is affine, :math:`A_i = a(c) + b(c) r_i`, and
    standardising removes :math:`a` and all of :math:`b` but its sign. Whatever pass@k advantages
    were computed before, what is left is that of GRPO, with no k in it.

    Rewards that are only -1, 0 and 1 are never taken for standardised ones: a group of as many 1
    as -1 would look so.

    :raises UserError: As :func:`as_rewards`.

    >>> is_group_standardised([[1.5, -0.5, -0.5, -0.5]]), is_group_standardised([[1, 0, 0, 0]])
    (True, False)
    """
    tensor, binary = as_rewards(values)
    return not binary and _looks_standardised(tensor)


def _looks_standardised(tensor: Tensor) -> bool:
    # A few rows settle it for raw rewards; only what passes is looked at in full.
    if tensor.shape[1] < 2 or not _rows_standardised(tensor[:8]):
        return False
    return _rows_standardised(tensor) and bool((tensor.abs() * (1 - tensor.abs()) != 0).any())


def _rows_standardised(rows: Tensor) -> bool:
    """Whether every row is 0, or has mean 0 and deviation 1."""
    rows = rows.double()
    zero = (rows == 0).all(dim=1)
    centred = rows.mean(dim=1).abs() < _MEAN_SLACK
    unit = torch.zeros_like(zero)
    for correction in (0, 1):
        unit |= (rows.std(dim=1, correction=correction) - 1).abs() < _DEVIATION_SLACK
    return bool((zero | (centred & unit)).all())


def refuse_standardised(values: Tensor, k: Any) -> None:
    """Raise a UserError if the rewards look group-standardised (see is_group_standardised)."""
    if _looks_standardised(values):
        raise UserError(
            "the rewards look standardised within each group (mean 0, deviation 1), which cancels "
            f"every transform for k = {k}: give the raw rewards, and standardise nothing afterwards"
        )
