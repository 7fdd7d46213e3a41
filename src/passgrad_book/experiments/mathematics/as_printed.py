r"""The measurement of Barakat et al. (2026, section 5 and appendix D) as it is printed, and the way
from there to an unbiased one, one choice at a time.

As printed (where the text is silent, as its numbers imply): n answers a prompt at temperature 0.7
and top-p 0.95; prompts with :math:`\hat p = c / n > \delta_1` (easy) or
:math:`0 < \hat p < \delta_2` (hard) are kept, N of them; weights :math:`k (1 - \hat p)^{k-1}` with
k = n; gradients :math:`g_x = \frac1n \sum_i r_i s_i` of the right answers, at temperature 1, with
respect to "the final hidden layer"; and the sum

.. math:: \sum_x w_x \, a(x), \qquad a(x) = \langle g_x, \tfrac1N \sum_{x'} g_{x'} \rangle ,

which is N times an estimate of :math:`\langle \nabla J_k, \nabla J_1 \rangle` on the kept prompts.

All answers to a prompt enter through their number c and two vectors, the mean scores of right and
wrong answers (:mod:`passgrad_book.experiments.mathematics.class_scores`), so that an estimate is a
product :math:`b_k^T K b_1` with coefficients b that follow from the counts: nothing is computed
twice, and the law of an estimate over new answers costs no more than drawing counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.estimators.pass_at_k import PKPOLooMinusOne, parts
from passgrad.objectives import PassAtK
from passgrad_book.experiments.mathematics.class_scores import Law, PromptVectors

if TYPE_CHECKING:
    from pandas import DataFrame


class RightOnly(PKPOLooMinusOne):
    r"""The sloo-1 of PKPO without its exception at k = 1: :math:`A_+(c) = (k/n) S_{c-1}`, A_- = 0.

    Unbiased for every k, and zero on wrong answers as the printed gradients are; at k = 1 it is
    the mean of r s.
    """

    name = "right-only"

    def coefficients(self, n: int, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tables (K, n + 1)."""
        _, k, _, before = parts(n, ks)
        return k / n * before, torch.zeros_like(before)


#: unbiased, from right answers alone
RIGHT_ONLY: Final = RightOnly()

#: thresholds (delta_1, delta_2) of the paper's first figure of this measurement
FILTER: Final = (0.85, 0.10)


@dataclass(frozen=True)
class Step:
    """One way to put the counts and the vectors of prompts together.

    ``law``: which answers, those of the printed sampling law or those of the policy itself.
    ``band``: the two thresholds, or None for all prompts. ``unsolved``: whether prompts with c = 0
    count. ``total``: "sum" over prompts or "mean". ``halves``: the two gradients from different
    halves of the answers.
    """

    name: str
    reading: str = "all parameters"
    law: Law = "printed"
    band: tuple[float, float] | None = FILTER
    unsolved: bool = False
    estimator: str | Estimator = "plug-in"
    total: Literal["sum", "mean"] = "sum"
    halves: bool = False


def steps(band: tuple[float, float] = FILTER) -> list[Step]:
    """From the printed measurement, in its three readings, to the corrected one.

    From the reading over all parameters on, each differs from the one before in the choice that
    names it. The two centred ones are beside the way: "centred" has the choices of "c = 0 back",
    "centred, T = 1" those of "T = 1".
    """
    final = ("final norm gain", "final hidden state", "output layer")
    found = [Step(f"printed: {name}", name, band=band) for name in final]
    every = Step("all parameters", band=band)
    mean = replace(every, name="mean, not sum", total="mean")
    unfiltered = replace(mean, name="no filter", band=None)
    back = replace(unfiltered, name="c = 0 back", unsolved=True)
    centred = replace(back, name="centred", estimator="plug-in-centred")
    policy = replace(back, name="T = 1", law="policy")
    both = replace(policy, name="centred, T = 1", estimator="plug-in-centred")
    weights = replace(policy, name="unbiased weights", estimator=RIGHT_ONLY)
    corrected = replace(weights, name="cross-fitted", halves=True)
    return [*found, every, mean, unfiltered, back, centred, policy, both, weights, corrected]


@dataclass(frozen=True, eq=False)
class Products:
    """float64 arrays (...), one for each set of counts."""

    inner: Tensor
    """The product: of sums over prompts divided once by N for "sum", twice for "mean"."""
    cosine: Tensor
    """nan where a length is zero, or its unbiased square not positive."""
    kept: Tensor
    """N, the prompts that count."""
    easy: Tensor
    """Of these, the ones above the first threshold (or with c > n / 2 without thresholds)."""


def weight(c: Tensor, n: int, k: int) -> Tensor:
    """The printed weight, k (1 - c/n)^(k-1)."""
    return PassAtK(k).weight(c.double() / n)


def kept_prompts(c: Tensor, n: int, step: Step) -> Tensor:
    """Which prompts count, bool, the shape of c."""
    rate = c.double() / n
    kept = torch.ones_like(rate, dtype=torch.bool) if step.unsolved else c > 0
    if step.band is not None:
        kept = kept & ((rate > step.band[0]) | (rate < step.band[1]))
    return kept


def estimate(
    vectors: PromptVectors, step: Step, counts: Sequence[Tensor], n: int, k: int
) -> Products:
    """The step's estimate from counts (..., M) of right answers, n a prompt.

    :param counts: One, or those of two halves of n answers each for ``step.halves``.
    :raises UserError: For a number of counts that does not fit, for k beyond n, and for a centred
        step where the wrong answers have no vectors.
    """
    if len(counts) != (2 if step.halves else 1):
        raise UserError(f"the step {step.name!r} takes {2 if step.halves else 1} sets of counts")
    total = sum(counts[1:], counts[0])
    kept = kept_prompts(total, n * len(counts), step)
    number = kept.sum(-1).clamp(min=1).double()
    kernel = vectors.kernels[step.reading]
    sides = [
        _coefficients(vectors, step, c, n, (1, k), len(kernel)) * kept_of(vectors, step, kept)
        for c in counts
    ]
    if step.halves:
        (a1, ak), (b1, bk) = sides
        inner = (_form(ak, kernel, b1) + _form(bk, kernel, a1)) / 2
        norms = _form(a1, kernel, b1), _form(ak, kernel, bk)
    else:
        ((g1, gk),) = sides
        inner = _form(gk, kernel, g1)
        norms = _form(g1, kernel, g1), _form(gk, kernel, gk)
    scale = norms[0] * norms[1]
    positive = (norms[0] > 0) & (norms[1] > 0)
    cosine = inner / torch.where(positive, scale, torch.nan).sqrt()
    # A ratio of unbiased estimates beyond one says that the lengths are not known.
    cosine = cosine.where(cosine.abs() <= 1 + 1e-9, torch.nan)
    rate = total.double() / (n * len(counts))
    easy = kept & (rate > (0.5 if step.band is None else step.band[0]))
    inner = inner / number if step.total == "sum" else inner / number.square()
    return Products(inner, cosine, kept.sum(-1), easy.sum(-1))


def kept_of(vectors: PromptVectors, step: Step, kept: Tensor) -> Tensor:
    """(..., M) as (..., R): whether the prompt of each vector is kept."""
    size = len(vectors.kernels[step.reading])
    result = torch.zeros(*kept.shape[:-1], size, dtype=torch.float64)
    for places in (vectors.right[step.law], vectors.wrong[step.law]):
        have = places >= 0
        result[..., places[have]] = kept[..., have].double()
    return result


def exact(
    vectors: PromptVectors, reading: str, p: Tensor, ks: Sequence[int]
) -> tuple[Tensor, Tensor]:
    r"""The exact product and cosine at each k, (K,), where the right answer is one sequence:
    :math:`\nabla p = p \nabla \log p`, equal masses.
    """
    places, kernel = vectors.right["policy"], vectors.kernels[reading]
    if (places < 0).any():
        raise UserError("a prompt has no vector of its right answer; compute it for all prompts")
    some = kernel[places][:, places]
    rows = PassAtK(1).weight(p)[None] * p
    weighed = torch.stack([PassAtK(k).weight(p) for k in ks]) * p / len(p)
    g1 = rows[0] / len(p)
    inner = weighed @ some @ g1
    lengths = torch.einsum("kx,xy,ky->k", weighed, some, weighed).sqrt()
    return inner, inner / (lengths * (g1 @ some @ g1).sqrt())


def replicate(
    vectors: PromptVectors,
    step: Step,
    rates: Tensor,
    n: int,
    k: int,
    *,
    replications: int = 1000,
    seed: int = 0,
) -> Products:
    """The estimates from new answers: counts c ~ Bin(n, rate) for every prompt, as often as asked.

    What the answers look like, given that they are right or wrong, stays as it was found.

    :param rates: (M,) success rates under the step's law: exact ones, or c / n of a sample for a
        parametric bootstrap.
    """
    generator = np.random.default_rng(seed)
    shape = (replications, len(rates))
    counts = [
        torch.from_numpy(generator.binomial(n, rates.double().numpy(), size=shape))
        for _ in range(2 if step.halves else 1)
    ]
    return estimate(vectors, step, counts, n, k)


@dataclass(frozen=True, eq=False)
class SharedScores:
    """Samples (:class:`passgrad.measurement.samples.SampledGradients`) in which all right answers
    of a prompt have one score and wrong ones none: a gradient is its (L, M) coefficients of these
    scores, and ``kernel`` (M, M) holds their products. Thousands of prompts fit into memory, where
    a score for each answer would not.
    """

    rewards: Tensor
    masses: Tensor
    kernel: Tensor

    def gradients(self, coefficients: Tensor) -> Tensor:
        """(L, M) for (L, M, n)."""
        return (coefficients * self.rewards).sum(-1)

    def directional(self, gradients: Tensor, where: Tensor) -> Tensor:
        """(L, M, n)."""
        return (gradients @ self.kernel)[..., None] * self.rewards * where


def as_samples(vectors: PromptVectors, rewards: Tensor) -> SharedScores:
    """Samples for :func:`passgrad.measurement.estimate_conflict`, from the policy's answers.

    Each right answer has the mean score of the right ones of its prompt, each wrong one zero: an
    estimator that weighs right answers alone cannot tell.

    :param rewards: (M, n) of the answers drawn from the policy.
    :raises UserError: For a prompt that was solved and has no vector.
    """
    places = vectors.right["policy"]
    have = places >= 0
    if ((rewards.sum(1) > 0) & ~have).any():
        raise UserError("a prompt that was solved has no vector of its right answers")
    kernel = torch.zeros(len(places), len(places), dtype=torch.float64)
    some = places[have]
    kernel[have[:, None] & have] = vectors.kernels["all parameters"][some][:, some].flatten()
    masses = torch.full((len(rewards),), 1 / len(rewards), dtype=torch.float64)
    return SharedScores(rewards.double(), masses, kernel)


def counts_for(step: Step, rewards: Mapping[Law, Tensor], n: int) -> list[Tensor]:
    """The counts that a step takes from the answers under each law: n of the printed one, the first
    n of the policy's 2 n, or either half of these.
    """
    if step.law == "printed":
        return [rewards["printed"][:, :n].sum(1)]
    halves = [rewards["policy"][:, :n].sum(1), rewards["policy"][:, n : 2 * n].sum(1)]
    return halves if step.halves else halves[:1]


def ablation(
    vectors: PromptVectors,
    rewards: Mapping[Law, Tensor],
    n: int,
    k: int,
    *,
    band: tuple[float, float] = FILTER,
    replications: int = 1000,
    seed: int = 0,
) -> DataFrame:
    """Every step on one sample: product and cosine with the standard deviations that new answers at
    the observed shares give them, N, and how many of these prompts are easy.

    A step that needs vectors that were not computed is left out.
    """
    import pandas as pd

    rows = []
    for place, step in enumerate(steps(band)):
        counts = counts_for(step, rewards, n)
        shares = sum(counts[1:], counts[0]) / (n * len(counts))
        try:
            value = estimate(vectors, step, counts, n, k)
            again = replicate(vectors, step, shares, n, k, replications=replications, seed=seed)
        except UserError:
            continue
        known = again.cosine[again.cosine.isfinite()]
        rows.append(
            {
                "place": place,
                "step": step.name,
                "product": float(value.inner),
                "product_error": float(again.inner.std()),
                "cosine": float(value.cosine),
                "cosine_error": float(known.std()) if len(known) > 1 else float("nan"),
                "kept": int(value.kept),
                "easy": int(value.easy),
            }
        )
    return pd.DataFrame(rows)


def sign_shares(
    vectors: PromptVectors,
    success: Mapping[Law, Tensor],
    n: int,
    k: int,
    *,
    band: tuple[float, float] = FILTER,
    replications: int = 1000,
    seed: int = 0,
) -> DataFrame:
    """How often each step but the centred ones has the sign of the exact product, over new answers
    at the exact success rates (M,) under either law.

    "none" is the share without a sign, where nothing was left to estimate from.
    """
    import pandas as pd

    truth = float(exact(vectors, "all parameters", success["policy"], [k])[0][0])
    rows = []
    for step in steps(band):
        if step.estimator == "plug-in-centred":  # prompts without wrong answers have no vector
            continue
        again = replicate(
            vectors, step, success[step.law], n, k, replications=replications, seed=seed
        )
        signs = again.inner.sign() * np.sign(truth)
        rows.append(
            {
                "step": step.name,
                "right": float((signs > 0).double().mean()),
                "wrong": float((signs < 0).double().mean()),
                "none": float((signs == 0).double().mean()),
                "cosine": float(again.cosine.nanmean()),
            }
        )
    return pd.DataFrame(rows)


def _coefficients(
    vectors: PromptVectors, step: Step, c: Tensor, n: int, ks: Sequence[int], size: int
) -> Tensor:
    """(2, ..., R): what each vector counts in the sums over prompts at k = 1 and k."""
    plus, minus = get_estimator(step.estimator).tables(n, ks)
    place = c.long()
    result = torch.zeros(len(ks), *c.shape[:-1], size, dtype=torch.float64)
    for table, number, where, needed in (
        (plus, c, vectors.right[step.law], "right"),
        (minus, n - c, vectors.wrong[step.law], "wrong"),
    ):
        values = table[:, place] * number
        lacking = (where < 0) & (values != 0).flatten(0, -2).any(0)
        if lacking.any():
            raise UserError(
                f"the step {step.name!r} needs the {needed} answers of prompt "
                f"{int(lacking.nonzero()[0, 0])}, which have no vector"
            )
        have = where >= 0
        result[..., where[have]] += values[..., have]
    return result


def _form(left: Tensor, kernel: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("...r,rs,...s->...", left, kernel, right)
