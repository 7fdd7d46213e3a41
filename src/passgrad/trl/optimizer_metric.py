r"""The metric of an optimiser: how its step follows from a gradient.

Adam and AdamW step along :math:`D g` with :math:`D = 1 / (\sqrt{\hat v} + \epsilon)`, entry by
entry, so that to first order J changes along a gradient g by :math:`\langle \nabla J, D g \rangle`.
Under them it is products in this metric that say whether one objective pays for another. D is that
of the steps before; the mean of past gradients that Adam adds to a step is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: optimisers whose step is along the gradient, whose metric is the plain one
_PLAIN = ("SGD", "ASGD")


def inverse_metric(optimizer: Any, parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """D of the trained parameters, flat in their order, (d,); None where it is not known.

    It is read where every trained parameter has the second moment of Adam (``exp_avg_sq``) in its
    own shape, and a step count. That is so for Adam, AdamW, NAdam and RAdam of torch from their
    first step on, and not for optimisers that keep it in eight bits, in factors, or in a flat
    buffer that processes share.
    """
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer  # accelerate's wrapper
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    pieces = []
    for weight in parameters:
        if not weight.requires_grad:
            continue
        state, group = optimizer.state.get(weight, {}), groups.get(id(weight))
        moment, step = state.get("exp_avg_sq"), state.get("step")
        known = isinstance(moment, Tensor) and moment.shape == weight.shape and step is not None
        if group is None or not known or not moment.is_floating_point() or float(step) < 1:
            return None
        unbiased = moment / (1 - group["betas"][1] ** float(step))
        pieces.append((1 / (unbiased.float().sqrt() + group["eps"])).reshape(-1))
    return torch.cat(pieces) if pieces else None


def metric_note(optimizer: Any) -> str:
    """One line on the metric that a measurement takes, for the record of a run."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    name = type(optimizer).__name__
    if name in _PLAIN:
        return f"plain, which is that of {name}"
    if "Adam" in name and "8" not in name:
        return f"that of {name}; plain until its first step"
    return f"plain, since the metric of {name} is not known: it holds for steps along the gradient"
