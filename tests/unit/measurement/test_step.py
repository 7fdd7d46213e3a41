"""The prediction of a step: against exact derivatives, its intervals, its size, its words."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.crossfit import split_halves
from passgrad.measurement.samples import bandit_steps
from passgrad.measurement.second_order import ModelSteps
from passgrad.measurement.step import StepSize, predict_step, step_derivatives
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.estimating.step_coverage import simulate_step_coverage

from .exact_steps import exact_derivatives

THETA = (-1.0, 0.0)
POPULATION = GaussianBandit(0.2, 0.2)
WORLD = POPULATION.sample(20, 10, seed=3)
KS = [1, 2, 4]


def fixed_samples(num_samples=32, seed=0):
    everyone = torch.arange(WORLD.num_prompts)
    return bandit_steps(WORLD, THETA, everyone, num_samples, masses=WORLD.masses, seed=seed)


@pytest.mark.parametrize("prompts", ["new", "fixed"])
def test_many_samples_find_the_exact_derivatives(prompts):
    """Given v, of both orders; and the estimates are no better known than their errors say."""
    if prompts == "fixed":
        samples, world = fixed_samples(4000), WORLD
    else:
        asked = torch.multinomial(
            POPULATION.masses, 40_000, replacement=True,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        samples, world = bandit_steps(POPULATION, THETA, asked, 8), POPULATION
    made = step_derivatives(samples, 4, KS, prompts=prompts)
    first, second = exact_derivatives(world, THETA, samples.vector(made.coefficients), KS)
    for found, exact, e in (
        (made.first, first, made.first_influence),
        (made.second, second, made.second_influence),
    ):
        error = e.square().sum((-1, -2)).sqrt()
        assert ((found - exact).abs() < 4 * error).all()
        # It would notice half or double the value.
        assert (error < exact.abs() / 8).all()


@pytest.mark.parametrize(
    ("world", "most", "options"),
    [
        (POPULATION, 0.98, {"num_prompts": 150, "num_samples": 24}),
        # k = 4 of the 16 answers of half B: on the long side, as is said there.
        (POPULATION.sample(64, 16, seed=7), 0.995, {"prompts": "fixed", "num_samples": 32}),
    ],
    ids=["new", "fixed"],
)
def test_coverage(world, most, options):
    frame = simulate_step_coverage(
        world, THETA, along=4, ks=KS, eta=1.0, replications=500, draws=2000, **options
    )
    assert frame["coverage"].between(0.92, most).all()
    assert frame.loc[frame["k"] <= 2, "coverage"].between(0.92, 0.98).all()
    assert (frame["mean_error"].dropna().abs() < 4).all()


def test_half_b_is_independent_of_the_direction():
    """Other rewards in half B leave v as it is."""
    samples = fixed_samples()
    made = step_derivatives(samples, 2, KS, prompts="fixed")
    in_b = split_halves(*samples.rewards.shape, "completions", seed=0)[1]
    flipped = samples.rewards.clone()
    flipped[in_b.prompts[:, None], in_b.members] = 1 - in_b.take(samples.rewards)
    other = replace(samples, rewards=flipped)
    again = step_derivatives(other, 2, KS, prompts="fixed")
    assert torch.equal(again.coefficients, made.coefficients)
    assert not torch.equal(again.first, made.first)
    new = step_derivatives(fixed_samples(), 2, KS, prompts="new")
    assert not new.coefficients[new.prompts_used].any()
    assert len(new.prompts_used) == 15


def test_sizes_of_a_step():
    samples = fixed_samples(400)
    point = predict_step(samples, 2, KS, prompts="fixed")
    assert point.first.value[1] == pytest.approx(0.01)
    length = point.at(StepSize(0.03, "length"))
    assert length.relative_length == pytest.approx(0.03)
    assert length.length == pytest.approx(0.03 * float(samples.theta.norm()))
    eta = point.at(StepSize(2 * length.eta, "eta"))
    np.testing.assert_allclose(eta.first.value, 2 * length.first.value)
    np.testing.assert_allclose(eta.second.value, 4 * length.second.value)
    np.testing.assert_allclose(eta.total.value, eta.first.value + eta.second.value)
    assert StepSize.parse("length=1e-5") == StepSize(1e-5, "length")
    assert StepSize.parse("2") == StepSize(2.0, "points")
    for text, message in (
        ("much", "'much' is no size of a step: give points=1"),
        ("eta=", "'eta=' is no size of a step: give points=1"),
        ("0", "must be finite and positive, got 0.0"),
        ("inf", "must be finite and positive, got inf"),
        ("metres=3", "points, length or eta, not in 'metres'"),
    ):
        with pytest.raises(UserError, match=message):
            StepSize.parse(text)


def test_a_slope_that_is_not_known_gives_a_short_step():
    """With the error in place of the slope, whatever its sign."""
    few = [predict_step(fixed_samples(8, seed), 2, [1], prompts="fixed") for seed in range(12)]
    slopes = np.array([float(one.derivatives.first[1]) for one in few])
    errors = np.array([float(one.derivatives.first_influence[1].norm()) for one in few])
    assert (slopes < errors).any()
    etas = np.array([one.eta for one in few])
    np.testing.assert_allclose(etas, 0.01 / np.maximum(slopes, errors))


def test_orders_without_an_interval():
    made = predict_step(fixed_samples(16), 8, [1, 4, 8], prompts="fixed")
    assert np.isfinite(made.total.value).all()
    assert np.isfinite(made.total.low).tolist() == [True, True, False]
    assert np.isfinite(made.total.band_high).tolist() == [True, True, False]
    assert "pass@8 by" in made.verdict
    assert "(error unknown)" in made.verdict


def test_the_verdict_and_the_table():
    made = predict_step(fixed_samples(400), 4, KS, prompts="fixed")
    assert made.verdict.startswith("A step of ")
    assert "along grad J_4 is predicted to change pass@1 by" in made.verdict
    frame = made.to_frame()
    assert frame["k"].tolist() == [1, 2, 4]
    assert (frame["band_low"] <= frame["low"]).all()
    far = made.at(StepSize(500.0))
    assert "second order is not small" in far.verdict
    assert "second order" not in made.at(StepSize(0.01)).verdict


def test_a_language_model(tiny_model, tmp_path, shown):
    """Through passes, in either method; the second time from the folder, without a pass."""
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8], [9]]
    drawn = [[[1], [2], [1], [3], [2, 2], [1]]] * 4
    rewards = [[1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1], [0] * 6]
    passes = CompletionPasses(tiny_model(), Completions.from_tokens(prompts, drawn), rewards)
    found = [
        step_derivatives(ModelSteps(passes, folder, method=method), 2, [1, 2], prompts="fixed")
        for folder, method in ((tmp_path, "forward"), (None, "central"))
    ]
    torch.testing.assert_close(found[0].first, found[1].first)
    torch.testing.assert_close(found[0].second, found[1].second, rtol=0.02, atol=0)
    assert float(found[0].origin) == pytest.approx(
        float(passes.layout.flatten(passes.model).norm())
    )
    shown.stage("a step", 2)
    steps = ModelSteps(passes, tmp_path, shown)
    passes.gradient = passes.directional = passes.logprobs = None
    again = step_derivatives(steps, 2, [1, 2], prompts="fixed")
    assert torch.equal(again.second, found[0].second)
    assert shown.stages == [["a step", 2, 2]]


def test_refusals():
    samples = fixed_samples(8)
    with pytest.raises(UserError, match="no unbiased estimator"):
        predict_step(samples, 2, estimator="grpo")
    with pytest.raises(UserError, match="k = 8 is too large"):
        predict_step(samples, 2, [8], prompts="fixed")
    wrong = replace(samples, rewards=torch.zeros_like(samples.rewards))
    with pytest.raises(UserError, match="no direction"):
        predict_step(wrong, 2)
