r"""From coefficients to advantages: by the count of right answers, or rank by rank.

For graded rewards sorted :math:`g_1 \le \dots \le g_n`, a maximum over samples is a sum over
levels, :math:`\max_I g = g_1 + \sum_l (g_{l+1} - g_l) 1\{\max I > l\}`, and the indicator of level
l is a binary reward with n - l right answers. So the binary coefficients are all it takes:

.. math:: A_i = g_1 A_+(n) + \sum_{l < i} (g_{l+1} - g_l) A_+(n - l)
                           + \sum_{l \ge i} (g_{l+1} - g_l) A_-(n - l).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError

# Entries worked on at once when sorting: about the cache of one core.
_BLOCK = 1 << 18


def by_counts(rewards: Tensor, plus: Tensor, minus: Tensor, *, out: Tensor | None) -> Tensor:
    """(K, P, n) advantages of binary (P, n) rewards: A_+(c) for 1, A_-(c) for 0.

    One pass that reads the rewards and writes the advantages: memory traffic is all it costs.
    """
    counts = rewards.double().sum(dim=1).long()  # half precision does not hold every count
    plus, minus = (table.to(rewards.device)[:, counts] for table in (plus, minus))
    base = minus.to(rewards.dtype)[:, :, None]
    step = (plus - minus).to(rewards.dtype)[:, :, None]
    made = result(len(base), rewards, out)
    return torch.addcmul(base, rewards, step, out=made)


def by_ranks(rewards: Tensor, plus: Tensor, minus: Tensor, *, out: Tensor | None) -> Tensor:
    """(K, P, n) advantages of graded (P, n) rewards, in O(n log n) a prompt and O(n) a k."""
    num_prompts, n = rewards.shape
    num_orders = len(plus)
    order = ascending(rewards)
    ranked = rewards.gather(1, order)
    steps = ranked.diff(dim=1)
    plus, minus = (table.to(rewards) for table in (plus, minus))
    # Level l has n - l right answers: the columns n - 1 ... 1, and n for the lowest level.
    rise = (plus - minus)[:, 1:n].flip(1)[:, None, :]
    base = ranked[None, :, 0] * plus[:, n, None] + minus[:, 1:n].flip(1) @ steps.T
    made = result(num_orders, rewards, out)
    size = min(num_prompts, max(1, _BLOCK // (num_orders * n)))
    scratch = rewards.new_empty(num_orders, size, n)
    for start in range(0, num_prompts, size):
        rows = slice(start, min(start + size, num_prompts))
        levels = scratch[:, : rows.stop - start]
        levels[:, :, 0] = base[:, rows]
        torch.mul(steps[rows], rise, out=levels[:, :, 1:])
        torch.cumsum(levels, dim=2, out=levels)
        made[:, rows].scatter_(2, order[rows].expand(num_orders, -1, -1), levels)
    return made


def ascending(rewards: Tensor) -> Tensor:
    """The permutation that sorts each row. Ties may come in any order: their step is 0."""
    if rewards.device.type == "cpu" and rewards.dtype in (torch.float32, torch.float64):
        # numpy sorts with wide vectors where the processor has them: six times as fast.
        return torch.from_numpy(np.argsort(rewards.numpy(), axis=1))
    return rewards.argsort(dim=1)


def result(num_orders: int, rewards: Tensor, out: Tensor | None) -> Tensor:
    """Where (K, P, n) advantages go: a view of ``out``, or new memory."""
    shape = (num_orders, *rewards.shape)
    if out is not None:
        wanted = (shape, shape[1:]) if num_orders == 1 else (shape,)
        if out.shape not in wanted or out.dtype != rewards.dtype or out.device != rewards.device:
            raise UserError(
                f"out has shape {tuple(out.shape)} and dtype {out.dtype}, the advantages have "
                f"{shape if num_orders > 1 else shape[1:]} and {rewards.dtype}"
            )
        return out.view(shape)
    if rewards.device.type == "cpu" and rewards.dtype in (torch.float32, torch.float64):
        # A large result costs more in page faults than in arithmetic; numpy asks for huge pages.
        kind = np.float32 if rewards.dtype == torch.float32 else np.float64
        return torch.from_numpy(np.empty(shape, dtype=kind))
    return torch.empty(shape, dtype=rewards.dtype, device=rewards.device)
