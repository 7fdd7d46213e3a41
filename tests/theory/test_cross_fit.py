"""The cross-fit has the exact product as its mean: every sample of a small policy, weighed."""

import itertools

import pytest
import torch

from passgrad.estimators import get_estimator
from passgrad.measurement import influence
from passgrad.measurement.crossfit import cross_fit
from passgrad_book.experiments.estimating.answers import AnswerSamples

from .test_same_sample_bias import LAW, MASSES

pytestmark = pytest.mark.statement("prop-cross-fit")


@pytest.mark.parametrize("name", ["pkpo-loo1", "pkpo"])
def test_the_mean_over_all_samples_is_the_product(name):
    n = 4
    drawn = [torch.tensor(list(itertools.product(range(3), repeat=n))) + 3 * x for x in (0, 1)]
    chances = [LAW.probabilities[some].prod(dim=1) for some in drawn]
    places = torch.cartesian_prod(*(torch.arange(3**n) for _ in drawn))
    answers = torch.stack([drawn[x][places[:, x]] for x in (0, 1)], dim=1)
    samples = AnswerSamples(answers, LAW.rewards[answers], LAW.kernel, MASSES)
    chosen = get_estimator(name)
    fit = cross_fit(samples, [1, 2], [1, 2], estimator=chosen, split="completions", seed=2)
    weight = chances[0][places[:, 0]] * chances[1][places[:, 1]]
    exact = LAW.conflict([1, 2])
    torch.testing.assert_close(
        influence.curve(fit, "fixed") @ weight, exact.inner_product, rtol=1e-12, atol=0
    )
    norms = influence.squared_norms(fit, "fixed") @ weight
    torch.testing.assert_close(norms, exact.norm.square(), rtol=1e-12, atol=0)
