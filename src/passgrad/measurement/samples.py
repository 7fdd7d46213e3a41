r"""What an estimate of conflict needs from a model: sampled answers and two operations on scores.

With the scores :math:`s_{xi} = \nabla_\theta \log \pi(y_{xi} | x)` of n answers to each of M
prompts these are the sums :math:`G = \sum_{x, i} c_{xi} s_{xi}` (a backward pass) and the
directional derivatives :math:`\langle s_{xi}, G \rangle` (a forward pass). No score is ever needed
by itself, so that nothing here depends on the number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.groups import Part
from passgrad.worlds.bandit import Bandit

if TYPE_CHECKING:
    from passgrad.measurement.metric import Metric


@dataclass(frozen=True, eq=False)
class Samples:
    """Rewards of n answers to each of M prompts, and the masses of the prompts, in float64.

    :raises UserError: For rewards other than 0 and 1, and masses that are not positive, do not add
        up to 1, or are not one a prompt.
    """

    rewards: Tensor
    """(M, n); axes of replications may stand in front."""
    masses: Tensor
    """(M,)."""

    def __post_init__(self) -> None:
        rewards, masses = self.rewards, self.masses
        if not ((rewards == 0) | (rewards == 1)).all():
            raise UserError("rewards must be 0 or 1: grade the completions as wrong or right")
        if masses.shape != rewards.shape[-2:-1]:
            raise UserError(
                f"{rewards.shape[-2]} prompts need as many masses, got {tuple(masses.shape)}"
            )
        if not (masses > 0).all() or not math.isclose(float(masses.sum()), 1, rel_tol=1e-6):
            raise UserError("masses must be positive and add up to 1")

    @classmethod
    def of(cls, scores: Scores, *, replicated: bool = True) -> Samples:
        """Those of answers with scores.

        :param replicated: Whether axes of replications may stand in front.
        :raises UserError: As the class, and for rewards of other axes.
        """
        rewards = scores.rewards.double()
        if rewards.ndim < 2 or (rewards.ndim > 2 and not replicated):
            raise UserError(f"rewards must be prompts by completions, got {tuple(rewards.shape)}")
        return cls(rewards, scores.masses.double())

    @property
    def shape(self) -> tuple[int, int]:
        """(M, n)."""
        return self.rewards.shape[-2], self.rewards.shape[-1]


class Scores(Protocol):
    """Sampled answers whose scores can be summed, in one of the ways of the protocols below."""

    @property
    def rewards(self) -> Tensor:
        """(M, n), 0 for a wrong answer and 1 for a right one."""
        ...

    @property
    def masses(self) -> Tensor:
        """D(x), (M,), positive, adding up to 1."""
        ...


@runtime_checkable
class SampledGradients(Scores, Protocol):
    """Sampled answers, and passes over them. L gradients are asked for at once.

    The gradients are whatever the implementation likes: they are only handed back to it, the L of
    them together.
    """

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


class PartedGradients(Scores, Protocol):
    """Sampled answers with gradients in named pieces ("units").

    Axes of replications may stand in front of all tensors.
    """

    @property
    def units(self) -> Sequence[str]:
        """The names of the pieces."""
        ...

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, each of some units."""
        ...

    def gradient(self, coefficients: Tensor) -> Mapping[str, Tensor]:
        """The sum of coefficients (M, n) times scores, in its units."""
        ...

    def owner(self, unit: str) -> str | None:
        """The name under which a metric has 1 / P for a unit; None for one without parameters."""
        ...

    def check(self, metric: Metric) -> None:
        """Raise UserError for a metric that is of other parameters."""
        ...


@dataclass(frozen=True, eq=False)
class Along:
    """Derivatives of log-probabilities along v, and lengths.

    ``slopes`` <grad log pi, v> and ``curvatures`` v^T (grad^2 log pi) v are (..., M, n), 0 where
    none were asked for; ``length`` ||v|| and ``origin`` ||theta|| are (...).
    """

    slopes: Tensor
    curvatures: Tensor
    length: Tensor
    origin: Tensor


class StepSamples(Scores, Protocol):
    """Sampled answers, and what they say of a step along a sum of their scores."""

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """Along v = the sum of coefficients (M, n) times scores, at the answers of ``where``."""
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
    division: Sequence[Part] = ()
    """The parts beside the whole; by default each coordinate by itself, a layer."""
    hessians: Tensor | None = None
    """The second derivatives of log pi, (..., M, n, d, d), for a step."""
    theta: Tensor | None = None
    """The parameters, (d,), for a step."""

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

    @property
    def units(self) -> Sequence[str]:
        """The coordinates: numbers from 0 to d - 1."""
        return [str(place) for place in range(self.scores.shape[-1])]

    @property
    def parts(self) -> Sequence[Part]:
        """The whole, and the division."""
        layers = self.division or [Part("layer", name, (name,)) for name in self.units]
        return [Part("whole", "all parameters", tuple(self.units)), *layers]

    def gradient(self, coefficients: Tensor) -> dict[str, Tensor]:
        """(...) for each unit."""
        return dict(zip(self.units, self.vector(coefficients).unbind(-1), strict=True))

    def owner(self, unit: str) -> str | None:
        """Itself."""
        return unit

    def check(self, metric: Metric) -> None:
        """Raise UserError for a coordinate that the metric lacks."""
        inverse = metric.inverse
        missing = [] if inverse is None else [u for u in self.units if u not in inverse]
        if missing:
            raise UserError(f"the metric lacks the parameter {missing[0]}")

    def vector(self, coefficients: Tensor) -> Tensor:
        """The sum of coefficients (..., M, n) times scores, (..., d)."""
        return torch.einsum("...xi,...xid->...d", coefficients, self.scores)

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """(..., M, n)."""
        if self.hessians is None or self.theta is None:
            raise UserError(
                "a step needs the second derivatives and theta: give hessians and theta"
            )
        v = self.vector(coefficients)
        slopes = torch.einsum("...xid,...d->...xi", self.scores, v)
        bends = torch.einsum("...xide,...d,...e->...xi", self.hessians, v, v)
        return Along(slopes * where, bends * where, v.norm(dim=-1), self.theta.norm())


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
    rewards, scores, _ = _bandit_answers(u, theta, num_samples, generator)
    return ScoreSamples(rewards, scores, masses)


def bandit_steps(
    world: Bandit,
    theta: Tensor | Sequence[float],
    prompts: Tensor,
    num_samples: int,
    *,
    masses: Tensor | None = None,
    seed: int = 0,
) -> ScoreSamples:
    """``num_samples`` answers of a bandit to each of the prompts with these numbers, (..., M), which
    count alike unless ``masses``, (M,), are given.

    With p = sigmoid(u . theta) the score is (r - p) u, and the second derivative -p (1 - p) u u^T
    whatever the answer.
    """  # noqa: E501
    generator = torch.Generator().manual_seed(seed)
    at = world.parameters(theta)
    u = world.signed_features[prompts]
    rewards, scores, p = _bandit_answers(u, at, num_samples, generator)
    outer = -(p * (1 - p))[..., None] * u[..., :, None] * u[..., None, :]
    hessians = outer[..., None, :, :].expand(*scores.shape, scores.shape[-1])
    size = prompts.shape[-1]
    law = torch.full((size,), 1 / size, dtype=torch.float64) if masses is None else masses
    return ScoreSamples(rewards, scores, law, hessians=hessians, theta=at)


def _bandit_answers(
    u: Tensor, theta: Tensor, num_samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards (..., M, n), scores (..., M, n, 2) and rates (..., M, 1) for u of (..., M, 2)."""
    p = torch.sigmoid(u @ theta)[..., None]
    uniform = torch.rand(*p.shape[:-1], num_samples, dtype=torch.float64, generator=generator)
    rewards = (uniform < p).double()
    return rewards, (rewards - p)[..., None] * u[..., None, :], p
