r"""What an estimate of conflict needs from a model: sampled answers and two operations on scores.

With the scores :math:`s_{xi} = \nabla_\theta \log \pi(y_{xi} | x)` of n answers to each of M
prompts these are the sums :math:`G = \sum_{x, i} c_{xi} s_{xi}` (a backward pass) and the
directional derivatives :math:`\langle s_{xi}, G \rangle` (a forward pass). No score is ever needed
by itself, so that nothing here depends on the number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.worlds.bandit import Bandit


@runtime_checkable
class SampledGradients(Protocol):
    """Sampled answers, and passes over them. L gradients are asked for at once.

    The gradients are whatever the implementation likes: they are only handed back to it, the L of
    them together.
    """

    @property
    def rewards(self) -> Tensor:
        """(M, n), 0 for a wrong answer and 1 for a right one."""
        ...

    @property
    def masses(self) -> Tensor:
        """D(x), (M,), positive, adding up to 1."""
        ...

    def gradients(self, coefficients: Tensor) -> Any:
        """The L sums of coefficients times scores, for (L, M, n) coefficients.

        An answer whose L coefficients are all 0 needs no pass.
        """
        ...

    def directional(self, gradients: Any, where: Tensor) -> Tensor:
        """<s_xi, G_l>, (L, M, n), at the answers of the (M, n) mask ``where``, 0 elsewhere."""
        ...


@runtime_checkable
class OwnProducts(Protocol):
    """Samples that also have the products within a prompt."""

    def own(self, coefficients: Tensor, where: Tensor) -> Tensor:
        """<s_xi, sum_j c_xj s_xj>, (L, M, n), at the answers of ``where``, 0 elsewhere."""
        ...


@dataclass(frozen=True, eq=False)
class ScoreSamples:
    """Samples whose scores are written down: those of a world with few parameters.

    Replications of the whole sample may stand in axes in front: rewards (..., M, n), scores
    (..., M, n, d), gradients (..., d).
    """

    rewards: Tensor
    scores: Tensor
    masses: Tensor

    def gradients(self, coefficients: Tensor) -> Tensor:
        """(L, ..., d) for (L, ..., M, n)."""
        return torch.einsum("l...xi,...xid->l...d", coefficients, self.scores)

    def directional(self, gradients: Any, where: Tensor) -> Tensor:
        """(L, ..., M, n)."""
        return torch.einsum("l...d,...xid->l...xi", torch.as_tensor(gradients), self.scores) * where

    def own(self, coefficients: Tensor, where: Tensor) -> Tensor:
        """(L, ..., M, n)."""
        sums = torch.einsum("l...xi,...xid->l...xd", coefficients, self.scores)
        return torch.einsum("l...xd,...xid->l...xi", sums, self.scores) * where


def sample_bandit(
    world: Bandit,
    theta: Tensor | Sequence[float],
    num_samples: int,
    *,
    num_prompts: int | None = None,
    replications: int | None = None,
    seed: int = 0,
) -> ScoreSamples:
    """``num_samples`` answers of a bandit to each of its prompts, with their scores in closed form.

    With ``num_prompts`` so many prompts are drawn from the world's masses, anew in each
    replication, and count alike; without it the world's own prompts and masses are taken.
    ``replications`` independent samples stand in an axis in front. The score of a right answer is
    (1 - p) u and of a wrong one -p u, where p = sigmoid(u . theta).

    :raises UserError: For counts below 1.

    >>> import passgrad as pg
    >>> sample_bandit(pg.TwoPointBandit(), (-2, -2), num_samples=4).scores.shape
    torch.Size([2, 4, 2])
    """
    for name, count in (
        ("num_samples", num_samples),
        ("num_prompts", 1 if num_prompts is None else num_prompts),
        ("replications", 1 if replications is None else replications),
    ):
        if count < 1:
            raise UserError(f"{name} must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    copies = () if replications is None else (replications,)
    theta = world.parameters(theta)
    u = world.signed_features
    masses = world.masses
    if num_prompts is None:
        u = u.expand(*copies, *u.shape)
    else:
        size = num_prompts * (replications or 1)
        drawn = torch.multinomial(world.masses, size, replacement=True, generator=generator)
        u = u[drawn.view(*copies, num_prompts)]
        masses = torch.full((num_prompts,), 1 / num_prompts, dtype=torch.float64)
    p = torch.sigmoid(u @ theta)[..., None]
    uniform = torch.rand(*p.shape[:-1], num_samples, dtype=torch.float64, generator=generator)
    rewards = (uniform < p).double()
    return ScoreSamples(rewards, (rewards - p)[..., None] * u[..., None, :], masses)
