import math

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.measure import (
    OwnProducts,
    SampledGradients,
    ScoreSamples,
    estimate_conflict,
    influence,
    sample_bandit,
)
from passgrad.measure.crossfit import cross_fit
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

from .conftest import MASSES, one_of, outcomes

THETA = (-2.0, -2.0)


@pytest.fixture(scope="module")
def samples():
    world = GaussianBandit(0.2, 0.4).sample(60, 40, seed=1)
    return sample_bandit(world, THETA, 16, seed=2)


def test_it_is_the_one_replication_of_the_enumerated_estimate():
    everything, _ = outcomes((0, 1), 4, MASSES)
    loo = get_estimator("pkpo-loo1")
    fit = cross_fit(everything, (1, 2), (1, 2), estimator=loo, split="completions", seed=4)
    curve = influence.curve(fit, "fixed")
    e = influence.influences(fit, "fixed", "inner")
    for place in (7, 1234, 5000):
        one = one_of(everything, place)
        found = estimate_conflict(one, [2, 1], prompts="fixed", seed=4)
        np.testing.assert_allclose(found.inner_product, curve[:, place], atol=1e-14)
        np.testing.assert_allclose(found.influence, e[:, place], atol=1e-14)
        np.testing.assert_array_equal(found.curve, found.inner_product)


@pytest.mark.parametrize(
    ("prompts", "split"), [("fixed", None), ("new", None), ("new", "completions")]
)
def test_many_answers_find_the_exact_conflict(prompts, split):
    """20,000 answers and, for new prompts, 2,000 prompts of each kind."""
    copies = 1 if prompts == "fixed" else 400
    n = 20_000 if prompts == "fixed" else 100
    point = TwoPointBandit()
    world = GaussianBandit(0.2, 0.5).sample(copies, copies, seed=3)
    exact = conflict(world, THETA, [1, 2, 4])
    found = estimate_conflict(
        sample_bandit(world, THETA, n, seed=5), [1, 2, 4], prompts=prompts, split=split
    )
    error = found.standard_error / exact.inner_product.abs().numpy()
    assert (error < (0.2 if prompts == "fixed" else 0.5)).all()
    distance = np.abs(found.inner_product - exact.inner_product.numpy())
    assert (distance < 4 * found.standard_error).all()
    assert (np.abs(found.squared_norm / exact.norm.square().numpy() - 1) < 0.5).all()
    assert found.cosine[0] == pytest.approx(1)
    inside = (found.cosine_low <= exact.cosine.numpy()) & (exact.cosine.numpy() <= found.cosine_high)
    assert inside[1:].all()
    assert len(point.masses) == 2


def test_the_point_estimate_does_not_depend_on_the_reported_orders(samples):
    for options in ({"prompts": "fixed"}, {"prompts": "new"}, {"split": "completions"}):
        few = estimate_conflict(samples, [4], **options)
        many = estimate_conflict(samples, [1, 2, 4, 8], **options)
        np.testing.assert_array_equal(few.curve, many.curve)
        np.testing.assert_allclose(few.influence[0], many.influence[2], rtol=1e-12, atol=1e-18)
        assert few.ks.tolist() == [4] and few.threshold == pytest.approx(
            many.threshold, nan_ok=True
        )


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
    assert (found.band_low < found.low).all() and (found.band_high > found.high).all()
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
    assert solved.any() and (found.agreement_error[solved] == 0).all()
    small = ScoreSamples(samples.rewards[:, :4], samples.scores[:, :4], samples.masses)
    # Halves of two are too small to leave one out.
    assert np.isnan(estimate_conflict(small, [1], prompts="fixed").agreement_error).all()


@pytest.mark.parametrize("prompts", ["fixed", "new"])
def test_the_error_of_an_agreement_is_its_spread_over_answers(prompts):
    """A prompt's answers are drawn anew, 4,000 times, with the direction at rest."""
    world = TwoPointBandit()
    many = sample_bandit(world, (0.3, 0.1), 24, replications=4000, seed=6)
    wide = ScoreSamples(  # two prompts of the world, and two that push G far in one direction
        torch.cat([many.rewards, many.rewards[:1].expand(4000, -1, -1)], dim=1),
        torch.cat([many.scores, many.scores[:1].expand(4000, -1, -1, -1)], dim=1),
        torch.tensor([5e-7, 5e-7, 0.6, 0.399999]).double(),
    )
    split = "completions" if prompts == "fixed" else "prompts"
    loo = get_estimator("pkpo-loo1")
    fit = cross_fit(wide, (1,), (1,), estimator=loo, split=split, seed=1)
    spread = influence.agreement(fit, "fixed" if split == "completions" else "new").std(dim=0)[:2]
    from passgrad.measure.agreement import _jackknife

    variance = torch.zeros(4000, 4, dtype=torch.float64)
    for pairing in fit.pairings:
        variance[:, pairing.half.prompts] += _jackknife(pairing, loo)
    claimed = variance.mean(dim=0)[:2].sqrt() / (1 if split == "prompts" else 2)
    torch.testing.assert_close(claimed, spread, rtol=0.06, atol=0)


def test_samples_without_any_mixed_prompt_leave_everything_open():
    rewards = torch.zeros(6, 8, dtype=torch.float64)
    rewards[:3] = 1
    scores = torch.randn(6, 8, 2, dtype=torch.float64)
    nothing = ScoreSamples(rewards, scores, torch.full((6,), 1 / 6).double())
    found = estimate_conflict(nothing, [1, 2])
    assert (found.inner_product == 0).all() and np.isinf(found.low).all()
    assert np.isnan(found.cosine).all() and (found.cosine_low == -1).all()
    assert math.isnan(found.threshold) and found.threshold_high == math.inf
    assert found.verdict == (
        "No conflict is shown on prompts of this kind: the sign is open for k = 1, 2."
    )


def test_verdicts():
    easy = TwoPointBandit(hard_fraction=0.3)
    many = sample_bandit(easy, THETA, 4000, seed=1)
    found = estimate_conflict(many, [1, 2, 8, 32], prompts="fixed", level=0.9)
    assert (conflict(easy, THETA, [1, 8]).inner_product.sign() == torch.tensor([1, -1])).all()
    assert found.verdict.startswith("A small step along grad J_k lowers pass@1 on these prompts")
    assert "k = 8" in found.verdict and "90%" in found.verdict
    exact = conflict(easy, THETA, [1]).threshold
    assert found.threshold_low <= exact <= found.threshold_high
    assert found.threshold == pytest.approx(exact, rel=0.3)
    plain = estimate_conflict(many, [1], prompts="fixed")
    assert plain.verdict.startswith("A small step along grad J_k raises pass@1 on these prompts")


def test_frames(samples):
    found = estimate_conflict(samples, [1, 4])
    frame = found.to_frame()
    assert frame["k"].tolist() == [1, 4] and frame["low"].tolist() == found.low.tolist()
    prompts = found.prompts_frame()
    assert len(prompts) == 100 and {"agreement", "influence_4"} <= set(prompts)
    np.testing.assert_allclose((prompts["influence_4"] ** 2).sum() ** 0.5, found.standard_error[1])


def test_protocols(samples):
    assert isinstance(samples, SampledGradients) and isinstance(samples, OwnProducts)


def test_refusals(samples):
    def refuses(match, ks=(1,), of=samples, **options):
        with pytest.raises(UserError, match=match):
            estimate_conflict(of, ks, **options)

    refuses("ks is empty", ks=[])
    refuses("whole number", ks=[1.5])
    refuses("k = 9 exceeds the 8 completions of a half", ks=[9], prompts="fixed")
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
