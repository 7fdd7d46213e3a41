r"""The metric that a trainer's optimiser moves in, read from its state.

A step of Adam along a gradient g is :math:`D g` with the diagonal
:math:`D = 1 / (\sqrt{\hat v} + \epsilon)`, and :math:`\hat v` the second moments without their bias
of the start. What J_1 changes by along a combination of two gradients is then a matter of the
products :math:`\langle u, D v \rangle`, not of plain ones. Learning rates that differ between
groups of parameters are part of D. Momentum, which spreads a step over later ones, is left out, and
so is what the gradient of a step adds to :math:`\hat v` by itself.

*Scale.* D falls by orders of magnitude in the first steps, and a mean of raw products would be one
of the early ones. Each product is divided by :math:`\sum_i D_i \hat v_i`, the squared length that
the second moments expect of a gradient. It comes from the steps before, so that products without
bias stay so; a division by their own noisy trace would not leave them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: optimisers of torch -> where their second moments are, and whether these have a bias of the start
_SECOND: Mapping[type, tuple[str, bool]] = {
    torch.optim.Adam: ("exp_avg_sq", True),
    torch.optim.AdamW: ("exp_avg_sq", True),
    torch.optim.NAdam: ("exp_avg_sq", True),
    torch.optim.RMSprop: ("square_avg", False),
    torch.optim.Adagrad: ("sum", False),
}


def local(values: Tensor) -> Tensor:
    """The share of this process of a tensor of FSDP2; any other tensor as it is."""
    share: Tensor = values.to_local() if hasattr(values, "to_local") else values
    return share


def optimiser_metric(
    optimizer: Any, parameters: Sequence[nn.Parameter], add_up: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor | None, str]:
    """The diagonal of the metric on this process's shares of the trained parameters, (d,), divided
    as above, with the name of the optimiser; None with the reason why it is the plain metric, and
    without one where the optimiser moves in the plain metric.

    :param add_up: Adds a tensor up over processes that hold shares; None where each holds all.
    """
    optimizer = _unwrapped(optimizer)
    if optimizer is None:
        return None, "there is no optimizer yet"
    name = type(optimizer).__name__
    trained = [one for one in parameters if one.requires_grad]
    groups = {id(one): group for group in optimizer.param_groups for one in group["params"]}
    if not all(id(one) in groups for one in trained):
        return None, f"{name} does not hold all trained parameters"
    rates = [float(groups[id(one)]["lr"]) for one in trained]
    # At a learning rate of 0, as before a warm-up, nothing tells groups from each other.
    shares = [rate / max(rates) if max(rates) > 0 else 1.0 for rate in rates]
    if type(optimizer) is torch.optim.SGD and min(shares) == 1:
        return None, ""
    if type(optimizer) not in _SECOND or any(group.get("centered") for group in groups.values()):
        return None, f"the metric of {name} is not known"
    pieces, moments = [], []
    for one, share in zip(trained, shares, strict=True):
        second = _second(optimizer, one, groups[id(one)])
        moments.append(second)
        # Where no gradient came so far nothing is known of the step, and 1 / eps would drown all.
        steps = share / (second.sqrt() + groups[id(one)]["eps"])
        pieces.append(torch.where(second > 0, steps, 0.0))
    diagonal = torch.cat(pieces)
    length = (diagonal.double() * torch.cat(moments).double()).sum()
    length = length if add_up is None else add_up(length)
    if not (length > 0 and length.isfinite()):
        return None, f"{name} has no second moments yet"
    return diagonal.div_(length.to(diagonal)), name


def metric_note(optimizer: Any) -> str:
    """One line on the metric that a measurement takes, for the record of a run."""
    optimizer = _unwrapped(optimizer)
    name = type(optimizer).__name__
    if type(optimizer) is torch.optim.SGD:
        return "plain, which is that of SGD"
    if type(optimizer) in _SECOND:
        return f"that of {name}; plain until its first step"
    return f"plain, since the metric of {name} is not known: it holds for steps along the gradient"


def _unwrapped(optimizer: Any) -> Any:
    """Without the wrappers of accelerate."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _second(optimizer: Any, parameter: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
    """The second moments of the local share of a parameter, without the bias of the start; zeros
    before its first gradient.
    """
    key, biased = _SECOND[type(optimizer)]
    state = optimizer.state.get(parameter, {})
    values = state.get("max_exp_avg_sq" if group.get("amsgrad") else key)
    if values is None:
        return torch.zeros_like(local(parameter.detach()), dtype=torch.float32).flatten()
    plain = local(values).float().flatten()
    return plain / (1 - group["betas"][1] ** float(state["step"])) if biased else plain
