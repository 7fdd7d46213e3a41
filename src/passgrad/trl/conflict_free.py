r"""Updates that raise pass@k and pass@1 together, as a change of advantages.

:math:`\nabla J_1` and :math:`\nabla J_k` are linear in the same scores, so that a combination
:math:`\lambda_1 \nabla J_1 + \lambda_k \nabla J_k` is the gradient of the advantages
:math:`\lambda_1 A^{(1)} + \lambda_k A^{(k)}`. What is needed beyond an ordinary step are three
numbers, the Gram matrix of the two gradients, and these come from independent parts of a batch
without bias (:mod:`passgrad.trl.streamed`).

*When.* The matrix is measured on every ``every``-th batch, at the cost of a forward and two
backward passes over it (one with rewards of 0 and 1), and averaged over the last measurements with
weights that halve with every ``half_life`` of them. Measuring all of a batch now and then beats a
share 1 / m of every batch: the variance of a product of two noisy gradients goes with the inverse
*square* of the batch, and is m times smaller at the same cost. The price is the age of the mean: it
is that of the gradients over the last ``every * half_life`` steps, a bias where they turn fast.

*Which batch.* The coefficients of a batch come from the batches before it. Given the past they are
constants, and the update is then an unbiased estimate of the combination: coefficients from the
same samples would be correlated with the gradient that they multiply.

*In which metric.* Adam does not step along a gradient but along its product with a diagonal, and
whether an objective falls along that is a matter of products in the same diagonal. They are taken
from the second moments of the optimiser (:mod:`passgrad.trl.metric`). "To first order" then holds
of a step without momentum; momentum adds steps before.

*At the start* the first two batches are measured; until then the coefficients are equal, and those
of ``"constrained"`` are those of pass@1 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from passgrad.ascent.mixing import (
    RunningGram,
    check_aggregator,
    check_keep,
    coefficients,
    nearest_psd,
)
from passgrad.errors import UserError
from passgrad.trl.schedules import Plan, count

Split = Literal["prompts", "completions"]
MetricName = Literal["optimizer", "plain"]


class ConflictFree(Plan):
    r"""Coefficients for pass@1 and pass@k from the Gram matrix of their gradients.

    :param k: The order that is ascended beside pass@1.
    :param aggregator: A method of gradient surgery (:data:`passgrad.ascent.mixing.AGGREGATORS`):
        ``"pcgrad"``, ``"mgda"``, ``"upgrad"``, ``"cagrad"``, ``"imtlg"``, ``"nashmtl"`` and others,
        or ``"constrained"``: ascend pass@k, with as much of pass@1 as it takes for pass@1 not to
        fall to first order, or to keep a share of its gain.
    :param keep: That share, for ``"constrained"`` only: of what a step on pass@1 alone would gain,
        to first order. 0 keeps the level of pass@1, and is plain pass@k where no conflict is
        measured; 1 keeps the whole gain.
    :param confidence: Of the bounds on which ``"constrained"`` relies: one-sided, for each of the
        two products.
    :param every, half_life: Batches between measurements, and measurements over which the weight of
        one halves.
    :param per_prompt: Weights of prompts instead: from the M x M Gram matrix of the gradients of
        pass@k of the M prompts of a batch, so that no prompt pays for another. Measured on every
        batch, on the same samples as the update. It holds 2 M gradients at once, up to ``memory``
        GiB: meant for adapters and small models.
    :param metric: "optimizer" for products in the metric of the optimiser, where it is torch's Adam
        or AdamW (:mod:`passgrad.trl.metric` has the others that are known). Before its first step
        they are plain, and with an optimiser that is not known, of which a warning says so. "plain"
        for those throughout, as for plain gradient descent.
    :param split: Independent parts of a batch: "prompts" (for prompts of this kind, the default) or
        "completions" (halves of each group, for these prompts; k must fit into a half). With one
        prompt a batch it is the latter.
    """

    def __init__(
        self,
        k: int = 8,
        aggregator: str = "pcgrad",
        *,
        keep: float = 0.0,
        confidence: float = 0.9,
        every: int = 4,
        half_life: float = 8.0,
        per_prompt: bool = False,
        split: Split = "prompts",
        memory: float = 4.0,
        metric: MetricName = "optimizer",
    ) -> None:
        self.k = count(k)
        if self.k == 1 and not per_prompt:
            raise UserError("pass@1 has no conflict with itself: k must be at least 2")
        check_aggregator(aggregator)
        self.keep = check_keep(keep, aggregator)
        if per_prompt and aggregator == "constrained":
            raise UserError("'constrained' takes two objectives: leave per_prompt out")
        if per_prompt and aggregator == "upgrad":
            # Of two objectives it needs no solver, of more it does.
            coefficients(torch.eye(3, dtype=torch.float64), aggregator)
        if split not in ("prompts", "completions"):
            raise UserError(f"split must be 'prompts' or 'completions', got {split!r}")
        if metric not in ("optimizer", "plain"):
            raise UserError(f"metric must be 'optimizer' or 'plain', got {metric!r}")
        self.metric: MetricName = "plain" if per_prompt else metric
        self.aggregator, self.confidence = aggregator, confidence
        self.per_prompt, self.split, self.memory = per_prompt, split, memory
        self.half_life = half_life
        self._every = count(every, "every")
        self.gram = RunningGram(half_life=half_life)
        self.measured_in: MetricName = "plain"
        self._lambdas = self.lambdas(self.gram)

    @property
    def orders(self) -> tuple[int, ...]:
        return (self.k,) if self.per_prompt else (1, self.k)

    @property
    def mixed(self) -> bool:
        return True

    @property
    def measured(self) -> int | None:
        return None if self.per_prompt else self.k

    @property
    def every(self) -> int:
        return self._every

    def lambdas(self, gram: RunningGram) -> Tensor:
        """The coefficients of (pass@1, pass@k) that follow from the measurements so far: (2,)."""
        return coefficients(
            gram.mean,
            self.aggregator,
            error=gram.error,
            quantile=gram.quantile(self.confidence),
            keep=self.keep,
        )

    def weights(self, progress: float) -> dict[int, float]:
        if self.per_prompt:
            return {self.k: 1.0}
        first, second = self._lambdas.tolist()
        return {1: first, self.k: second}

    def observe(self, gram: RunningGram) -> None:
        self._lambdas = self.lambdas(gram)

    def take(self, gram: Tensor, metric: MetricName) -> None:
        """Take in one more measurement in that metric; one in another metric starts anew."""
        if metric != self.measured_in:
            self.gram.reset()
            self.measured_in = metric
        self.gram.update(gram)
        self.observe(self.gram)

    def prompt_weights(self, first: Tensor, second: Tensor) -> Tensor:
        """The weights of M prompts, (M,), with mean 1, from their gradients in two independent
        halves of the completions, each (M, d).

        The diagonal of the Gram matrix takes products of the halves; off it the prompts are
        independent, and the means of the halves are multiplied. Weights below zero, which some
        methods give, are kept.
        """
        mean = ((first + second) / 2).double()
        gram = mean @ mean.T
        gram.diagonal().copy_((first.double() * second.double()).sum(1))
        known = gram.diagonal() > 0
        weights = torch.zeros(len(gram), dtype=torch.float64)
        if known.any():
            some = nearest_psd(gram[known][:, known])
            weights[known.cpu()] = coefficients(some, self.aggregator) * int(known.sum())
        # Prompts whose gradient is not told from noise keep their ordinary weight.
        weights[~known.cpu()] = 1.0
        return weights * len(weights) / weights.sum() if weights.sum() > 0 else weights

    def state_dict(self) -> dict[str, Any]:
        return {
            "lambdas": self._lambdas.tolist(),
            "gram": self.gram.state_dict(),
            "measured_in": self.measured_in,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._lambdas = torch.tensor(state["lambdas"], dtype=torch.float64)
        self.gram.load_state_dict(state["gram"])
        self.measured_in = state["measured_in"]

    def describe(self) -> str:
        if self.per_prompt:
            return f"pass@{self.k}, prompts weighed by {self.aggregator}"
        keep = f", keeping {self.keep:g} of the gain of pass@1" if self.keep else ""
        return f"pass@1 and pass@{self.k} by {self.aggregator}{keep}, {self.metric} metric"
