r"""Steps that raise one objective and do not lower another, from exact gradients.

With G the Gram matrix of :math:`(\nabla J_1, \nabla J_k)`, every method of gradient surgery is a
choice of coefficients :math:`\lambda(G)` (:mod:`passgrad.ascent.mixing`), and the step

.. math:: \lambda_1 \nabla J_1 + \lambda_k \nabla J_k = E_x[(\lambda_1 + \lambda_k w_k(p)) \nabla p]

is a gradient of success rates with other weights of the prompts. To first order the objectives
change along it by :math:`G \lambda`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.ascent.directions import Euclidean, Metric, Scheduled
from passgrad.ascent.mixing import (
    check_aggregator,
    check_keep,
    coefficients,
    first_order_changes,
)
from passgrad.objectives import Objective, PassAtK
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Surgery:
    """One step: the Gram matrix of (base, objective) and the coefficients of the two.

    It is kept as plain numbers: small tensors that a long ascent keeps would hold the memory
    between them.
    """

    square_base: float
    square_objective: float
    inner_product: float
    lambda_base: float
    lambda_objective: float

    @classmethod
    def of(cls, gram: Tensor, lambdas: Tensor) -> Surgery:
        """From the Gram matrix, (2, 2), symmetric, and the coefficients, (2,)."""
        (square_base, inner_product), (_, square_objective) = gram.tolist()
        return cls(square_base, square_objective, inner_product, *lambdas.tolist())

    @property
    def gram(self) -> Tensor:
        """(2, 2), float64."""
        return torch.tensor(
            [
                [self.square_base, self.inner_product],
                [self.inner_product, self.square_objective],
            ],
            dtype=torch.float64,
        )

    @property
    def lambdas(self) -> Tensor:
        """(2,), float64."""
        return torch.tensor([self.lambda_base, self.lambda_objective], dtype=torch.float64)

    @property
    def cosine(self) -> float:
        """Of the two gradients, in the metric; nan where one of them is zero."""
        own = self.gram.diagonal()
        return float((self.gram[0, 1] / own.prod().sqrt()).clamp(-1, 1))

    @property
    def changes(self) -> Tensor:
        """What the two gain to first order by a unit step: (2,)."""
        return first_order_changes(self.gram, self.lambdas)


class ConflictFreeDirection:
    r"""The combined step of a method of gradient surgery, as a direction of exact ascent.

    A step costs the success rates and one ``World.vjp`` of two rows. ``history`` keeps a
    :class:`Surgery` for each step.

    :param objective: What is ascended beside ``base``: an objective, or a number k for pass@k.
    :param base: What is not to fall: pass@1 by default.
    :param aggregator: A name in :data:`passgrad.ascent.mixing.AGGREGATORS`: ``"pcgrad"``,
        ``"upgrad"``, ``"mgda"``, ``"cagrad"`` and others, or ``"constrained"``, which ascends
        ``objective`` with as much of ``base`` as keeps ``base`` from falling to first order: the
        projection of the gradient of ``objective`` on the half-space of such steps.
    :param metric: Of the inner products and of the step (:mod:`passgrad.ascent.directions`): plain
        by default. With :class:`~passgrad.ascent.directions.AdamMetric` or
        :class:`~passgrad.ascent.directions.FisherMetric` it is steps along :math:`M^{-1} \nabla J`
        that are combined, and conflict is conflict in that metric.
    :param normalise: Divide the coefficients by their sum: the step is a weighted mean of the
        gradients. By default they are those of the method.
    :param keep: The share of the gain of a gradient step on ``base`` that ``"constrained"`` keeps:
        0 keeps the level of ``base``, 1 its whole gain. For no other aggregator.
    :raises UserError: For an unknown aggregator or one whose dependency is missing, and where a
        gradient is not finite.

    >>> import passgrad as pg
    >>> kept = pg.ConflictFreeDirection(10, aggregator="constrained")
    >>> trace = pg.ascend(pg.TwoPointBandit(), (-2, -2), kept, step_size=1)
    >>> trace.pass_at_k(1)
    tensor([0.4789, 0.4790], dtype=torch.float64)
    >>> kept.history[0].lambdas
    tensor([7.0885, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        objective: Objective | float = 8,
        *,
        base: Objective | float = 1,
        aggregator: str = "pcgrad",
        metric: Metric | None = None,
        normalise: bool = False,
        keep: float = 0.0,
    ) -> None:
        check_aggregator(aggregator)
        self.keep = check_keep(keep, aggregator)
        self.objective, self.base = _as_objective(objective), _as_objective(base)
        self.aggregator, self.normalise = aggregator, normalise
        self.metric: Metric = Euclidean() if metric is None else metric
        self.history: list[Surgery] = []

    @property
    def label(self) -> str:
        """Such as "pcgrad of pass@1 and pass@8"."""
        metric = f", {self.metric.label}" if self.metric.label else ""
        keep = f", keeping {self.keep:g} of the gain of {self.base.label}" if self.keep else ""
        return f"{self.aggregator} of {self.base.label} and {self.objective.label}{keep}{metric}"

    def reset(self) -> None:
        """Forget all steps, those of the metric included."""
        self.history = []
        if hasattr(self.metric, "reset"):
            self.metric.reset()

    def __call__(self, world: World, theta: Tensor) -> tuple[Tensor, Tensor]:
        success = world.success(theta)
        both = (self.base, self.objective)
        weights = torch.stack([world.masses * one.weight(success) for one in both])
        gram, combine = self.metric(world, theta, success, weights)
        lambdas = coefficients(gram, self.aggregator, keep=self.keep, normalise=self.normalise)
        self.history.append(Surgery.of(gram, lambdas))
        return success, combine(lambdas)

    def to_frame(self) -> DataFrame:
        """One row a step: inner product, cosine, squared norms, coefficients, first-order changes.

        "base" and "objective" name the two, whatever they are.
        """
        import pandas as pd

        rows = [
            {
                "step": step,
                "inner_product": surgery.inner_product,
                "cosine": surgery.cosine,
                "square_base": surgery.square_base,
                "square_objective": surgery.square_objective,
                "lambda_base": surgery.lambda_base,
                "lambda_objective": surgery.lambda_objective,
                "change_base": float(surgery.changes[0]),
                "change_objective": float(surgery.changes[1]),
            }
            for step, surgery in enumerate(self.history)
        ]
        return pd.DataFrame(rows)


def annealed(start: float = 8, end: float = 1, *, steps: int) -> Scheduled:
    """Pass@k with k going from ``start`` to ``end`` in ``steps`` steps along a geometric line, and
    ``end`` thereafter. k is a real number on the way (:class:`~passgrad.objectives.PassAtK`).
    Raises UserError for orders below 1.
    """
    first, last = PassAtK(start).k, PassAtK(end).k

    def objective_at(step: int) -> PassAtK:
        share = min(step / max(steps - 1, 1), 1.0)
        return PassAtK(max(first ** (1 - share) * last**share, 1.0))

    return Scheduled(objective_at, f"pass@k, k from {start:g} to {end:g}")


def _as_objective(given: Objective | float) -> Objective:
    return given if hasattr(given, "weight") else PassAtK(given)  # type: ignore[return-value]
