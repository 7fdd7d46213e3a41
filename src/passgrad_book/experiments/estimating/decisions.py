"""Which estimate says the sign of <grad J_k, grad J_1>, and how often a verdict is wrong: measured
where the truth is known exactly, in bandits and in a small language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.measurement import influence as terms
from passgrad.measurement import sample_bandit
from passgrad.measurement.crossfit import Split, cross_fit
from passgrad.measurement.samples import SampledGradients
from passgrad.stats.bands import Array, band, intervals
from passgrad.stats.binomial import success_interval
from passgrad.stats.intervals import Prompts
from passgrad.stats.unsolved import expected_weights
from passgrad.worlds.bandit import Bandit, GaussianBandit
from passgrad_book.build.experiment import SINGLE, experiment
from passgrad_book.experiments.estimating.answers import AnswerLaw, language_answers
from passgrad_book.experiments.estimating.naive import biased_conflict
from passgrad_book.experiments.small_models.small_language import small_language_world

if TYPE_CHECKING:
    import pandas as pd

SIGN_METHODS = ("cross-fit", "same-sample", "plug-in", "shrunken")
#: where the bandit stands: gradients of both signs at the orders that are looked at
_THETAS = ((-1.0, 0.0), (-2.0, -2.0), (-1.0, -0.5), (-0.5, 0.5))
#: shares of the second family of prompts
_SHARES = (0.1, 0.3, 0.6, 0.9)
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Case:
    """One population, one way to ask it."""

    world: str
    prompts: Prompts
    num_prompts: int | None
    num_samples: int
    truth: Callable[[Sequence[int]], Array]
    draw: Callable[[int, int], SampledGradients]

    @property
    def ks(self) -> list[int]:
        """1, 2, 4, ... up to half of the answers, at most 16."""
        return [k for k in (1, 2, 4, 8, 16) if 2 * k <= self.num_samples]


def _bandit(world: Bandit, theta: Sequence[float], n: int, size: int | None) -> Case:
    return Case(
        "bandit",
        "fixed" if size is None else "new",
        size,
        n,
        lambda ks: conflict(world, theta, ks).inner_product.numpy(),
        lambda copies, seed: sample_bandit(
            world, theta, n, num_prompts=size, replications=copies, seed=seed
        ),
    )


def _language(law: AnswerLaw, n: int, size: int | None) -> Case:
    return Case(
        "small language model",
        "fixed" if size is None else "new",
        size,
        n,
        lambda ks: law.conflict(ks).inner_product.numpy(),
        lambda copies, seed: law.sample(n, num_prompts=size, replications=copies, seed=seed),
    )


def _of_shares(law: AnswerLaw, share: float) -> AnswerLaw:
    """The law with this share of its mass on the second half of its prompts."""
    half = len(law.masses) // 2
    masses = law.masses.clone()
    masses[:half] *= (1 - share) / masses[:half].sum()
    masses[half:] *= share / masses[half:].sum()
    return replace(law, masses=masses)


def _with_hard(world: Bandit, share: float) -> Bandit:
    """The same prompts with this share of the mass on the hard ones."""
    hard = torch.tensor([group == "hard" for group in world.groups])
    masses = hard * (share / hard.sum().double()) + ~hard * ((1 - share) / (~hard).sum().double())
    return Bandit(world.features[:, 1], hard, masses)


def share_without_product(product: Callable[[float], float], most: float) -> float:
    """The share up to ``most`` at which the product is 0, by bisection; UserError without one."""
    low, high = 0.01, most
    signs = product(low) < 0, product(high) < 0
    if signs[0] == signs[1]:
        raise UserError("the product has one sign at every share")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (product(middle) < 0) == signs[0] else (low, middle)
    return (low + high) / 2


def signs_by_method(
    samples: SampledGradients, ks: Sequence[int], prompts: Prompts
) -> dict[str, Array]:
    """Estimates (K, R) by each of :data:`SIGN_METHODS`.

    "shrunken" is the sum of the unbiased agreements with the weights E[w_k(p) | c] in place of
    unbiased ones (:func:`passgrad.stats.unsolved.expected_weights`).
    """
    split: Split = "completions" if prompts == "fixed" else "prompts"
    chosen = get_estimator("pkpo-loo1")
    fit = cross_fit(samples, ks, [1], estimator=chosen, split=split, seed=0)
    agreement = terms.agreement(fit, prompts).numpy()
    counts = samples.rewards.sum(-1).round().long().numpy()
    shrunken = [
        (expected_weights(count, samples.rewards.shape[-1], ks) * some) @ samples.masses.numpy()
        for count, some in zip(counts, agreement, strict=True)
    ]
    return {
        "cross-fit": terms.curve(fit, prompts)[fit.places(ks)].numpy(),
        "same-sample": biased_conflict(samples, ks),
        "plug-in": biased_conflict(samples, ks, method="plug-in"),
        "shrunken": np.stack(shrunken, axis=-1),
    }


def _signs(case: Case, replications: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each order and method: bias and error in units of the product at 1, right signs."""
    truth = case.truth(case.ks)
    found = signs_by_method(case.draw(replications, seed), case.ks, case.prompts)
    for method, values in found.items():
        for row, k in enumerate(case.ks):
            if k == 1:
                continue
            away = (values[row] - truth[row]) / truth[0]
            yield {
                "world": case.world, "prompts": case.prompts, "size": case.num_prompts,
                "n": case.num_samples, "k": k, "truth": truth[row] / truth[0], "method": method,
                "bias": away.mean(), "error": (away**2).mean() ** 0.5,
                "right": ((values[row] < 0) == (truth[row] < 0)).mean(),
            }  # fmt: skip


def _verdicts(case: Case, k: int, replications: int, seed: int) -> Iterator[dict[str, Any]]:
    """How often a conflict and an agreement are called at k, where the product is 0."""
    split: Split = "completions" if case.prompts == "fixed" else "prompts"
    chosen = get_estimator("pkpo-loo1")
    ends: dict[str, list[Array]] = {"interval": [], "band": []}
    for start in range(0, replications, 250):
        samples = case.draw(min(250, replications - start), seed + start)
        fit = cross_fit(samples, case.ks, case.ks, estimator=chosen, split=split, seed=seed)
        values = terms.curve(fit, case.prompts)[fit.places(case.ks)].numpy()
        e = terms.influences(fit, case.prompts, "inner", chosen, seed=seed, resplits=16).numpy()
        row = case.ks.index(k)
        for name, pair in (
            ("interval", intervals(values, e, _LEVEL)),
            ("band", band(values, e, _LEVEL, seed=seed, draws=2000)[:2]),
        ):
            ends[name].append(np.stack([pair[0][row], pair[1][row]]))
    for name, pieces in ends.items():
        low, high = np.concatenate(pieces, axis=1)
        for called, wrong in (("conflict", high < 0), ("agreement", low > 0)):
            reach = success_interval(int(wrong.sum()), wrong.size)
            yield {
                "world": case.world, "prompts": case.prompts, "size": case.num_prompts,
                "n": case.num_samples, "k": k, "by": name, "called": called,
                "rate": wrong.mean(), "low": float(reach[0]), "high": float(reach[1]),
            }  # fmt: skip


def _zero(
    world: Callable[[float], Bandit | AnswerLaw], theta: Sequence[float] | None, k: int
) -> float:
    """The share of the second family at which the product at k is 0."""

    def product(share: float) -> float:
        made = world(share)
        exact = made.conflict([k]) if isinstance(made, AnswerLaw) else conflict(made, theta, [k])
        return float(exact.inner_product)

    # In the bandit there are two such shares.
    return share_without_product(product, 0.99 if theta is None else 0.3)


@experiment(version=1, label="seed-{seed}")
def right_signs(
    *, base: int, sign_replications: int, verdict_replications: int, seed: int
) -> Mapping[str, pd.DataFrame]:
    """Right signs of four estimates, and the one-sided errors of verdicts.

    Tables: ``signs``, bias and root mean square error in units of ||grad J_1||^2 and the share of
    right signs, by population, order and method; ``verdicts``, how often a conflict or an agreement
    is called at an order whose product is 0, because of the masses of the prompts.
    """
    import pandas as pd

    law = language_answers(small_language_world(base=base), max_new_tokens=2)
    wide = GaussianBandit(0.2, 0.2)
    cases = [
        *(
            _bandit(wide.sample(3 * size, size, seed=7), theta, n, None)
            for theta in _THETAS for size in (6, 48) for n in (16, 64)
        ),
        *(_bandit(wide, theta, 16, size) for theta in _THETAS for size in (30, 200)),
        *(_language(_of_shares(law, share), n, None) for share in _SHARES for n in (16, 64)),
        *(_language(_of_shares(law, share), 16, size) for share in _SHARES for size in (30, 200)),
    ]  # fmt: skip
    signs = [row for case in cases for row in _signs(case, sign_replications, seed)]
    few, theta = wide.sample(48, 16, seed=7), (-1.0, -0.5)
    balanced = {k: _with_hard(few, _zero(lambda s: _with_hard(few, s), theta, k)) for k in (4, 8)}
    even = _of_shares(law, _zero(lambda s: _of_shares(law, s), None, 8))
    at_zero = [
        *((k, _bandit(world, theta, n, None)) for k, world in balanced.items() for n in (16, 64)),
        *(
            (k, _bandit(world, theta, 16, size))
            for k, world in balanced.items() for size in (50, 200, 1000)
        ),
        *((8, _language(even, n, None)) for n in (16, 64)),
        *((8, _language(even, 16, size)) for size in (50, 200)),
    ]  # fmt: skip
    verdicts = [
        row for k, case in at_zero for row in _verdicts(case, k, verdict_replications, seed)
    ]
    return {"signs": pd.DataFrame(signs), "verdicts": pd.DataFrame(verdicts)}


right_signs.witnessed(
    base=3, sign_replications=3, verdict_replications=4, seed=0, tolerance=SINGLE
)  # fmt: skip
