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
    gradients of all ``count`` functions, then their products. The gradients that are kept stay
    below ``memory_gib``, a large matrix being taken in pieces; the price is one forward and
    backward pass for each function and block.

    :param function: ``function(i, parameters)`` is the scalar f_i.
    """
    if not memory_gib > 0:
        raise UserError(f"memory_gib is {memory_gib}; give a positive number of GiB")
    total = torch.zeros(count, count, dtype=torch.float64)
    frozen = {name: tensor.detach() for name, tensor in parameters.items()}
    for block in _blocks(frozen, count, memory_gib * _GIB):
        leaves = {name: frozen[name].detach().requires_grad_() for name in block}
        rows = {
            name: frozen[name].new_empty(count, piece.stop - piece.start)
            for name, piece in block.items()
        }
        for i in range(count):
            parts = torch.autograd.grad(function(i, {**frozen, **leaves}), list(leaves.values()))
            for (name, piece), part in zip(block.items(), parts, strict=True):
                rows[name][i] = part.reshape(-1)[piece]
            del parts  # else they would live beside their successors
        for name in block:
            kept = rows.pop(name)
            total += (kept @ kept.T).double().cpu()
    return total


def _blocks(
    parameters: Mapping[str, Tensor], count: int, limit: float
) -> Iterator[dict[str, slice]]:
    """Runs of parameters whose ``count`` gradients together fit in ``limit`` bytes, one entry a run
    at least; one that does not fit by itself is cut, and each piece is a run.
    """
    block: dict[str, slice] = {}
    used = 0
    for name, tensor in parameters.items():
        entry = tensor.element_size() * count
        if block and used + tensor.numel() * entry > limit:
            yield block
            block, used = {}, 0
        most = max(int(limit // entry), 1)
        for start in range(0, tensor.numel(), most):
            if block and start:
                yield block
                block, used = {}, 0
            block[name] = slice(start, min(start + most, tensor.numel()))
            used += (block[name].stop - start) * entry
    if block:
        yield block
