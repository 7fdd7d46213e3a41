"""The matrix of inner products of many gradients, without holding all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from passgrad.errors import UserError

_GIB = 2**30


def blockwise_gram(
    function: Callable[[int, dict[str, Tensor]], Tensor],
    count: int,
    parameters: Mapping[str, Tensor],
    *,
    memory_gib: float,
) -> Tensor:
    r""":math:`K_{ij} = \langle \nabla_\theta f_i, \nabla_\theta f_j \rangle`: (count, count),
    float64, all parameters.

    The inner product is a sum over parameters, so they are taken in blocks: for each block the
    gradients of all ``count`` functions, then their products. Memory stays below ``memory_gib`` for
    the gradients (one parameter tensor at least); the price is one forward and backward pass for
    each function and block.

    :param function: ``function(i, parameters)`` is the scalar f_i.
    """
    if not memory_gib > 0:
        raise UserError(f"memory_gib is {memory_gib}; give a positive number of GiB")
    total = torch.zeros(count, count, dtype=torch.float64)
    frozen = {name: tensor.detach() for name, tensor in parameters.items()}
    for block in _blocks(frozen, count, memory_gib * _GIB):
        leaves = {name: frozen[name].detach().requires_grad_() for name in block}
        gradients: dict[str, list[Tensor]] = {name: [] for name in block}
        for i in range(count):
            parts = torch.autograd.grad(function(i, {**frozen, **leaves}), list(leaves.values()))
            for name, part in zip(block, parts, strict=True):
                gradients[name].append(part.reshape(-1))
        for name in block:
            rows = torch.stack(gradients.pop(name))
            total += (rows @ rows.T).double().cpu()
    return total


def _blocks(parameters: Mapping[str, Tensor], count: int, limit: float) -> Iterator[list[str]]:
    """Runs of parameters whose ``count`` gradients together fit in ``limit`` bytes (at least one
    parameter a run).
    """
    block: list[str] = []
    used = 0
    for name, tensor in parameters.items():
        size = tensor.numel() * tensor.element_size() * count
        # Stacking the rows of one parameter doubles it for a moment.
        if block and used + 2 * size > limit:
            yield block
            block, used = [], 0
        block.append(name)
        used += size
    yield block
