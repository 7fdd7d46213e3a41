"""Directional derivatives of log-probabilities along a vector of parameter space."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def forward_mode(
    function: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    tangents: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    r"""The value of ``function`` and :math:`\langle \nabla_\theta f_i, v \rangle` for each of its
    entries.

    One forward pass gives the derivative of every sequence along the same direction, whatever their
    number. It needs operations with a forward derivative, which the fused attention kernels lack.
    Tied weights are right because ``parameters`` names each matrix once.
    """
    with torch.no_grad():
        output = torch.func.jvp(function, (dict(parameters),), (dict(tangents),))
    return output[0], output[1]
