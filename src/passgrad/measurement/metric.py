r"""The metric in which two gradients are multiplied: the plain one, or that of Adam.

A step of Adam without momentum moves the parameters along :math:`P^{-1} g_k` with the diagonal
:math:`P = \sqrt{\hat v} + \epsilon`, where :math:`\hat v` is the bias-corrected running mean of
squared minibatch gradients (Kingma and Ba, 2015). To first order it changes pass@1 in proportion to

.. math:: \langle g_1, P^{-1} g_k \rangle = \sum_i g_{1,i} \, g_{k,i} / P_i .

P comes from an optimizer in memory (:func:`adam_metric`), from a file
(:func:`read_adam_metric`), or from answers that are kept apart (:func:`shrunk`,
:func:`passgrad.measurement.parts.estimate_parts`).

Parameters with :math:`\hat v_i = 0` have never had a gradient, and Adam has never moved them. Taken
literally, P would be epsilon there, and the first answer that needs such a parameter would outweigh
all others by a factor of 10^8; they are left out, with :math:`P_i^{-1} = 0`.

To write the file that :func:`read_adam_metric` takes, from a ``torch.optim.Adam`` or ``AdamW``::

    from safetensors.torch import save_file
    names = {parameter: name for name, parameter in model.named_parameters()}
    moments = {names[p]: s["exp_avg_sq"].contiguous() for p, s in optimizer.state.items()}
    step, group = int(next(iter(optimizer.state.values()))["step"]), optimizer.param_groups[0]
    save_file(moments, "adam.safetensors", {"step": str(step), "beta2": str(group["betas"][1]), "eps": str(group["eps"])})
"""  # noqa: E501

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from passgrad.errors import UserError
from passgrad.lm.parameters import without_wrapper

#: of Adam in torch
EPSILON = 1e-8
_WRAPPER = "base_model.model."  # in front of names in a PeftModel


@dataclass(frozen=True, eq=False)
class Metric:
    """A diagonal metric: ``inverse`` has 1 / P by the name of the parameter, of its shape.

    None for the plain metric, P = 1.
    """

    name: str
    inverse: Mapping[str, Tensor] | None = None

    @cached_property
    def key(self) -> Tensor:
        """What tells this metric from others, for files that hold numbers of it: (32,) bytes."""
        found = hashlib.sha256(self.name.encode())
        for name, values in sorted((self.inverse or {}).items()):
            found.update(name.encode())
            found.update(
                values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)


PLAIN = Metric("plain")


def adam_metric(optimizer: torch.optim.Optimizer, model: nn.Module) -> Metric:
    """The metric of a ``torch.optim.Adam`` or ``AdamW`` that has made steps, for the parameters of
    this model that it holds.

    Learning rates are no part of it: where groups of parameters have different ones, so has what
    is applied. Raises UserError for an optimizer without second moments.
    """
    names = {parameter: name for name, parameter in without_wrapper(model).named_parameters()}
    inverse = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if parameter not in names or "exp_avg_sq" not in state:
                continue
            moment = state.get("max_exp_avg_sq", state["exp_avg_sq"])
            inverse[names[parameter]] = _inverse(
                moment, float(state["step"]), group["betas"][1], group["eps"]
            )
    if not inverse:
        raise UserError(
            "the optimizer holds no second moments (exp_avg_sq) of this model; give a "
            "torch.optim.Adam or AdamW of its parameters that has made a step"
        )
    return Metric("adam", inverse)


def read_adam_metric(path: str | Path) -> Metric:
    """The metric of a safetensors file with ``exp_avg_sq`` under the name of each parameter.

    Its metadata may have ``step`` and ``beta2``, for the correction of the bias (without them the
    moments are taken as corrected), and ``eps``. Raises UserError for a file that cannot be read,
    and moments that are negative or not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            moments = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = float(about.get("step", "inf"))
        beta2, eps = float(about.get("beta2", 0.0)), float(about.get("eps", EPSILON))
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as second moments in safetensors "
            f"({' '.join(str(error).split())[:120]})"
        ) from error
    if not (step > 0 and 0 <= beta2 < 1 and eps >= 0):
        raise UserError(f"{path} has a step, beta2 or eps that no optimizer has")
    for name, moment in moments.items():
        if not (moment.isfinite().all() and (moment >= 0).all()):
            raise UserError(f"{path}: the second moment of {name} is negative or not finite")
    return Metric(
        "adam",
        {
            name.removeprefix(_WRAPPER): _inverse(moment, step, beta2, eps)
            for name, moment in moments.items()
        },
    )


def shrunk(mean_squares: Mapping[str, Tensor], count: int, leading: int = 0) -> Metric:
    r"""The metric of second moments that are means over ``count`` minibatch gradients.

    Each is drawn to the mean over its tensor as if that were one more minibatch,
    :math:`\hat v = (m \bar v + \bar v_{tensor}) / (m + 1)`: few minibatches leave many parameters
    with next to no gradient by chance, and 1 / P of those would be all that counts.

    :param leading: So many axes in front are replications.
    """
    inverse = {}
    for name, moment in mean_squares.items():
        own = tuple(range(leading, moment.ndim))
        # Without axes of its own, a number is its mean; torch would take that over replications.
        mean = moment.mean(dim=own, keepdim=True) if own else moment
        v = (count * moment + mean) / (count + 1)
        inverse[name] = _inverse(v, float("inf"), 0.0, EPSILON)
    return Metric("adam, estimated", inverse)


def _inverse(moment: Any, step: float, beta2: float, eps: float) -> Tensor:
    moment = torch.as_tensor(moment).detach()
    if not moment.dtype.itemsize >= 4:
        moment = moment.float()
    correction = 1 - beta2**step if beta2 else 1.0
    scale = (moment / correction).sqrt_().add_(eps).reciprocal_()
    return torch.where(moment > 0, scale, torch.zeros((), dtype=scale.dtype, device=scale.device))
