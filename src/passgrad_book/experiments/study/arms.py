"""The arms of the study: what each makes of the rewards of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from passgrad.ascent.mixing import RunningGram, coefficients
from passgrad.estimators import advantages
from passgrad.estimators.group import GRPO, PassKTraining, VerlPassK
from passgrad.trl.schedules import AnnealedK

K = 8
NUM_SAMPLES = 16

#: rewards (P, n) and the progress of the run, 0 to 1 -> advantages (P, n)
Rule = Callable[[Tensor, float], Tensor]


def _estimator(estimator: object, k: int | None) -> Rule:
    return lambda rewards, progress: advantages(rewards, k, estimator=estimator)  # type: ignore[arg-type]


def _mixture(share: float) -> Rule:
    return lambda rewards, progress: advantages(
        rewards, [1, K], weights=[share, 1 - share], estimator="pkpo-loo1"
    )


def _annealed(rewards: Tensor, progress: float) -> Tensor:
    weights = AnnealedK(K, 1).weights(progress)
    return advantages(rewards, list(weights), weights=list(weights.values()), estimator="pkpo-loo1")


def _two_groups(rewards: Tensor, progress: float) -> Tensor:
    """Two groups of k answers a prompt, each with the leave-one-out best of verl's GRPO_PASSK."""
    groups = rewards.reshape(-1, K)
    return advantages(groups, None, estimator=VerlPassK()).reshape(rewards.shape)


def _soft_maximum(rewards: Tensor, progress: float) -> Tensor:
    """RS-GRPO with the risk that its authors advise, beta = 2 (arXiv:2509.24261)."""
    risen = (2 * rewards).exp()
    return (risen / risen.mean(1, keepdim=True) - 1) / 2 / rewards.shape[1]


class ReverseHazard:
    """CurveRL (arXiv:2605.24331): (r - p) f(p) / F(p), with p the share of right answers of a
    prompt and f, F the law of these shares over the last batches, shares of 0 and 1 left out.

    The law comes from the batches before; for the first batch from that batch itself.
    """

    def __init__(self, batches: int = 10) -> None:
        self.batches = batches
        self.counts: list[Tensor] = []

    def __call__(self, rewards: Tensor, progress: float) -> Tensor:
        n = rewards.shape[1]
        right = rewards.sum(1).long()
        own = torch.bincount(right, minlength=n + 1).double()
        own[[0, n]] = 0
        law = torch.stack(self.counts).sum(0) if self.counts else own
        weight = torch.nan_to_num(law / law.cumsum(0), nan=0.0)
        self.counts = [*self.counts, own][-self.batches :]
        return weight[right, None] * (rewards - rewards.mean(1, keepdim=True)) / n


def rule_of(arm: str) -> Rule:
    """The rule of an arm of ``RULES`` for one run."""
    rule = RULES[arm]
    return rule() if isinstance(rule, type) else rule


#: arms whose advantages follow from the rewards alone; a class keeps what it saw of a run
RULES: dict[str, Rule | type[ReverseHazard]] = {
    "pass@1": _estimator("rloo", None),
    "GRPO": _estimator(GRPO(epsilon=1e-4), None),
    "pass@4": _estimator("pkpo-loo1", 4),
    "pass@8": _estimator("pkpo-loo1", K),
    "Pass@k Training": _estimator(PassKTraining(), K),
    "pass@8, n = k": _two_groups,
    **{f"mixture {share:g}": _mixture(share) for share in (0.2, 0.35, 0.5, 0.65, 0.8)},
    "annealed": _annealed,
    "RS-GRPO": _soft_maximum,
    "CurveRL": ReverseHazard,
}


@dataclass(frozen=True)
class Surgery:
    """``ConflictFree`` of pass@1 and pass@8, as :mod:`passgrad.trl.conflict_free` has it."""

    aggregator: str
    adam: bool
    keep: float = 0.0


SURGERY = {
    "pcgrad": Surgery("pcgrad", adam=False),
    "pcgrad, Adam": Surgery("pcgrad", adam=True),
    "constrained": Surgery("constrained", adam=False),
    "constrained, Adam": Surgery("constrained", adam=True),
    "half of the gain": Surgery("constrained", adam=False, keep=0.5),
    "half of the gain, Adam": Surgery("constrained", adam=True, keep=0.5),
}
ARMS = (*RULES, *SURGERY)

#: batches between two measurements, and measurements over which a weight halves
EVERY, HALF_LIFE, CONFIDENCE = 4, 8.0, 0.9


class Surgeon:
    """The coefficients of (pass@1, pass@8) along one run.

    They come from the batches before the one that they multiply. A measurement takes the gradients
    of the two halves of a batch, and their products across the halves are unbiased. In the metric
    of Adam each estimate is divided by its trace before it is averaged, since the metric changes by
    orders of magnitude.
    """

    def __init__(self, surgery: Surgery) -> None:
        self.surgery = surgery
        self.gram = RunningGram(half_life=HALF_LIFE)
        self.lambdas = self._coefficients()

    def _coefficients(self) -> Tensor:
        gram = self.gram
        return coefficients(
            gram.mean, self.surgery.aggregator, error=gram.error,
            quantile=gram.quantile(CONFIDENCE), keep=self.surgery.keep,
        )  # fmt: skip

    def wants(self, step: int) -> bool:
        """Whether this batch is measured: the first two are, and then every fourth."""
        return self.gram.count < 2 or step % EVERY == 0

    def observe(self, halves: Tensor, second_moment: Tensor | None) -> None:
        """Take in the gradients of pass@1 and pass@8 of two halves of a batch, (2, 2, d)."""
        first, second = halves.double()
        if self.surgery.adam and second_moment is not None:
            second = second / (second_moment.double().sqrt() + 1e-8)
        product = first @ second.T
        product = (product + product.T) / 2
        scale = product.diagonal().abs().sum()
        if not scale > 0:
            return
        if self.surgery.adam and second_moment is not None:
            product = product / scale
        self.gram.update(product)
        self.lambdas = self._coefficients()


def both_orders(rewards: Tensor) -> Tensor:
    """Advantages of pass@1 and of pass@8: (2, P, n)."""
    return advantages(rewards, [1, K], estimator="pkpo-loo1")


def combined(weights: Tensor, lambdas: Tensor) -> Tensor:
    """(2, P, n) and (2,) -> (P, n)."""
    return torch.tensordot(lambdas.to(weights), weights, dims=1)
