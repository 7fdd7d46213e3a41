"""Expectations over every outcome of a tiny world, exact, against the gradients themselves."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.measurement import ScoreSamples, influence, sample_bandit
from passgrad.measurement.crossfit import cross_fit, split_halves
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad_book.experiments.estimating.naive import biased_conflict

from .conftest import (
    FEATURES,
    MASSES,
    POLICY,
    SCORES,
    SUCCESS,
    exact,
    outcomes,
    vectors,
)

LOO = get_estimator("pkpo-loo1")
HALF = torch.full((2,), 0.5, dtype=torch.float64)
QUARTER = torch.full((4,), 0.25, dtype=torch.float64)
KS = (1, 2)


@pytest.fixture(scope="module")
def fixed():
    samples, chance = outcomes((0, 1), 4, MASSES)
    return cross_fit(samples, KS, KS, estimator=LOO, split="completions"), samples, chance


@pytest.fixture(scope="module")
def new_completions():
    samples, chance = outcomes((None, None), 4, HALF)
    fit = cross_fit(samples, KS, KS, estimator=LOO, split="completions", own=True)
    return fit, samples, chance


@pytest.fixture(scope="module")
def new_prompts():
    samples, chance = outcomes((None,) * 4, 2, QUARTER)
    return cross_fit(samples, KS, KS, estimator=LOO, split="prompts"), samples, chance


def mean(values, chance):
    return values @ chance


def targets(j=None):
    return torch.tensor([exact(k, 1 if j is None else k) for k in KS], dtype=torch.float64)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_the_tiny_world_is_a_softmax_policy():
    theta = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
    close((FEATURES @ theta).softmax(1), POLICY)
    jacobian = torch.autograd.functional.jacobian(
        lambda at: (FEATURES @ at).log_softmax(dim=1), theta
    )
    close(jacobian, SCORES)


def test_the_curve_is_unbiased_for_these_prompts(fixed):
    fit, _, chance = fixed
    close(mean(influence.curve(fit, "fixed"), chance), targets())
    close(mean(influence.squared_norms(fit, "fixed"), chance), targets("norm"))


def test_estimators_without_a_baseline_are_unbiased_as_well():
    """They have coefficients where all answers are right, too."""
    samples, chance = outcomes((0, 1), 4, MASSES)
    plain = get_estimator("pkpo")
    fit = cross_fit(samples, KS, KS, estimator=plain, split="completions")
    close(mean(influence.curve(fit, "fixed"), chance), targets())
    rewards, scores = samples.rewards[chance.argmin()], samples.scores
    watched = Watched(ScoreSamples(torch.ones_like(rewards), scores[0], MASSES))
    cross_fit(watched, KS, KS, estimator=plain, split="completions")
    assert (watched.forward[0] | watched.forward[1]).all()


@pytest.mark.parametrize("name", ["new_completions", "new_prompts"])
def test_the_curve_is_unbiased_for_the_law_of_the_prompts(name, request):
    fit, _, chance = request.getfixturevalue(name)
    close(mean(influence.curve(fit, "new"), chance), targets())
    close(mean(influence.squared_norms(fit, "new"), chance), targets("norm"))


def test_for_new_prompts_the_terms_within_a_prompt_are_a_bias(new_completions):
    fit, _, chance = new_completions
    within = torch.stack([MASSES @ (vectors(k) * vectors(1)).sum(dim=1) for k in KS])
    bias = (within - targets()) / 2  # over M = 2
    assert bias.abs().max() > 0.05 * targets().abs().max()
    close(mean(influence.curve(fit, "fixed"), chance), targets() + bias)


def test_agreement_of_these_prompts_and_of_new_ones(fixed, new_completions, new_prompts):
    fit, _, chance = fixed
    expected = vectors(1) @ (MASSES @ vectors(1))
    close(influence.agreement(fit, "fixed").T @ chance, expected)
    for fit, _, chance in (new_completions, new_prompts):
        found = influence.agreement(fit, "new")
        close((found * chance[:, None]).sum(0), (MASSES @ expected).expand(found.shape[1]))


@pytest.mark.parametrize("method", ["same-sample", "plug-in"])
def test_the_same_answers_twice_are_biased_by_their_covariance(fixed, method):
    """By the covariances of single prompts, each enumerated by itself."""
    _, samples, chance = fixed
    found = torch.as_tensor(biased_conflict(samples, KS, method=method)) @ chance
    estimator = get_estimator("plug-in") if method == "plug-in" else LOO
    means, covariances = [], []
    for x in (0, 1):
        alone, law = outcomes((x,), 4, torch.ones(1, dtype=torch.float64))
        weights = estimator.advantages(alone.rewards[:, 0], KS)
        u = torch.einsum("kri,rid->krd", weights, alone.scores[:, 0])
        centre = torch.einsum("r,krd->kd", law, u)
        means.append(centre)
        second = torch.einsum("r,krd,rd->k", law, u, u[0])
        covariances.append(second - centre @ centre[0])
    g = torch.einsum("x,xkd->kd", MASSES, torch.stack(means))
    bias = torch.einsum("x,xk->k", MASSES.square(), torch.stack(covariances))
    close(found, g @ g[0] + bias)
    assert (bias > 0).all()
    if method == "same-sample":
        close(g @ g[0], targets())
        assert (bias > 0.1 * targets().abs()).all()  # it fails the test of unbiasedness
    else:
        assert abs(float(g[1] @ g[0]) - exact(2)) > 0.02 * abs(exact(2))  # the weights do as well


def test_the_bias_of_the_same_answers_at_1_is_the_variance_of_rloo(fixed):
    _, samples, chance = fixed
    found = torch.as_tensor(biased_conflict(samples, [1])) @ chance
    wrong = POLICY[:, 1:] / (1 - SUCCESS)[:, None]
    centre = torch.einsum("xy,xyd->xd", wrong, SCORES[:, 1:])
    spread = (wrong * (SCORES[:, 1:] - centre[:, None]).square().sum(-1)).sum(1)
    variance = get_estimator("rloo").variance(
        SUCCESS, 4, 1, mean_square=SCORES[:, 0].square().sum(-1), noise_wrong=spread
    )
    close(found, exact(1) + (MASSES.square() @ variance)[None])


@pytest.mark.parametrize("product", ["inner", "norm"])
def test_the_variance_for_new_prompts_is_not_underestimated(new_prompts, product):
    """The mean of the estimated variance exceeds the exact one by terms of second order."""
    fit, _, chance = new_prompts
    estimates = {"inner": influence.curve, "norm": influence.squared_norms}[product]
    estimate = estimates(fit, "new")
    variance = estimate.square() @ chance - (estimate @ chance).square()
    e = influence.influences(fit, "new", product, LOO)
    claimed = e.square().sum((-2, -1)) @ chance
    assert (claimed >= variance * (1 - 1e-12)).all()
    assert (claimed <= 4 * variance).all()


class AtRest(ScoreSamples):
    """Samples that find the same gradients whatever the answers were."""

    def gradients(self, coefficients):
        still = torch.tensor([[0.5, -1.0, 0.2], [0.1, 0.3, -0.7]], dtype=torch.float64)
        return still[:, None].expand(-1, len(self.rewards), -1)


@pytest.mark.parametrize("product", ["inner", "norm"])
def test_the_variance_is_unbiased_along_gradients_at_rest(product):
    samples, chance = outcomes((0, 1), 4, MASSES)
    still = AtRest(samples.rewards, samples.scores, MASSES)
    fit = cross_fit(still, KS, KS, estimator=LOO, split="completions")
    e = influence.influences(fit, "fixed", product, LOO, resplits=3)
    claimed = e.square().sum((-2, -1)) @ chance
    # The estimate is half the sum of the two halves' products, which are independent here.
    rows = fit.places(fit.reported)
    total = sum(influence._pull(pairing, rows, product) @ MASSES for pairing in fit.pairings) / 2
    close(claimed, total.square() @ chance - (total @ chance).square())


@pytest.mark.parametrize("split", ["completions", "prompts"])
def test_influences_of_new_prompts_add_up_to_zero(split):
    samples = sample_bandit(TwoPointBandit(), (0.2, -0.3), 12, num_prompts=9, seed=1)
    own = split == "completions"
    fit = cross_fit(samples, KS, KS, estimator=LOO, split=split, own=own)
    for product in ("inner", "norm"):
        e = influence.influences(fit, "new", product, LOO)
        assert e.shape == (2, 9, 1)
        assert e.abs().max() > 1e-4
        torch.testing.assert_close(e.sum((1, 2)), torch.zeros(2).double(), rtol=0, atol=1e-14)


def test_prompts_without_gradients_in_common_still_have_an_error():
    """Where prompts share nothing, the products are those within prompts, noise included."""
    samples = sample_bandit(GaussianBandit().sample(3, 3, seed=1), (-0.3, 0.2), 20, seed=2)
    apart = torch.eye(6, dtype=torch.float64)[:, None, :, None] * samples.scores[:, :, None]
    tabular = ScoreSamples(samples.rewards, apart.flatten(2), samples.masses)
    fit = cross_fit(tabular, KS, KS, estimator=LOO, split="completions")
    e = influence.influences(fit, "fixed", "inner", LOO)
    error = e.square().sum((1, 2)).sqrt()
    assert (error > 0.05 * influence.curve(fit, "fixed").abs()).all()


def test_every_answer_is_in_one_half():
    for split, n in (("completions", 7), ("prompts", 5)):
        halves = split_halves(9, n, split, seed=3)
        covered = sum(half.put(torch.ones(half.members.shape), (9, n)) for half in halves)
        assert (covered == 1).all()
    first, second = split_halves(9, 7, "completions", seed=3)
    assert first.members.shape == (9, 4)
    assert second.members.shape == (9, 3)
    assert len(set(map(tuple, first.members.sort().values.tolist()))) > 1  # at random


class Watched:
    """Samples that record which answers took part in a pass."""

    def __init__(self, samples):
        self.inner, self.rewards, self.masses = samples, samples.rewards, samples.masses
        self.forward, self.backward = [], []

    def gradients(self, coefficients):
        self.backward.append((coefficients != 0).any(0))
        return self.inner.gradients(coefficients)

    def directional(self, gradients, where):
        self.forward.append(where)
        return self.inner.directional(gradients, where)


def test_prompts_with_only_right_or_only_wrong_answers_take_part_in_no_pass():
    rewards = torch.tensor([[1.0, 0, 1, 0, 1, 0], [0] * 6, [1] * 6])
    scores = torch.randn(3, 6, 2, dtype=torch.float64)
    watched = Watched(ScoreSamples(rewards, scores, torch.full((3,), 1 / 3).double()))
    cross_fit(watched, (1, 2), (1, 2), estimator=LOO, split="completions")
    for passes in (watched.forward, watched.backward):
        assert len(passes) == 2
        assert not (passes[0] & passes[1]).any()
        assert not (passes[0] | passes[1])[1:].any()
    assert (watched.forward[0] | watched.forward[1])[0].all()


def test_the_same_halves_for_gradients_and_for_answers_would_be_biased(fixed):
    """The test of unbiasedness can fail: with the gradient of the answers' own half it does."""
    _, samples, chance = fixed

    class Confused(Watched):
        def directional(self, gradients, where):
            self.forward.append(self.inner.directional(gradients, torch.ones_like(where)))
            return self.inner.directional(gradients, where)

        def gradients(self, coefficients):
            self.backward.append(coefficients)
            # The second gradient asked for is replaced by the first: A against A.
            return self.inner.gradients(self.backward[0])

    fit = cross_fit(Confused(samples), KS, KS, estimator=LOO, split="completions")
    found = mean(influence.curve(fit, "fixed"), chance)
    assert (found > targets() + 0.05 * targets().abs()).all()


def test_refusals():
    with pytest.raises(UserError, match="at least 4 a prompt"):
        split_halves(5, 3, "completions", seed=0)
    with pytest.raises(UserError, match="at least 4 prompts"):
        split_halves(3, 8, "prompts", seed=0)
    with pytest.raises(UserError, match="split must be"):
        split_halves(8, 8, "halves", seed=0)
    samples, _ = outcomes((0, 1), 4, MASSES)
    with pytest.raises(UserError, match="draw at least 6 a prompt"):
        cross_fit(samples, (3,), (3,), estimator=LOO, split="completions")
    watched = Watched(samples)
    with pytest.raises(UserError, match='take split="prompts"'):
        cross_fit(watched, (1,), (1,), estimator=LOO, split="completions", own=True)
