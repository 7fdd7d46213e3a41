r"""Products of policy gradients without bias: one half of the answers against the other.

From the answers of prompt x in half h, :math:`u_{xh}(k) = \sum_i A^{(k)}_i s_i` is unbiased for
:math:`v_x(k) = w_k(x) \nabla p(x)`, and :math:`G_h(k) = \sum_x D(x) u_{xh}(k)` for
:math:`g_k = \nabla J_k`. The two halves are independent, hence

.. math:: C_{jk} = \tfrac12 \bigl( \langle G_A(j), G_B(k) \rangle + \langle G_B(j), G_A(k) \rangle
                   \bigr), \qquad E[C_{jk}] = \langle g_j, g_k \rangle.

Two ways to make halves, for two targets:

* "completions": half of the answers to every prompt. Unbiased for the products of *these* prompts
  with masses D, the terms x = x' included. Where the prompts are a sample of a law it is a
  V-statistic: its terms x = x' have the mean :math:`E\langle v_x(j), v_x(k) \rangle` instead of
  :math:`\langle g_j, g_k \rangle`, a bias of order 1 / M. It is removed by taking them out and
  multiplying by M / (M - 1), which takes the products within prompts.
* "prompts": all answers to half of the prompts. Unbiased for prompts drawn from a law, in no more
  passes; it says nothing about these prompts.

Everything comes from the scalars :math:`d_i = \langle s_i, G_{h'} \rangle` of the answers of the
other half: :math:`\langle u_{xh}(k), G_{h'}(j) \rangle = \sum_i A_i^{(k)} d_i(G_{h'}(j))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.measurement.samples import OwnProducts, SampledGradients, Samples
from passgrad.orders import Orders

Split = Literal["completions", "prompts"]


@dataclass(frozen=True, eq=False)
class Half:
    """Some answers: ``members`` (P, m) of each of the ``prompts`` (P,)."""

    prompts: Tensor
    members: Tensor

    def take(self, values: Tensor) -> Tensor:
        """(..., M, n) -> (..., P, m)."""
        return values[..., self.prompts[:, None], self.members]

    def put(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(..., P, m) -> (..., M, n), with zeros outside the half."""
        result = values.new_zeros(*values.shape[:-2], *shape)
        result[..., self.prompts[:, None], self.members] = values
        return result


def split_halves(num_prompts: int, num_samples: int, split: Split, *, seed: int) -> list[Half]:
    """The halves A and B, at random; A has one more where the number is odd.

    At random, because answers and prompts that come from a file may be sorted.
    Raises UserError where a half would hold less than two answers, or less than two prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    if split == "completions":
        if num_samples < 4:
            raise UserError(
                f"halves of {num_samples} completions are too small: draw at least 4 a prompt"
            )
        order = torch.rand(num_prompts, num_samples, generator=generator).argsort(dim=1)
        everyone = torch.arange(num_prompts)
        first = (num_samples + 1) // 2
        return [Half(everyone, order[:, :first]), Half(everyone, order[:, first:])]
    if split != "prompts":
        raise UserError(f'split must be "completions" or "prompts", got {split!r}')
    if num_prompts < 4 or num_samples < 2:
        raise UserError(
            "halves of prompts need at least 4 prompts and 2 completions each, "
            f"got {num_prompts} and {num_samples}"
        )
    shuffled = torch.randperm(num_prompts, generator=generator)
    members = torch.arange(num_samples)
    parts = shuffled.tensor_split(2)
    return [Half(part.sort().values, members.expand(len(part), -1)) for part in parts]


@dataclass(frozen=True, eq=False)
class Pairing:
    """What the answers of one half say about the gradients of the other; the orders start at 1.

    Leading axes of replications are left out of the shapes.
    """

    half: Half
    rewards: Tensor
    """(P, m)."""
    directional: Tensor
    """<s_i, G(j)> for the reported orders j, (J, P, m); G the gradient of the other half."""
    along_first: Tensor
    """<u_x(k), G(1)> for every order k of the curve, (K, P)."""
    first_along: Tensor
    """<u_x(1), G(j)> for the reported orders j, (J, P)."""
    along_same: Tensor
    """<u_x(j), G(j)> for the reported orders j, (J, P)."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The two halves against each other, and within each prompt where that was asked for."""

    masses: Tensor
    """(M,)."""
    shape: tuple[int, int]
    """(M, n)."""
    split: Split
    curve: Orders
    """The orders of the point estimate."""
    reported: Orders
    """The orders that have gradients of their own, starting with 1; some of ``curve``."""
    pairings: tuple[Pairing, Pairing]
    own: tuple[Pairing, Pairing] | None
    """The same with u_x of the other half in place of G, for the "completions" of one prompt."""

    def fold_masses(self, half: Half) -> Tensor:
        """The masses (P,) with which the prompts of a half stand for all of them."""
        share = self.shape[0] / len(half.prompts)
        return self.masses[half.prompts] * share

    def places(self, orders: Sequence[int]) -> list[int]:
        """Where these orders stand in the curve."""
        return [self.curve.index(k) for k in orders]


def check_orders(
    orders: Sequence[int], halves: Sequence[Half], split: Split, estimator: Estimator
) -> None:
    """Raise UserError for an order that the completions of a half are too few for."""
    smallest = min(half.members.shape[1] for half in halves)
    if max(orders) > smallest - estimator.spare:
        needed = (max(orders) + estimator.spare) * (2 if split == "completions" else 1)
        raise UserError(
            f"k = {max(orders)} is too large for the {smallest} completions of a prompt in a half "
            f"and {estimator.name}: draw at least {needed} a prompt, or lower k"
        )


def cross_fit(
    samples: SampledGradients,
    curve: Sequence[int],
    reported: Sequence[int],
    *,
    estimator: Estimator,
    split: Split,
    own: bool = False,
    seed: int = 0,
) -> CrossFit:
    """Run the passes: gradients of each half for 1 and ``reported``, directional ones on the other.

    Answers without a coefficient in any order take part in no gradient, and prompts with only right
    or only wrong answers in no pass, if the estimator has no coefficients for them.
    ``own`` adds the passes within prompts. Raises UserError for samples that do not fit together
    and for orders that a half is too small for.
    """
    checked = Samples.of(samples)
    rewards, masses, (num_prompts, n) = checked.rewards, checked.masses, checked.shape
    halves = split_halves(num_prompts, n, split, seed=seed)
    reported = Orders.of(reported).with_one()
    curve = Orders.of((*curve, *reported))
    check_orders(curve, halves, split, estimator)
    weights = [order_advantages(half.take(rewards), curve, estimator) for half in halves]
    rows = [curve.index(j) for j in reported]
    shape = (num_prompts, n)
    fit = CrossFit(masses, shape, split, curve, reported, (), None)  # type: ignore[arg-type]
    sums = [half.put(w[rows], shape) for half, w in zip(halves, weights, strict=True)]
    gradients = []
    for half, total in zip(halves, sums, strict=True):
        scale = masses.new_zeros(num_prompts)
        scale[half.prompts] = fit.fold_masses(half)
        gradients.append(samples.gradients(total * scale[:, None]))
    # All answers of a prompt with right and wrong ones: other halves of them may be wanted later.
    right = rewards.mean(-1, keepdim=True)
    mixed = ((right > 0) & (right < 1)).expand_as(rewards)
    wanted = [
        half.put(half.take(mixed) | (w != 0).any(0), shape)
        for half, w in zip(halves, weights, strict=True)
    ]
    pairings, inner = [], []
    for here, there in ((0, 1), (1, 0)):
        found = samples.directional(gradients[there], wanted[here])
        pairings.append(_pair(halves[here], rewards, weights[here], found, rows))
        if own:
            if not isinstance(samples, OwnProducts):
                raise UserError(
                    'new prompts with split="completions" need products within prompts, which '
                    'these samples lack: take split="prompts"'
                )
            within = samples.own(sums[there], wanted[here])
            inner.append(_pair(halves[here], rewards, weights[here], within, rows))
    return CrossFit(
        masses,
        shape,
        split,
        curve,
        reported,
        (pairings[0], pairings[1]),
        (inner[0], inner[1]) if own else None,
    )


def order_advantages(rewards: Tensor, orders: Sequence[int], estimator: Estimator) -> Tensor:
    """(K, ..., P, m)."""
    flat = estimator.advantages(rewards.reshape(-1, rewards.shape[-1]), orders)
    return flat.view(len(orders), *rewards.shape)


def _pair(half: Half, rewards: Tensor, weights: Tensor, found: Tensor, rows: list[int]) -> Pairing:
    d = half.take(found)
    return Pairing(
        half=half,
        rewards=half.take(rewards),
        directional=d,
        along_first=torch.einsum("k...pi,...pi->k...p", weights, d[0]),
        first_along=torch.einsum("...pi,j...pi->j...p", weights[rows[0]], d),
        along_same=torch.einsum("j...pi,j...pi->j...p", weights[rows], d),
    )
