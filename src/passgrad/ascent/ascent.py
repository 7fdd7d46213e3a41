"""Exact ascent: theta <- theta + step_size * grad J(theta), or along another vector, in any
world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import Objective, PassAtK
from passgrad.progress import Progress
from passgrad.worlds.base import World, first_not_finite


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
    step_size: float | Callable[[int], float]
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
    step_size: float | Callable[[int], float] = 5.0,
    steps: int = 1,
    record_theta: bool = False,
    observe: Callable[[int, Tensor], object] | None = None,
    stop: Callable[[int, Tensor, Tensor], bool] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """The path of exact ascent from ``theta``, along the gradient of ``objective`` (default:
    pass@10) or along a :class:`Direction` in its place.

    The caller's theta is left as it is: one copy is moved in place, and beside it only the current
    gradient is held. A step costs what the gradient costs, and the last point its success rates.

    :param step_size: What the gradient is multiplied by; or a function from the number of a step,
        from 0, to that, asked when the direction of this step is known.
    :param record_theta: Keep every theta; meant for small worlds.
    :param observe: Called with (step, theta) at each of the T + 1 points, before the gradient there
        is taken, so that what it computes does not live beside one. Theta is moved in place
        afterwards: copy what is to stay.
    :param stop: Called with (step, theta, p) at each of the T + 1 points, when p(theta) and the
        gradient there are known (at the last, p alone). If it is true the ascent ends at this
        point, and so does the trace.
    :param progress: Told of every step.
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
    objective = PassAtK(10) if objective is None else objective
    theta = world.parameters(theta).clone()
    success = torch.empty(steps + 1, world.num_prompts, dtype=torch.float64)
    thetas = theta.new_empty(steps + 1, len(theta)) if record_theta else None
    remedy = "take shorter steps"
    if not callable(step_size):
        remedy = f"choose a step_size smaller than {_check_size(step_size):g}"
    if progress:
        progress.stage(f"ascending {objective.label}", steps)

    for step in range(steps + 1):
        if thetas is not None:
            thetas[step] = theta
        if observe is not None:
            observe(step, theta)
        gradient = None
        if step == steps:
            success[step] = world.success(theta)
        elif callable(objective):
            success[step], gradient = objective(world, theta)
        else:
            success[step], gradient = world.objective_gradient(theta, objective)
        _check_finite(success[step], objective, step, remedy)
        ended = stop is not None and stop(step, theta, success[step])
        if ended or gradient is None:
            break
        theta.add_(
            gradient, alpha=_check_size(step_size(step)) if callable(step_size) else step_size
        )
        del gradient  # else it would live beside its successor
        _check_finite(theta, objective, step + 1, remedy)
        if progress:
            progress.advance()
    return Trace(
        success[: step + 1],
        world.masses,
        world.groups,
        theta,
        None if thetas is None else thetas[: step + 1],
        step_size,
        objective,
    )


def _check_size(step_size: float) -> float:
    if not isinstance(step_size, Real) or not math.isfinite(step_size):
        raise UserError(f"step_size must be a finite number, got {step_size!r}")
    return step_size


def _check_finite(values: Tensor, objective: Objective | Direction, step: int, remedy: str) -> None:
    if first_not_finite(values) is not None:
        raise UserError(
            f"the ascent on {objective.label} left the finite numbers at step {step}: {remedy}"
        )
