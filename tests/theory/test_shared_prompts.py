"""Halves of answers share their prompts: a bias of 1 / M, taken out with the terms x = x'."""

import itertools

import pytest
import torch

from passgrad.estimators import get_estimator
from passgrad.measurement import influence
from passgrad.measurement.crossfit import cross_fit
from passgrad_book.experiments.estimating.answers import AnswerSamples

from .test_same_sample_bias import FLAT, LAW, MASSES

pytestmark = pytest.mark.statement("prop-shared-prompts")

M, N = 2, 4
KS = [1, 2]


@pytest.fixture(scope="module")
def everything():
    """Every draw of two prompts from the law and of four answers to each, with its probability."""
    rows = torch.tensor(
        [
            [3 * x + y for y in some]
            for x in (0, 1)
            for some in itertools.product(range(3), repeat=N)
        ]
    )
    chance = MASSES[rows[:, 0] // 3] * LAW.probabilities[rows].prod(dim=1)
    places = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(rows)))
    answers = rows[places]
    masses = torch.full((M,), 1 / M, dtype=torch.float64)
    samples = AnswerSamples(answers, LAW.rewards[answers], LAW.kernel, masses)
    return samples, chance[places].prod(dim=1)


def test_the_bias_and_its_removal(everything):
    samples, chance = everything
    chosen = get_estimator("pkpo-loo1")
    fit = cross_fit(samples, KS, KS, estimator=chosen, split="completions", own=True, seed=1)
    exact = LAW.conflict(KS)
    slopes = (LAW.probabilities * LAW.rewards)[:, None] * FLAT
    lengths = slopes.view(2, 3, -1).sum(1).square().sum(-1)
    shared = torch.stack([MASSES @ (w * lengths) for w in exact.weights])
    expected = exact.inner_product + (shared - exact.inner_product) / M
    kept = influence.curve(fit, "fixed") @ chance
    torch.testing.assert_close(kept, expected, rtol=1e-12, atol=0)
    assert (shared - exact.inner_product > 0.05 * shared).all()
    taken_out = influence.curve(fit, "new") @ chance
    torch.testing.assert_close(taken_out, exact.inner_product, rtol=1e-12, atol=0)


def test_halves_of_prompts_are_unbiased():
    """Four prompts of two kinds and two answers, all of them."""
    rows = torch.tensor(
        [
            [3 * x + y for y in some]
            for x in (0, 1)
            for some in itertools.product(range(3), repeat=2)
        ]
    )
    chance = MASSES[rows[:, 0] // 3] * LAW.probabilities[rows].prod(dim=1)
    size = torch.arange(len(rows))
    places = torch.cartesian_prod(size, size, size, size)
    answers = rows[places]
    masses = torch.full((4,), 0.25, dtype=torch.float64)
    samples = AnswerSamples(answers, LAW.rewards[answers], LAW.kernel, masses)
    chosen = get_estimator("pkpo-loo1")
    fit = cross_fit(samples, KS, KS, estimator=chosen, split="prompts", seed=1)
    mean = influence.curve(fit, "new") @ chance[places].prod(dim=1)
    torch.testing.assert_close(mean, LAW.conflict(KS).inner_product, rtol=1e-12, atol=0)
