r"""Stochastic ascent in an analytic world: prompts and answers are drawn, the levels stay exact.

A step draws B prompts from the prompt law, n answers to each, turns their rewards into advantages
A and moves theta along

.. math:: \hat g = \frac{1}{B} \sum_b \sum_{i \le n} A_{bi} s_{bi}, \qquad
          s = \frac{r - p}{p (1 - p)} \nabla p,

where s is the mean of the score :math:`\nabla \log \pi` given the prompt and the reward. In a
bandit with two actions that is the score itself; with more of them it leaves out the spread of
the scores among wrong answers, and with it no bias. Many seeds run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import Bandit
from passgrad.worlds.base import AnalyticWorld

Advantages = Callable[[Tensor, int], Tensor]
"""(P, n) rewards in {0, 1} and k -> (P, n) coefficients of the scores."""


@dataclass(frozen=True, eq=False)
class SampledTrace:
    """What T steps did to each of R seeds."""

    thetas: Tensor
    """The parameters at the recorded steps, (steps, R, d)."""
    steps: Tensor
    """The numbers of the recorded steps, from 0 to T."""
    world: AnalyticWorld

    def pass_at_k(self, k: float) -> Tensor:
        """J_k of every recorded policy, exact, (steps, R)."""
        flat = self.thetas.flatten(0, 1)
        pieces = [PassAtK(k).value(_success(self.world, some)) for some in flat.split(1024)]
        return (torch.cat(pieces) @ self.world.masses).view(self.thetas.shape[:2])

    def band(self, k: float, share: float = 0.9) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over the seeds of J_k and the ends of its central ``share``, each (steps,)."""
        if not 0 < share < 1:
            raise UserError(f"share must lie strictly between 0 and 1, got {share}")
        levels = self.pass_at_k(k)
        ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64)
        low, high = levels.quantile(ends, dim=1)
        return levels.mean(dim=1), low, high


def ascend_sampled(
    world: AnalyticWorld,
    theta: Tensor | Sequence[float] | None,
    advantages: Advantages,
    *,
    k: int,
    num_samples: int,
    num_prompts: int,
    step_size: float = 1.0,
    steps: int = 100,
    num_seeds: int = 16,
    seed: int = 0,
    every: int = 1,
) -> SampledTrace:
    """``num_seeds`` independent runs of stochastic ascent from ``theta``, side by side.

    ``advantages(rewards, k)`` decides what is ascended: it gets the rewards of all drawn prompts of
    all seeds, (num_seeds * num_prompts, num_samples), and must treat each row by itself.
    Theta is kept at every ``every``-th step and at the last.

    Raises UserError for counts that are not positive, and for advantages of another shape or that
    are not finite.
    """
    counts = {
        "num_samples": num_samples,
        "num_prompts": num_prompts,
        "num_seeds": num_seeds,
        "every": every,
        "steps": steps + 1,
    }
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} is too small: got {count - (name == 'steps')}")
    generator = torch.Generator().manual_seed(seed)
    current = world.parameters(theta).expand(num_seeds, -1).clone()
    kept, recorded = [], []
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            recorded.append(step)
            kept.append(current.clone())
        if step == steps:
            break
        drawn = torch.multinomial(
            world.masses, num_seeds * num_prompts, replacement=True, generator=generator
        ).view(num_seeds, num_prompts)
        p, jacobian = _drawn(world, current, drawn)
        uniform = torch.rand(
            num_seeds, num_prompts, num_samples, dtype=torch.float64, generator=generator
        )
        rewards = (uniform < p[..., None]).double()
        current += step_size * gradient_estimate(p, jacobian, rewards, advantages, k)
    return SampledTrace(torch.stack(kept), torch.tensor(recorded), world)


def gradient_estimate(
    p: Tensor, jacobian: Tensor, rewards: Tensor, advantages: Advantages, k: int
) -> Tensor:
    """The estimate (..., d) from p (..., B), grad p (..., B, d) and rewards (..., B, n)."""
    rows = rewards.flatten(0, -2)
    weights = advantages(rows, k)
    if weights.shape != rows.shape or not torch.isfinite(weights).all():
        raise UserError(
            f"advantages must be finite and of shape {tuple(rows.shape)}, "
            f"got {tuple(weights.shape)}"
        )
    weights = weights.view(rewards.shape)
    # A right answer has the score grad p / p, a wrong one -grad p / (1 - p). No right answer is
    # drawn where p = 0 and no wrong one where p = 1; there grad p is 0 as well.
    right = (weights * rewards).sum(-1) / p.clamp(min=torch.finfo(p.dtype).tiny)
    wrong = (weights * (1 - rewards)).sum(-1) / (1 - p).clamp(min=torch.finfo(p.dtype).tiny)
    return ((right - wrong)[..., None] * jacobian).mean(-2)


def _drawn(world: AnalyticWorld, thetas: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The rates (R, B) and rows grad p (R, B, d) of the prompts that each seed has drawn."""
    if isinstance(world, Bandit):
        u = world.signed_features[drawn]
        logits = (u @ thetas[..., None])[..., 0]
        p = torch.sigmoid(logits)
        return p, (p * torch.sigmoid(-logits))[..., None] * u
    both = [world.success_and_jacobian(theta) for theta in thetas]
    p = torch.stack([rates[row] for (rates, _), row in zip(both, drawn, strict=True)])
    return p, torch.stack([rows[row] for (_, rows), row in zip(both, drawn, strict=True)])


def _success(world: AnalyticWorld, thetas: Tensor) -> Tensor:
    """The rates (R, N) at many parameters at once where the world allows it."""
    if isinstance(world, Bandit):
        return torch.sigmoid(thetas @ world.signed_features.T)
    return torch.stack([world.success(theta) for theta in thetas])
