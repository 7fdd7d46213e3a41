"""What the prediction of a step needs from a model: derivatives of both orders along one vector, of
every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from passgrad.lm.curvature import CurvatureMethod, curvatures
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.store import Kept
from passgrad.progress import Progress, Silent
from passgrad.worlds.bandit import Bandit


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


class StepSamples(Protocol):
    """Sampled answers, and what they say of a step along a sum of their scores."""

    @property
    def rewards(self) -> Tensor:
        """(M, n), 0 for a wrong answer and 1 for a right one."""
        ...

    @property
    def masses(self) -> Tensor:
        """D(x), (M,), positive, adding up to 1."""
        ...

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """Along v = the sum of coefficients (M, n) times scores, at the answers of ``where``."""
        ...


@dataclass(frozen=True, eq=False)
class ScoreSteps:
    """Samples whose scores (..., M, n, d) and second derivatives (..., M, n, d, d) of log pi are
    written down: those of a world with few parameters ``theta``, (d,).
    """

    rewards: Tensor
    scores: Tensor
    hessians: Tensor
    masses: Tensor
    theta: Tensor

    def vector(self, coefficients: Tensor) -> Tensor:
        """v, (..., d)."""
        return torch.einsum("...xi,...xid->...d", coefficients, self.scores)

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """(..., M, n)."""
        v = self.vector(coefficients)
        slopes = torch.einsum("...xid,...d->...xi", self.scores, v)
        bends = torch.einsum("...xide,...d,...e->...xi", self.hessians, v, v)
        return Along(slopes * where, bends * where, v.norm(dim=-1), self.theta.norm())


def bandit_steps(
    world: Bandit,
    theta: Tensor | Sequence[float],
    prompts: Tensor,
    num_samples: int,
    *,
    masses: Tensor | None = None,
    seed: int = 0,
) -> ScoreSteps:
    """``num_samples`` answers of a bandit to each of the prompts with these numbers, (..., M), which
    count alike unless ``masses``, (M,), are given.

    With p = sigmoid(u . theta) the score is (r - p) u, and the second derivative -p (1 - p) u u^T
    whatever the answer.
    """  # noqa: E501
    generator = torch.Generator().manual_seed(seed)
    at = world.parameters(theta)
    sign = torch.tensor([1.0 if group == "hard" else -1.0 for group in world.groups])
    u = (sign.double()[:, None] * world.features)[prompts]
    p = torch.sigmoid(u @ at)[..., None]
    uniform = torch.rand(*p.shape[:-1], num_samples, dtype=torch.float64, generator=generator)
    rewards = (uniform < p).double()
    scores = (rewards - p)[..., None] * u[..., None, :]
    outer = -(p * (1 - p))[..., None] * u[..., :, None] * u[..., None, :]
    hessians = outer[..., None, :, :].expand(*scores.shape, scores.shape[-1])
    size = prompts.shape[-1]
    law = torch.full((size,), 1 / size, dtype=torch.float64) if masses is None else masses
    return ScoreSteps(rewards, scores, hessians, law, at)


class ModelSteps:
    """The samples of a language model; all numbers are kept in a folder, if there is one.

    The slopes are those that the estimate of conflict has kept there for the same half and order
    (:class:`passgrad.measurement.store.StoredPasses`), if it has. ``progress`` advances by 1 behind
    the slopes and by 1 behind the curvatures.
    """

    def __init__(
        self,
        passes: CompletionPasses,
        folder: Path | None = None,
        progress: Progress | None = None,
        method: CurvatureMethod = "auto",
    ) -> None:
        self.passes, self.kept, self.method = passes, Kept(folder), method
        self.progress = progress or Silent()

    @property
    def rewards(self) -> Tensor:
        """(M, n)."""
        return self.passes.rewards

    @property
    def masses(self) -> Tensor:
        """(M,)."""
        return self.passes.masses

    def vector(self, coefficients: Tensor) -> Tensor:
        """v, (d,): one backward pass."""
        return self.passes.gradient(coefficients)

    def along(self, coefficients: Tensor, where: Tensor) -> Along:
        """(M, n)."""
        v = cache(lambda: self.vector(coefficients))  # only if a file is missing, and once

        def slopes() -> Tensor:
            return self.passes.directional(v(), where=where).nan_to_num(nan=0.0)

        def bends() -> Tensor:
            found = curvatures(self.passes, v(), slope, where, self.method)
            return found.values.nan_to_num(nan=0.0)

        def lengths() -> Tensor:
            return torch.stack([_length(v()), _length(self.passes.layout.flatten(model))])

        model, key = self.passes.model, (coefficients.double(), where)
        slope = self.kept.tensor("directional", *key, compute=slopes)
        self.progress.advance()
        bend = self.kept.tensor("curvatures", *key, compute=bends)
        size = self.kept.tensor("step-lengths", *key, compute=lengths)
        self.progress.advance()
        return Along(slope, bend, size[0], size[1])


def _length(vector: Tensor) -> Tensor:
    """In float64, in pieces."""
    squares = [piece.double().square().sum().cpu() for piece in vector.split(1 << 22)]
    return torch.stack(squares).sum().sqrt()
