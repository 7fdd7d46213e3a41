r"""The metric that a trainer's optimiser moves in, read from its state.

A step of Adam along a gradient g is :math:`D g` with the diagonal
:math:`D = 1 / (\sqrt{\hat v} + \epsilon)`, and :math:`\hat v` the second moments without their bias
of the start. What J_1 changes by along a combination of two gradients is then a matter of the
products :math:`\langle u, D v \rangle`, not of plain ones. Momentum, which spreads a step over
later ones, is left out.

*Scale.* D falls by orders of magnitude in the first steps, and a mean of raw products would be one
of the early ones. Each product is divided by :math:`\sum_i D_i \hat v_i`, the squared length that
the second moments expect of a gradient. It comes from the steps before, so that products without
bias stay so; a division by their own noisy trace would not leave them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: torch's own optimisers whose second moments are read.
_KNOWN = (torch.optim.Adam, torch.optim.AdamW)


def local(values: Tensor) -> Tensor:
    """The share of this process of a tensor of FSDP2; any other tensor as it is."""
    share: Tensor = values.to_local() if hasattr(values, "to_local") else values
    return share


def optimiser_metric(
    optimizer: Any, parameters: Sequence[nn.Parameter], add_up: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor | None, str]:
    """The diagonal of the metric on this process's shares of the trained parameters, (d,), divided
    as above, with the name of the optimiser; None with the reason why it is the plain metric.

    :param add_up: Adds a tensor up over processes that hold shares; None where each holds all.
    """
    while hasattr(optimizer, "optimizer"):  # the wrappers of accelerate
        optimizer = optimizer.optimizer
    if optimizer is None:
        return None, "there is no optimizer yet"
    name = type(optimizer).__name__
    if type(optimizer) not in _KNOWN:
        return None, f"the metric of {name} is not known"
    groups = {id(one): group for group in optimizer.param_groups for one in group["params"]}
    pieces, moments = [], []
    for one in parameters:
        if not one.requires_grad:
            continue
        state, group = optimizer.state.get(one, {}), groups.get(id(one))
        if group is None:
            return None, f"{name} does not hold all trained parameters"
        second = state.get("max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq")
        if second is None:
            # Not one gradient came here so far: the step of Adam is none either.
            pieces.append(torch.zeros_like(local(one.detach()), dtype=torch.float32).flatten())
            moments.append(pieces[-1])
            continue
        corrected = local(second).float().flatten() / (
            1 - group["betas"][1] ** float(state["step"])
        )
        pieces.append(1 / (corrected.sqrt() + group["eps"]))
        moments.append(corrected)
    diagonal = torch.cat(pieces)
    length = (diagonal.double() * torch.cat(moments).double()).sum()
    length = length if add_up is None else add_up(length)
    if not (length > 0 and length.isfinite()):
        return None, f"{name} has no second moments yet"
    return diagonal.div_(length.to(diagonal)), name
