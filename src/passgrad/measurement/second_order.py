r"""How pass@k changes along a vector of parameter space, to second order, from sampled answers.

Along :math:`\theta + \eta v` let :math:`s_i = \langle \nabla \log \pi(y_i | x), v \rangle` and
:math:`h_i = v^\top \nabla^2 \log \pi(y_i | x) \, v`. Since :math:`\pi'' / \pi = s^2 + h` the success
rate has :math:`p' = E[r s]` and :math:`p'' = E[r (s^2 + h)]`, and with
:math:`f_k(p) = 1 - (1 - p)^k`

.. math:: D_v J_k = E_x[f_k'(p) p'], \qquad
          D_v^2 J_k = E_x\bigl[f_k'(p) \, p'' + f_k''(p) \, p'^2\bigr].

Products of means need distinct answers. Advantages A of an unbiased estimator of grad J_k give
:math:`E[\sum_i A_i s_i] = f_k'(p) p'` and, because s^2 + h has the mean 0 as well,
:math:`E[\sum_i A_i (s_i^2 + h_i)] = f_k'(p) p''`. For the last term take pairs of answers, and let
c' count the right ones among the n - 2 others:

.. math:: E \sum_{a \ne b} \gamma_{c'} (r_a - \beta_{c'}) (r_b - \beta_{c'}) \, s_a s_b
          = f_k''(p) \, p'^2, \qquad
          \gamma_{c'} = - \frac{k (k - 1)}{n (n - 1)} \binom{n-2-c'}{k-2} \Big/ \binom{n-2}{k-2},

for every baseline :math:`\beta_{c'}`: given the others, the two are independent of each other, with
:math:`E[(r - \beta) s] = p'`, and the mean of the ratio of binomials is :math:`(1 - p)^{k-2}`. Here
:math:`\beta_{c'} = c' / (n - 2)`, which leaves nothing of prompts whose answers are all right or all
wrong. The sum over pairs is one over answers: all depends on c alone but for squares of sums.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.estimators.counts import decisive_share
from passgrad.lm.curvature import CurvatureMethod, curvatures
from passgrad.lm.distributed import Processes
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.crossfit import order_advantages
from passgrad.measurement.samples import Along
from passgrad.measurement.store import StoredPasses
from passgrad.progress import Progress


@dataclass(frozen=True)
class PairWeights:
    """What the product s_a s_b of two answers to one prompt is multiplied by, for c = 0..n right
    answers among n: (K, n + 1) each, 0 where there is no such pair. Over ordered pairs.
    """

    right: Tensor
    """Both answers are right."""
    mixed: Tensor
    """One of them is."""
    wrong: Tensor
    """None is."""


def pair_weights(num_samples: int, ks: Sequence[int]) -> PairWeights:
    """The weights of the pairs for f_k''(p) p'^2; raises UserError for less than two answers."""
    n = num_samples
    if n < 2:
        raise UserError(f"the second order needs at least 2 completions a prompt, got {n}")
    k = torch.tensor(list(ks), dtype=torch.float64)[:, None]
    # c' = 0..n - 2; pass@1 is linear in p, and the order 0 of the table is as good as any there.
    share = decisive_share(n - 1, [max(int(one) - 1, 1) for one in ks])
    gamma = -k * (k - 1) / (n * (n - 1)) * share
    baseline = torch.arange(n - 1, dtype=torch.float64) / max(n - 2, 1)
    table = gamma.new_zeros(3, len(gamma), n + 1)
    table[0, :, 2:] = gamma * (1 - baseline).square()
    table[1, :, 1:n] = -gamma * (1 - baseline) * baseline
    table[2, :, : n - 1] = gamma * baseline.square()
    return PairWeights(*table)


def path_derivatives(
    rewards: Tensor,
    slopes: Tensor,
    curvatures: Tensor,
    ks: Sequence[int],
    estimator: Estimator,
) -> tuple[Tensor, Tensor]:
    """Unbiased estimates of the first and second derivative of f_k(p) along v: (K, ..., P) each.

    ``rewards`` (0 or 1), ``slopes`` s and ``curvatures`` h are (..., P, n), of independent answers
    and a v that does not depend on them. The estimator is an unbiased one that takes k. O(K n) for
    a prompt.
    """
    weights = order_advantages(rewards, ks, estimator)
    first = torch.einsum("k...i,...i->k...", weights, slopes)
    bend = torch.einsum("k...i,...i->k...", weights, slopes.square() + curvatures)
    return first, bend + _pairs(rewards, slopes, pair_weights(rewards.shape[-1], ks))


def _pairs(rewards: Tensor, slopes: Tensor, weights: PairWeights) -> Tensor:
    right, wrong = rewards * slopes, (1 - rewards) * slopes
    sums = right.sum(-1), wrong.sum(-1)
    squares = right.square().sum(-1), wrong.square().sum(-1)
    c = rewards.sum(-1).long()
    return (
        weights.right[:, c] * (sums[0].square() - squares[0])
        + 2 * weights.mixed[:, c] * sums[0] * sums[1]
        + weights.wrong[:, c] * (sums[1].square() - squares[1])
    )


class ModelSteps(StoredPasses):
    """The samples of a language model; all numbers are kept in a folder, if there is one.

    The slopes are those that the estimate of conflict has kept there for the same half and order,
    if it has. ``progress`` advances by 1 behind the slopes and by 1 behind the curvatures.
    """

    def __init__(
        self,
        passes: CompletionPasses,
        folder: Path | None = None,
        progress: Progress | None = None,
        group: Processes | None = None,
        *,
        method: CurvatureMethod = "auto",
    ) -> None:
        super().__init__(passes, folder, progress, group)
        self.method = method

    def vector(self, coefficients: Tensor) -> Any:
        """v, as the passes have vectors: one backward pass."""
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
            return torch.tensor(self.passes.lengths(v()), dtype=torch.float64)

        key = (coefficients.double(), where)
        slope = self.kept.tensor("directional", *key, compute=slopes)
        self.progress.advance()
        bend = self.kept.tensor("curvatures", *key, compute=bends)
        size = self.kept.tensor("step-lengths", *key, compute=lengths)
        self.progress.advance()
        return Along(slope, bend, size[0], size[1])
