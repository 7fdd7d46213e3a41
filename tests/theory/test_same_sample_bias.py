"""E<G(k), G(1)> from the same answers exceeds the product by the covariances of the prompts."""

import itertools

import pytest
import torch

from passgrad.estimators import get_estimator
from passgrad_book.experiments.estimating.answers import AnswerLaw, AnswerSamples
from passgrad_book.experiments.estimating.naive import biased_conflict

pytestmark = pytest.mark.statement("prop-same-sample-bias")

N = 3
KS = (1, 2, 3)
_G = torch.Generator().manual_seed(3)
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.1, 0.7]], dtype=torch.float64)
FEATURES = torch.randn(2, 3, 4, dtype=torch.float64, generator=_G)
SCORES = FEATURES - torch.einsum("xy,xyd->xd", PROBABILITIES, FEATURES)[:, None]
FLAT = SCORES.reshape(6, 4)
MASSES = torch.tensor([0.6, 0.4], dtype=torch.float64)
LAW = AnswerLaw(
    prompts=torch.tensor([0, 0, 0, 1, 1, 1]),
    probabilities=PROBABILITIES.flatten(),
    rewards=torch.tensor([1.0, 0, 0, 1, 1, 0], dtype=torch.float64),  # two right answers to one
    kernel=FLAT @ FLAT.T,
    masses=MASSES,
)


def answers_to(x):
    """Every N answers to one prompt, (27, N), and their probabilities."""
    drawn = torch.tensor(list(itertools.product(range(3), repeat=N))) + 3 * x
    return drawn, LAW.probabilities[drawn].prod(dim=1)


def every_sample():
    (first, p), (second, q) = answers_to(0), answers_to(1)
    places = torch.cartesian_prod(torch.arange(27), torch.arange(27))
    answers = torch.stack([first[places[:, 0]], second[places[:, 1]]], dim=1)
    samples = AnswerSamples(answers, LAW.rewards[answers], LAW.kernel, MASSES)
    return samples, p[places[:, 0]] * q[places[:, 1]]


def covariances(k):
    """tr Cov(u_x(k), u_x(1)) of each prompt, with unbiased advantages."""
    result = []
    for x in (0, 1):
        drawn, chance = answers_to(x)
        advantages = get_estimator("pkpo-loo1").advantages(LAW.rewards[drawn], [k, 1])
        u, v = torch.einsum("kri,rid->krd", advantages, FLAT[drawn])
        mean = torch.einsum("r,rd,rd->", chance, u, v)
        result.append(mean - (chance @ u) @ (chance @ v))
    return torch.stack(result)


def test_the_excess_is_the_covariance_of_the_prompts():
    samples, chance = every_sample()
    found = torch.as_tensor(biased_conflict(samples, KS)) @ chance
    excess = torch.stack([MASSES.square() @ covariances(k) for k in KS])
    expected = LAW.conflict(KS).inner_product + excess
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert covariances(1).min() > 0
    assert (excess.abs() > 0.01 * expected.abs()).all()  # it would be seen


def test_the_plug_in_is_off_by_more_than_the_covariance():
    samples, chance = every_sample()
    found = torch.as_tensor(biased_conflict(samples, KS, method="plug-in")) @ chance
    unbiased = torch.as_tensor(biased_conflict(samples, KS)) @ chance
    assert (found[1:] - unbiased[1:]).abs().min() > 1e-3
