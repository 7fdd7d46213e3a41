r"""Conflict from the products of single prompts, and those products for a language model.

With all answers to each prompt and K[k, l, x, x'] = <u_x(k), u_x'(l)>
(:mod:`passgrad.lm.products.prompt_gram`) the prompts need no halves where they are a sample of a
law: the gradients of two different prompts are independent, and

.. math:: C_k = \frac{1}{M (M - 1)} \sum_{x \ne x'} \langle u_x(k), u_{x'}(1) \rangle

is unbiased for <grad J_k, grad J_1>, with every pair of prompts in it once. For fixed prompts the
terms x = x' count, and halves of the answers make them unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.passes import CompletionPasses, Method
from passgrad.lm.products.prompt_gram import spanning
from passgrad.measurement.store import StoredPasses
from passgrad.progress import Progress
from passgrad.stats.bands import Array, standard_error


class StoredProducts(StoredPasses):
    r"""Passes over the samples of a language model, with the products within each prompt:
    :class:`passgrad.measurement.samples.OwnProducts`.

    For each prompt the coefficients of all orders have a rank q of at most 2 (binary rewards), so
    that :math:`\langle s_i, \sum_j c_j s_j \rangle` takes q backward passes and q directional ones
    over the answers of that prompt, whatever the number of orders. Each prompt is kept when it is
    done.

    :param method: Of the directional derivatives. Forward mode leaves the weights where they are;
        differences move all of them twice and more for each prompt.
    """

    def __init__(
        self,
        passes: CompletionPasses,
        folder: Path,
        progress: Progress | None = None,
        method: Method = "forward",
    ) -> None:
        super().__init__(passes, folder, progress)
        self.method: Method = method

    def own(self, coefficients: Tensor, where: Tensor) -> Tensor:
        """<s_xi, sum_j c_xj s_xj>, (L, M, n) float64, 0 outside ``where``."""
        c = coefficients.double()
        result = torch.zeros_like(c)
        for x in range(c.shape[1]):
            if not where[x].any() or not c[:, x].any():
                continue

            def compute(x: int = x) -> Tensor:
                return self._within(c[:, x], x, where)

            place = torch.tensor([x])
            result[:, x] = self.kept.tensor("own", c[:, x], where[x], place, compute=compute)
            self.progress.advance(1 / c.shape[1])
        return result

    def _within(self, coefficients: Tensor, x: int, where: Tensor) -> Tensor:
        """(L, n)."""
        basis, mix = spanning(coefficients)
        here = torch.zeros_like(where)
        here[x] = where[x]
        rows = []
        for row in basis:
            mine = torch.zeros(where.shape, dtype=torch.float64)
            mine[x] = row
            vector = self.passes.gradient(mine)
            rows.append(self.passes.directional(vector, self.method, here)[x].nan_to_num(nan=0.0))
        return mix @ torch.stack(rows)


@dataclass(frozen=True, eq=False)
class KernelConflict:
    """Products of grad J_k with grad J_1 for new prompts, from all pairs of them; arrays (K,).

    ``second_order`` is the tau of :mod:`passgrad.measurement.planning`: the part of the variance
    that two noisy gradients have with each other, for one prompt.
    """

    ks: Array
    inner_product: Array
    standard_error: Array
    """The jackknife's: too long, by a root of 2 at most, where second order is what counts."""
    squared_norm: Array
    cosine: Array
    influence: Array
    """(K, M, 1), as in :class:`passgrad.measurement.ConflictEstimate`."""
    second_order: Array


def conflict_of_kernel(kernel: Tensor, ks: Sequence[int]) -> KernelConflict:
    """<grad J_k, grad J_1> for new prompts from the (K, K, M, M) products of all their answers.

    :param kernel: Of coefficients that are the advantages of an unbiased estimator at ``ks``, which
        hold 1; prompts of equal mass. A sketched one will do: its error adds to the variance
        between pairs, and is in the standard error.
    :raises UserError: For fewer than 3 prompts, another number of orders, or no order 1.
    """
    orders = list(ks)
    if 1 not in orders or tuple(kernel.shape[:2]) != (len(orders),) * 2 or kernel.shape[-1] < 3:
        raise UserError(
            f"a kernel of shape {tuple(kernel.shape)} for k = {orders}: give one row and column "
            "for each k, 1 among them, and at least 3 prompts"
        )
    one, size = orders.index(1), kernel.shape[-1]
    pairs = kernel.double().clone()
    pairs.diagonal(dim1=-2, dim2=-1).zero_()
    both = (pairs[:, one] + pairs[:, one].mT) / 2
    # The part of a prompt: its mean product with all others, both ways.
    psi = 2 * both.sum(-1) / (size - 1)
    inner = psi.mean(-1) / 2
    centred = psi - psi.mean(-1, keepdim=True)
    e = (centred / (size * (size - 1)) ** 0.5)[..., None].numpy()
    norms = torch.einsum("kkxy->k", pairs) / (size * (size - 1))
    positive = (norms > 0) & (norms[one] > 0)
    scale = torch.where(positive, norms * norms[one], torch.nan).sqrt()
    # What is left of a pair when the means of its two prompts are taken out.
    deviation = centred / 2 * (size - 1) / (size - 2)
    left = both - inner[:, None, None] - deviation[:, :, None] - deviation[:, None, :]
    left.diagonal(dim1=-2, dim2=-1).zero_()
    degrees = size * (size - 3) if size > 3 else 1
    tau = 2 * left.square().sum((-2, -1)) / degrees
    return KernelConflict(
        np.asarray(orders, dtype=np.float64), inner.numpy(), standard_error(e), norms.numpy(),
        (inner / scale).numpy(), e, tau.numpy(),
    )  # fmt: skip


def conflict_of_halves(kernel: Tensor, masses: Tensor, *, fixed: bool) -> Tensor:
    """<grad J_k, grad J_1>, (K,), from halves of the answers: unbiased for fixed prompts with their
    masses, or for new ones, where the terms of one prompt are taken out.

    :param kernel: (2 K, 2 K, M, M): the first K rows are the orders in one half, starting with 1,
        the others in the other half.
    """
    count, size = len(kernel) // 2, len(masses)
    law = masses.double()
    both = (kernel[:count, count] + kernel[count:, 0]) / 2
    total = torch.einsum("x,kxy,y->k", law, both.double(), law)
    if fixed:
        return total
    own = torch.einsum("x,kxx->k", law.square(), both.double())
    return (total - own) * size / (size - 1)
