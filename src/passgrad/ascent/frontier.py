r"""Paths in the plane of (J_1, J_k) of several methods from one point, with steps of one length.

Every method here goes along :math:`d = M^{-1} \sum_j \lambda_j \nabla J_j`, and a method is its
rule for :math:`\lambda`. The size of :math:`\lambda` is a convention: UPGrad of two objectives is
half of PCGrad, on one line. With one step size for all, methods are compared by that convention.
With one length for all,

.. math:: \theta \leftarrow \theta + \frac{\ell}{\|d\|_M} d, \qquad
          \|d\|_M^2 = \langle d, M d \rangle = \lambda^\top G \lambda,

they are compared by where they go: the changes to first order are then
:math:`\ell \, G \lambda / \sqrt{\lambda^\top G \lambda}`, and all of them lie on one arc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import annealed
from passgrad.ascent.directions import Combine, Euclidean, Metric
from passgrad.ascent.mixing import AGGREGATORS, check_aggregator, coefficients
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.progress import Progress
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Method:
    """A rule for the coefficients of (grad J_1, grad J_k)."""

    name: str
    choose: Callable[[Tensor], Tensor] | None
    """From the Gram matrix of the two, (2, 2), to lambda, (2,); None where ``order`` decides."""
    order: Callable[[int], float] | None = None
    """The k of the objective ascended at a step, for a schedule."""


def method(name: str, k: float = 10, steps: int = 1) -> Method:
    """The method of a name, for pass@1 and pass@k and a path of so many steps.

    ``"pass@1"``; ``"pass@k"``; ``"mixture <s>"``, the gradient of (1 - s) J_1 + s J_k with a share
    s in [0, 1]; ``"annealed"``, pass@k with k going to 1 along a geometric line; or an aggregator
    of :data:`passgrad.ascent.mixing.AGGREGATORS`. Raises UserError for another name, and for an
    aggregator whose dependency is missing.
    """
    if name in ("pass@1", "pass@k"):
        return _fixed(name, float(name == "pass@k"))
    if name.startswith("mixture "):
        try:
            share = float(name.removeprefix("mixture "))
        except ValueError:
            share = math.nan
        if 0 <= share <= 1:
            return _fixed(name, share)
    elif name == "annealed":
        scheduled = annealed(k, 1, steps=steps)
        return Method(name, None, lambda step: scheduled.objective_at(step).k)  # type: ignore[attr-defined]
    elif name in AGGREGATORS:
        check_aggregator(name)
        return Method(name, lambda gram: coefficients(gram, name, normalise=False))
    raise UserError(
        f"there is no method {name!r}; known: pass@1, pass@k, mixture <share in [0, 1]>, annealed, "
        + ", ".join(AGGREGATORS)
    )


def frontier(
    world: World,
    theta: Tensor | Sequence[float] | None,
    methods: Sequence[str],
    *,
    k: float = 10,
    steps: int,
    length: float | None = None,
    step_size: float | None = None,
    make_metric: Callable[[], Metric] = Euclidean,
    progress: Progress | None = None,
) -> dict[str, DataFrame]:
    r"""The paths of the named methods from the same theta, exactly.

    A step costs the success rates and one ``World.vjp`` of two rows, three for a schedule; methods
    share the first step.

    :param methods: Names as of :func:`method`.
    :param k: The order beside 1.
    :param length: Each step has this length in the metric. Give it or ``step_size``, by which the
        steps of the methods' own lengths are multiplied.
    :param make_metric: Makes the metric that one method works with; plain gradients by default.
    :param progress: Told of every step; the path of each method is a stage.
    :returns: ``"path"``, one row a method and step 0..T: J_1 and J_k before the step
        (``pass_at_1``, ``pass_at_k``), of each group too (``pass_at_1_<group>``, ...); the cosine
        and the norms of the two gradients; ``share``, that of ``lambda_k`` in the sum of the two
        absolute values (nan for a schedule between 1 and k); ``length`` of the step in the metric;
        the changes by this step, to first order and in fact (``predicted_1``, ``realised_1``,
        ``predicted_k``, ``realised_k``). In the last row what belongs to a step is nan.
        ``"prompts"``, one row a method and prompt: mass, group, p at the start and at the end.
    :raises UserError: As :func:`method` does, for both or neither of ``length`` and ``step_size``
        or one that is not positive, and where a step has no direction or leaves the finite numbers.

    >>> import passgrad as pg
    >>> methods = ["pass@k", "constrained"]
    >>> tables = pg.frontier(pg.TwoPointBandit(), (-2, -2), methods, k=10, steps=2, length=0.1)
    >>> tables["path"].query("step == 2")[["method", "pass_at_1", "pass_at_k"]].round(4)
            method  pass_at_1  pass_at_k
    2       pass@k     0.4759     0.8597
    5  constrained     0.4790     0.8475
    """
    import pandas as pd

    if (length is None) == (step_size is None):
        raise UserError("give either the length of each step or a step_size, not both")
    size = length if step_size is None else step_size
    if not isinstance(size, Real) or not (math.isfinite(size) and size > 0):
        raise UserError(f"length and step_size must be positive finite numbers, got {size!r}")
    if not isinstance(steps, Integral) or steps < 1:
        raise UserError(f"steps must be a whole number of at least 1, got {steps!r}")
    theta = world.parameters(theta)
    rules = [method(name, k, steps) for name in methods]
    # A metric with a state must see the steps of one path only.
    first = make_metric()
    start = None if hasattr(first, "reset") else _Point.at(world, theta, first, (1, k))
    path: list[dict[str, Any]] = []
    prompts: list[DataFrame] = []
    for rule in rules:
        direction = _Steps(rule, k, length, size, make_metric(), start)
        trace = ascend(
            world, theta, direction, step_size=direction.factor, steps=steps, progress=progress
        )
        path += direction.rows
        path.append({"method": rule.name, "step": steps} | _values(world, trace.success[steps], k))
        prompts.append(
            pd.DataFrame(
                {
                    "method": rule.name,
                    "prompt": range(world.num_prompts),
                    "group": world.groups,
                    "mass": world.masses,
                    "success_start": trace.success[0],
                    "success_end": trace.success[steps],
                }
            )
        )
    frame = pd.DataFrame(path)
    for one in ("1", "k"):
        after = frame.groupby("method", sort=False)[f"pass_at_{one}"].shift(-1)
        frame[f"realised_{one}"] = after - frame[f"pass_at_{one}"]
    return {"path": frame, "prompts": pd.concat(prompts, ignore_index=True)}


@dataclass(frozen=True, eq=False)
class _Point:
    """What a step needs to know of a theta."""

    success: Tensor
    gram: Tensor
    combine: Combine

    @classmethod
    def at(cls, world: World, theta: Tensor, metric: Metric, orders: Sequence[float]) -> _Point:
        success = world.success(theta)
        weights = torch.stack([world.masses * PassAtK(one).weight(success) for one in orders])
        return cls(success, *metric(world, theta, success, weights))


def _fixed(name: str, share: float) -> Method:
    lambdas = torch.tensor([1 - share, share], dtype=torch.float64)
    return Method(name, lambda gram: lambdas)


class _Steps:
    """The steps of one method, as a direction of ascent, with a row for each."""

    def __init__(
        self,
        rule: Method,
        k: float,
        length: float | None,
        size: float,
        metric: Metric,
        start: _Point | None,
    ) -> None:
        self.rule, self.k, self.length, self.size = rule, k, length, size
        self.metric, self.start = metric, start
        self.label = rule.name
        self.rows: list[dict[str, Any]] = []
        self._factor = math.nan

    def factor(self, step: int) -> float:
        """What the direction of this step is multiplied by."""
        return self._factor

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        step, k = len(self.rows), self.k
        order = k if self.rule.order is None else self.rule.order(step)
        between = order not in (1, k)
        if step == 0 and self.start is not None and not between:
            point = self.start
        else:
            point = _Point.at(world, theta, self.metric, (1, k, order) if between else (1, k))
        if self.rule.choose is not None:
            lambdas = self.rule.choose(point.gram)
        else:
            lambdas = torch.tensor([0.0, 0.0, 1.0] if between else [order == 1, order == k])
        lambdas = lambdas.double()
        norm = math.sqrt(max(float(lambdas @ point.gram @ lambdas), 0.0))
        if not (math.isfinite(norm) and norm > 0):
            raise UserError(
                f"the step {step} of {self.rule.name} has no direction: its length is {norm:g}"
            )
        self._factor = self.size if self.length is None else self.size / norm
        changes = self._factor * (point.gram @ lambdas)[:2]
        total = lambdas[:2].abs().sum()
        self.rows.append(
            {"method": self.rule.name, "step": step}
            | _values(world, point.success, k)
            | {
                "cosine": _cosine(point.gram),
                "norm_1": math.sqrt(float(point.gram[0, 0])),
                "norm_k": math.sqrt(float(point.gram[1, 1])),
                "share": float(lambdas[1] / total) if total > 0 else math.nan,
                "length": self._factor * norm,
                "predicted_1": float(changes[0]),
                "predicted_k": float(changes[1]),
            }
        )
        return point.success, point.combine(lambdas)


def _values(world: World, success: Tensor, k: float) -> dict[str, float]:
    made = {}
    groups = dict.fromkeys(world.groups) if len(set(world.groups)) > 1 else {}
    for name, order in (("pass_at_1", 1.0), ("pass_at_k", float(k))):
        values = PassAtK(order).value(success)
        made[name] = float(world.masses @ values)
        for group in groups:
            member = torch.tensor([one == group for one in world.groups])
            mass = world.masses * member
            made[f"{name}_{group}"] = float(mass @ values / mass.sum())
    return made


def _cosine(gram: Tensor) -> float:
    return float((gram[0, 1] / (gram[0, 0] * gram[1, 1]).sqrt()).clamp(-1, 1))
