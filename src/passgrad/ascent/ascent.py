"""Exact ascent: theta <- theta + step_size * grad J(theta), or along another vector, in any
world.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import Objective, PassAtK
from passgrad.worlds.base import World


class Direction(Protocol):
    """Where to go from theta. It may have a state, as the momentum of an optimiser has."""

    @property
    def label(self) -> str:
        """What figures and tables call it."""
        ...

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        """p(theta), (N,) float64, and the direction: (d,), in the world's dtype."""
        ...


@dataclass(frozen=True, eq=False)
class Trace:
    """What an ascent of T steps went through: T + 1 rows, the first of them before any step."""

    success: Tensor
    """p(x), (T + 1, N), float64."""
    masses: Tensor
    """D(x), (N,)."""
    groups: tuple[str, ...]
    """One label a prompt."""
    theta: Tensor
    """The parameters after the last step, (d,)."""
    thetas: Tensor | None
    """All parameters, (T + 1, d), where they were asked for."""
    step_size: float
    objective: Objective | Direction

    def value(self, objective: Objective) -> Tensor:
        """J = E_x[f(p(x))] after every step, (T + 1,), of any objective."""
        return objective.value(self.success) @ self.masses

    def pass_at_k(self, k: float) -> Tensor:
        """J_k after every step, (T + 1,), exact."""
        return self.value(PassAtK(k))

    def group_pass_at_k(self, k: float) -> dict[str, Tensor]:
        """J_k within each group (under the prompt law given the group), each (T + 1,)."""
        values = PassAtK(k).value(self.success)
        shares = {}
        for group in dict.fromkeys(self.groups):
            members = torch.tensor([g == group for g in self.groups])
            mass = self.masses[members]
            shares[group] = values[:, members] @ (mass / mass.sum())
        return shares


def ascend(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    objective: Objective | Direction | None = None,
    *,
    step_size: float = 5.0,
    steps: int = 1,
    record_theta: bool = False,
    progress: bool = False,
) -> Trace:
    """The path of exact ascent from ``theta``, along the gradient of ``objective`` (default:
    pass@10) or along a :class:`Direction` in its place.

    The caller's theta is left as it is: one copy is moved in place, and beside it only the current
    gradient is held. ``record_theta`` keeps every theta and is meant for small worlds.
    ``progress`` shows a bar on the terminal.

    :raises UserError: For a negative number of steps, a step size that is not finite, and, naming
        the step, for parameters or success rates that cease to be finite.

    >>> import passgrad as pg
    >>> trace = pg.ascend(pg.TwoPointBandit(), (-2, -2), pg.PassAtK(10), step_size=5, steps=1)
    >>> trace.pass_at_k(10)
    tensor([0.8252, 0.9532], dtype=torch.float64)
    >>> trace.pass_at_k(1)
    tensor([0.4789, 0.4647], dtype=torch.float64)
    """
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 0:
        raise UserError(f"steps must be a whole number of at least 0, got {steps!r}")
    if not isinstance(step_size, Real) or not math.isfinite(step_size):
        raise UserError(f"step_size must be a finite number, got {step_size!r}")
    objective = PassAtK(10) if objective is None else objective
    theta = world.parameters(theta).clone()
    success = torch.empty(steps + 1, world.num_prompts, dtype=torch.float64)
    thetas = theta.new_empty(steps + 1, len(theta)) if record_theta else None

    for step in _counted(steps, progress, f"ascending {objective.label}"):
        if thetas is not None:
            thetas[step] = theta
        success[step], gradient = (
            objective(world, theta)
            if callable(objective)
            else world.objective_gradient(theta, objective)
        )
        _check_finite(success[step], step, step_size)
        theta.add_(gradient, alpha=step_size)
        del gradient  # else it would live beside its successor
        _check_finite(theta, step + 1, step_size)
    success[steps] = world.success(theta)
    _check_finite(success[steps], steps, step_size)
    if thetas is not None:
        thetas[steps] = theta
    return Trace(success, world.masses, world.groups, theta, thetas, step_size, objective)


def _counted(steps: int, progress: bool, description: str) -> Iterable[int]:
    if not progress:
        return range(steps)
    from rich.progress import track

    return track(range(steps), description=description)


def _check_finite(values: Tensor, step: int, step_size: float) -> None:
    if not torch.isfinite(values).all():
        raise UserError(
            f"the ascent left the finite numbers at step {step}: "
            f"choose a step_size smaller than {step_size:g}"
        )
