import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.measurement import (
    OwnProducts,
    SampledGradients,
    ScoreSamples,
    estimate_conflict,
    influence,
    sample_bandit,
)
from passgrad.measurement.crossfit import cross_fit
from passgrad.measurement.influence import agreement_error
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

from .conftest import MASSES, one_of, outcomes

THETA = (-2.0, -2.0)
CLEAR = (-1.0, 0.0)
LOO = get_estimator("pkpo-loo1")


@pytest.fixture(scope="module")
def samples():
    world = GaussianBandit(0.2, 0.4).sample(60, 40, seed=1)
    return sample_bandit(world, THETA, 16, seed=2)


def test_it_is_the_one_replication_of_the_enumerated_estimate():
    everything, _ = outcomes((None, None), 4, torch.tensor([0.5, 0.5]).double())
    options = {"split": "completions", "seed": 4}
    fit = cross_fit(everything, (1, 2), (1, 2), estimator=LOO, own=True, **options)
    curve = influence.curve(fit, "new")
    e = influence.influences(fit, "new", "inner", LOO)
    for place in (7, 1234, 5000):
        found = estimate_conflict(one_of(everything, place), [2, 1], prompts="new", **options)
        np.testing.assert_allclose(found.inner_product, curve[:, place], atol=1e-14)
        np.testing.assert_allclose(found.influence, e[:, place], atol=1e-14)
        np.testing.assert_array_equal(found.curve, found.inner_product)


@pytest.mark.parametrize(
    ("prompts", "split"), [("fixed", None), ("new", None), ("new", "completions")]
)
def test_many_answers_find_the_exact_conflict(prompts, split):
    """4,000 answers, or 100 and, for new prompts, 400 prompts of each kind."""
    copies = 1 if prompts == "fixed" else 400
    n = 4_000 if prompts == "fixed" else 100
    world = GaussianBandit(0.2, 0.2).sample(4 * copies, copies, seed=3)
    exact = conflict(world, CLEAR, [1, 2, 4])
    found = estimate_conflict(
        sample_bandit(world, CLEAR, n, seed=5), [1, 2, 4], prompts=prompts, split=split
    )
    error = found.standard_error / exact.inner_product.abs().numpy()
    assert (error < 0.3).all()
    distance = np.abs(found.inner_product - exact.inner_product.numpy())
    assert (distance < 4 * found.standard_error).all()
    assert (np.abs(found.squared_norm / exact.norm.square().numpy() - 1) < 0.5).all()
    assert found.cosine[0] == pytest.approx(1)
    inside = (found.cosine_low <= exact.cosine.numpy()) & (
        exact.cosine.numpy() <= found.cosine_high
    )
    assert inside[1:].all()


def test_the_point_estimate_does_not_depend_on_the_reported_orders(samples):
    for options in ({"prompts": "fixed"}, {"prompts": "new"}, {"split": "completions"}):
        few = estimate_conflict(samples, [4], **options)
        many = estimate_conflict(samples, [1, 2, 4, 7], **options)
        np.testing.assert_allclose(few.curve, many.curve, rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(few.influence[0], many.influence[2], rtol=1e-12, atol=1e-18)
        assert few.ks.tolist() == [4]
        assert few.threshold == pytest.approx(many.threshold, nan_ok=True)


def test_the_curve_goes_up_to_the_size_of_a_half(samples):
    assert estimate_conflict(samples, [2], prompts="fixed").curve_ks.tolist() == [*range(1, 9)]
    assert estimate_conflict(samples, [2], prompts="new").curve_ks[-1] == 16
    centred = estimate_conflict(samples, [2], prompts="fixed", estimator="centred-l2o")
    assert centred.curve_ks[-1] == 7
    # At k = 1 both are RLOO.
    plain = estimate_conflict(samples, [1], prompts="fixed")
    assert centred.curve[0] == pytest.approx(plain.curve[0], rel=1e-12)


def test_new_prompts_have_more_to_vary_than_fixed_ones(samples):
    fixed = estimate_conflict(samples, [1, 2, 4], prompts="fixed")
    new = estimate_conflict(samples, [1, 2, 4], prompts="new", split="completions")
    assert (new.standard_error > 1.2 * fixed.standard_error).all()


def test_the_band_is_wider_than_the_intervals(samples):
    found = estimate_conflict(samples, [1, 2, 4, 8])
    assert (found.band_low < found.low).all()
    assert (found.band_high > found.high).all()
    assert (found.low < found.inner_product).all()


def test_one_seed_one_result(samples):
    first, again, other = (estimate_conflict(samples, [1, 4], seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.band_low, again.band_low)
    assert not np.array_equal(first.curve, other.curve)


def test_agreements_average_to_the_product_at_1_and_have_errors(samples):
    found = estimate_conflict(samples, [1], prompts="fixed")
    assert found.masses @ found.agreement == pytest.approx(found.curve[0], rel=1e-12)
    mixed = (found.success > 0.3) & (found.success < 0.7)
    assert (found.agreement_error[mixed] > 0).all()
    solved = (found.success == 0) | (found.success == 1)
    assert solved.any()
    assert (found.agreement_error[solved] == 0).all()
    small = ScoreSamples(samples.rewards[:, :4], samples.scores[:, :4], samples.masses)
    # Halves of two are too small to leave one out.
    assert np.isnan(estimate_conflict(small, [1], split="completions").agreement_error).all()


class AtRest(ScoreSamples):
    """Samples that find the same gradient whatever the answers were."""

    def gradients(self, coefficients):
        return torch.ones(1, len(self.rewards), 2, dtype=torch.float64)


@pytest.mark.parametrize("split", ["completions", "prompts"])
def test_the_error_of_an_agreement_is_its_spread_for_a_direction_at_rest(split):
    world = GaussianBandit().sample(2, 2, seed=4)
    many = sample_bandit(world, (-2.0, 0.1), 32, replications=4000, seed=6)
    still = AtRest(many.rewards, many.scores, many.masses)
    fit = cross_fit(still, (1,), (1,), estimator=LOO, split=split, seed=1)
    spread = influence.agreement(fit, "fixed" if split == "completions" else "new").std(dim=0)
    claimed = agreement_error(fit, LOO).square().mean(dim=0).sqrt()
    torch.testing.assert_close(claimed, spread, rtol=0.08, atol=0)


def test_samples_without_any_mixed_prompt_leave_everything_open():
    rewards = torch.zeros(6, 8, dtype=torch.float64)
    rewards[:3] = 1
    scores = torch.randn(6, 8, 2, dtype=torch.float64)
    nothing = ScoreSamples(rewards, scores, torch.full((6,), 1 / 6).double())
    found = estimate_conflict(nothing, [1, 2])
    assert (found.inner_product == 0).all()
    assert np.isinf(found.low).all()
    assert np.isnan(found.cosine).all()
    assert found.cosine_low[1] == -1
    assert math.isnan(found.cosine_low[0])  # of a gradient that is not seen with itself
    assert math.isnan(found.threshold)
    assert found.threshold_high == math.inf
    assert found.verdict == (
        "No conflict is shown on prompts of this kind: the sign is open for k = 2."
    )


def test_verdicts():
    easy = TwoPointBandit(hard_fraction=0.3)
    many = sample_bandit(easy, THETA, 4000, seed=1)
    found = estimate_conflict(many, [1, 2, 8, 32], prompts="fixed", level=0.9)
    assert (conflict(easy, THETA, [1, 8]).inner_product.sign() == torch.tensor([1, -1])).all()
    assert found.verdict.startswith("A small step along grad J_k lowers pass@1 on these prompts")
    assert "8, 32, with" in found.verdict
    assert "90%" in found.verdict
    exact = conflict(easy, THETA, [1]).threshold
    assert found.threshold_low <= exact <= found.threshold_high
    assert found.threshold == pytest.approx(exact, rel=0.3)
    plain = estimate_conflict(many, [1], prompts="fixed")
    assert plain.verdict.startswith("A small step along grad J_k raises pass@1 on these prompts")


@pytest.mark.parametrize("prompts", ["fixed", "new"])
def test_a_cosine_its_interval_and_the_verdict_never_contradict_each_other(prompts):
    decided = 0
    for seed in range(25):
        size = 3 if prompts == "fixed" else 30
        world = GaussianBandit(0.2, 0.2).sample(3 * size, size, seed=seed)
        drawn = sample_bandit(world, CLEAR if seed % 2 else THETA, 16, seed=seed)
        found = estimate_conflict(drawn, [1, 2, 4, 8], prompts=prompts, seed=seed)
        low, high, value = found.cosine_low, found.cosine_high, found.cosine
        for row in range(1, 4):
            assert -1 <= low[row] <= high[row] <= 1
            # The interval excludes 0 exactly where the band does, on the same side.
            assert (low[row] >= 0) == (found.band_low[row] > 0)
            assert (high[row] <= 0) == (found.band_high[row] < 0)
            decided += low[row] >= 0 or high[row] <= 0
            if not math.isnan(value[row]):
                assert low[row] <= value[row] <= high[row]
                assert np.sign(value[row]) == np.sign(found.inner_product[row])
        assert value[0] == 1 or math.isnan(value[0])
        assert 1 not in found.against
        assert 1 not in found.open_ks
    assert 10 < decided < 70


def test_a_squared_norm_that_is_not_seen_is_no_conflict_of_pass_at_1():
    samples = sample_bandit(TwoPointBandit(), THETA, 8, num_prompts=40, seed=0)
    found = estimate_conflict(samples, [1, 4])
    below = replace(
        found,
        interval=found.interval.with_band(np.array([-3.0, -1.0]), np.array([-1.0, 1.0])),
    )
    assert below.verdict.endswith("the sign is open for k = 4.")
    first = found.interval[:1].with_band(np.array([-1.0]), np.array([1.0]))
    alone = replace(found, ks=found.ks[:1], interval=first)
    assert "the gradient of pass@1 is not told from 0" in alone.verdict


def test_frames(samples):
    found = estimate_conflict(samples, [1, 4])
    frame = found.to_frame()
    assert frame["k"].tolist() == [1, 4]
    assert frame["low"].tolist() == found.low.tolist()
    prompts = found.prompts_frame()
    assert len(prompts) == 100
    assert {"agreement", "variance_share_4"} <= set(prompts)
    assert prompts["variance_share_4"].sum() == pytest.approx(1)
    assert (found.influence[1] ** 2).sum() ** 0.5 == pytest.approx(found.standard_error[1])


def test_protocols(samples):
    assert isinstance(samples, SampledGradients)
    assert isinstance(samples, OwnProducts)


def test_refusals(samples):
    def refuses(match, ks=(1,), of=samples, **options):
        with pytest.raises(UserError, match=match):
            estimate_conflict(of, ks, **options)

    refuses("ks is empty", ks=[])
    refuses("whole number", ks=[1.5])
    refuses("k = 17 is too large for the 16 completions .* at least 17", ks=[17])
    refuses("k = 9 is too large for the 8 completions .* at least 18", ks=[9], prompts="fixed")
    refuses("k = 8 .* at least 18", ks=[8], prompts="fixed", estimator="centred-l2o")
    refuses("no unbiased estimator", estimator="grpo")
    refuses("no unbiased estimator", estimator="reinforce-max")
    refuses("fixed prompts need", prompts="fixed", split="prompts")
    refuses("prompts must be", prompts="old")
    refuses("level must lie", level=1.0)
    half = ScoreSamples(samples.rewards / 2, samples.scores, samples.masses)
    refuses("rewards must be 0 or 1", of=half)
    heavy = ScoreSamples(samples.rewards, samples.scores, samples.masses * 2)
    refuses("masses must be positive", of=heavy)
    short = ScoreSamples(samples.rewards, samples.scores, samples.masses[1:])
    refuses("as many masses", of=short)
    refuses("prompts by completions", of=ScoreSamples(samples.rewards[0], samples.scores, MASSES))


@pytest.mark.parametrize(
    ("prompts", "split"), [("fixed", "completions"), ("new", "prompts"), ("new", "completions")]
)
def test_what_the_prompts_add_makes_up_the_estimate(prompts, split):
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    samples = sample_bandit(world, [1.0, 1.0], 12, num_prompts=21, seed=3)
    made = estimate_conflict(samples, [1, 2, 4], prompts=prompts, split=split)
    np.testing.assert_allclose(made.contribution.sum(axis=1), made.inner_product)
    assert "contribution_4" in made.prompts_frame()


def test_the_error_of_the_answers_is_that_of_fixed_prompts():
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    fixed = estimate_conflict(
        sample_bandit(world, [1.0, 1.0], 16, seed=3), [1, 2, 4], prompts="fixed"
    )
    np.testing.assert_allclose(fixed.answer_error, fixed.standard_error)


def test_the_error_of_the_answers_for_new_prompts(replications):
    """Against answers drawn again and again for the same prompts, in the same halves."""
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    num_prompts, n = 40, 64
    first = sample_bandit(world, [1.0, 1.0], n, num_prompts=num_prompts, seed=3)
    values, errors = [], []
    generator = torch.Generator().manual_seed(0)
    u = world_directions(world, first)
    p = torch.sigmoid(u @ world.parameters([1.0, 1.0]))[:, None]
    for _ in range(replications(400, few=200)):
        rewards = (torch.rand(num_prompts, n, generator=generator) < p).double()
        samples = ScoreSamples(rewards, (rewards - p)[..., None] * u[:, None], first.masses)
        made = estimate_conflict(samples, [1, 2, 4, 64], draws=10)
        values.append(made.inner_product)
        errors.append(made.answer_error**2)
    spread = np.array(values).var(axis=0)
    ratio = np.array(errors).mean(axis=0)[:3] / spread[:3]
    # It has the noise of the direction once too often, as every measured error here.
    assert (ratio > 0.85).all()
    assert (ratio < 1.25).all()
    assert np.isnan(errors[0][3])


def world_directions(world, samples):
    """u of each prompt, from a score: (1 - p) u of a right answer, -p u of a wrong one."""
    reward, score = samples.rewards[:, 0], samples.scores[:, 0]
    kinds = world.signed_features
    p = torch.sigmoid(kinds @ world.parameters([1.0, 1.0]))
    expected = (reward[:, None] - p)[..., None] * kinds
    return kinds[(expected - score[:, None]).norm(dim=-1).argmin(dim=1)]
