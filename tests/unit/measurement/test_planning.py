"""Planned standard errors and power, against simulation in bandits."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement import influence as terms
from passgrad.measurement.crossfit import cross_fit
from passgrad.measurement.planning import (
    needed_prompts,
    needed_samples,
    plan,
    power,
    standard_errors,
)
from passgrad.measurement.planning_models import (
    advantage_moments,
    assumed_model,
    bandit_model,
    beta_rates,
    pilot_from_folder,
    pilot_model,
    plan_from_pilot,
)
from passgrad.stats.bands import intervals
from passgrad.worlds.bandit import Bandit, GaussianBandit, TwoPointBandit

LOO = get_estimator("pkpo-loo1")
KS = (2, 4, 8)
PAPER, WEAK = (-2.0, -2.0), (-0.3, 0.0)
WORLD = TwoPointBandit(0.2, 0.5)


def simulated(world, theta, num_prompts, n, prompts, replications=1000):
    """Estimates (K, replications), the mean measured variance, and how often conflict is shown."""
    new = prompts == "new"
    samples = sample_bandit(
        world, theta, n, num_prompts=num_prompts if new else None, replications=replications, seed=3
    )
    split = "prompts" if new else "completions"
    fit = cross_fit(samples, (1, *KS), KS, estimator=LOO, split=split, seed=1)
    values = terms.curve(fit, prompts)[fit.places(KS)].numpy()
    e = terms.influences(fit, prompts, "inner", LOO, resplits=4)[1:].numpy()
    _, high = intervals(values, e, 0.95)
    return values, (e**2).sum((-1, -2)).mean(1) ** 0.5, (high < 0).mean(1)


@pytest.mark.parametrize("theta", [PAPER, WEAK])
@pytest.mark.parametrize(("num_prompts", "n"), [(10, 16), (40, 9), (40, 16)])
def test_errors_on_new_prompts(theta, num_prompts, n):
    values, said, _ = simulated(WORLD, theta, num_prompts, n, "new")
    true, measured = standard_errors(bandit_model(WORLD, theta, KS), num_prompts, n)
    np.testing.assert_allclose(values.std(1), true, rtol=0.1)
    np.testing.assert_allclose(said, measured, rtol=0.1)


@pytest.mark.parametrize("theta", [(-1.0, 0.0), WEAK])
@pytest.mark.parametrize("n", [18, 32])
def test_errors_on_fixed_prompts(theta, n):
    base = GaussianBandit(0.2, 0.4).sample(10, 10, seed=1)
    hard = torch.tensor([group == "hard" for group in base.groups])
    world = Bandit(base.features[:, 1], hard, torch.full((20,), 1 / 20).double())
    values, said, _ = simulated(world, theta, 20, n, "fixed")
    true, measured = standard_errors(bandit_model(world, theta, KS), 20, n, "fixed")
    np.testing.assert_allclose(values.std(1), true, rtol=0.1)
    np.testing.assert_allclose(said, measured, rtol=0.1)


def test_the_second_order_term_is_not_to_be_left_out():
    found = bandit_model(WORLD, WEAK, KS).at(16)
    first = ((found.between + found.within) / 10) ** 0.5
    assert (first / standard_errors(bandit_model(WORLD, WEAK, KS), 10, 16)[0] < 0.9).all()


def test_power_where_a_plan_is_made_for():
    model = bandit_model(WORLD, PAPER, KS)
    size = int(needed_prompts(model, 8, 12, 0.9))
    assert power(model, size, 12)[2] >= 0.9 > power(model, size - 1, 12)[2]
    _, _, shown = simulated(WORLD, PAPER, size, 12, "new", replications=300)
    assert abs(shown[2] - 0.9) < 0.1


def test_moments_are_those_of_the_estimator():
    p = torch.tensor([0.05, 0.4, 0.9]).double()
    found = advantage_moments(LOO, p, 9, KS)
    for place, k in enumerate(KS):
        for name, option in (("right", "noise_right"), ("wrong", "noise_wrong")):
            only = LOO.variance(p, 9, k, mean_square=0, **{option: 1.0})
            torch.testing.assert_close(getattr(found, name)[place, place], only)
        torch.testing.assert_close(found.along[place, place], LOO.variance(p, 9, k))


def test_needs_are_the_smallest():
    model = bandit_model(WORLD, PAPER, KS)
    target = float(power(model, 600, 12)[1])
    assert needed_samples(model, 4, 600, target) == 12
    assert power(model, 600, 11)[1] < target
    assert needed_samples(model, 4, 20, 0.999) == math.inf
    assert needed_prompts(bandit_model(WORLD, (0.0, 0.0), (2,)), 2, 16, 0.9) == math.inf


def test_the_cheapest_plan_is_no_dearer_than_others():
    model = assumed_model(*beta_rates(0.5, 1.5), [4, 8], cosine=[-0.3, -0.5])
    found = plan(model, tokens_per_completion=30, tokens_per_prompt=100)
    assert list(found.to_frame().columns) == [
        "k", "num_prompts", "num_samples", "effect", "standard_error", "power", "tokens",
    ]  # fmt: skip
    for row in found.rows:
        assert row["power"] >= 0.9
        for n in (8, 16, 64):
            other = plan(model, num_samples=n, tokens_per_completion=30, tokens_per_prompt=100)
            [same] = [one for one in other.rows if one["k"] == row["k"]]
            assert row["tokens"] <= 1.05 * same["tokens"]
    assert "show the conflict with probability" in str(found)
    assert "Assumed: coherence 0.1" in str(found)


def test_harder_tasks_need_more():
    law = ([0.05, 0.9], [0.5, 0.5])
    options = {"coherence": 0.3, "score_noise": 1.0, "dimension": 50}
    base = needed_prompts(assumed_model(*law, [4], cosine=-0.5, **options), 4, 16, 0.9)
    for change in ({"coherence": 0.1}, {"score_noise": 4.0}, {"dimension": 10}):
        other = assumed_model(*law, [4], cosine=-0.5, **(options | change))
        assert needed_prompts(other, 4, 16, 0.9) > base
    smaller = assumed_model(*law, [4], cosine=-0.1, **options)
    assert needed_prompts(smaller, 4, 16, 0.9) > 4 * base
    assert plan(assumed_model(*law, [4], cosine=0.2), num_samples=8).rows[0]["tokens"] == math.inf


def test_beta_law():
    p, w = beta_rates(0.5, 1.5)
    assert w @ p == pytest.approx(0.25)
    assert w @ p**2 == pytest.approx(0.25 * 1.5 / 3)


@pytest.fixture(scope="module")
def pilot():
    samples = sample_bandit(WORLD, PAPER, 16, num_prompts=400, seed=2)
    return estimate_conflict(samples, [1, *KS], prompts="new")


def test_a_pilot_scales_with_prompts_and_answers(pilot):
    exact = bandit_model(WORLD, PAPER, KS)
    parts = exact.at(16)
    share = np.sqrt(np.concatenate([[1e-9], parts.within]) / 400)
    model = pilot_model(pilot, 16, answer_error=share)
    for size, n in ((400, 16), (1600, 16), (1600, 32)):
        found = standard_errors(model, size, n)[0][1:]
        np.testing.assert_allclose(found, standard_errors(exact, size, n)[0], rtol=0.35)
    np.testing.assert_allclose(standard_errors(model, 400, 16)[1], pilot.standard_error)


def test_a_pilot_with_the_second_order_part(pilot):
    tau = np.full(4, 1e-6)
    model = pilot_model(pilot, 16, second_order=tau)
    np.testing.assert_allclose(standard_errors(model, 400, 16)[1], pilot.standard_error)
    assert (standard_errors(model, 400, 16)[0] < pilot.standard_error).all()


def test_a_pilot_that_does_not_say_what_samples_gain(pilot):
    model = pilot_model(pilot, 16)
    few, many = (standard_errors(model, 400, n)[0] for n in (16, 64))
    np.testing.assert_allclose(few, many)
    with pytest.raises(UserError, match="at least 16 samples a prompt here, got 8"):
        plan(model, num_samples=8)


@pytest.fixture
def folder(tmp_path, pilot):
    pilot.to_frame().to_parquet(tmp_path / "curve.parquet")
    pilot.prompts_frame().to_parquet(tmp_path / "prompts.parquet")
    settings = {"samples": 16, "reading": "new", "estimator": "pkpo-loo1"}
    (tmp_path / "measurement.json").write_text(json.dumps({"settings": settings}))
    return tmp_path


def test_the_command_reads_what_measure_writes(folder, pilot):
    found = pilot_from_folder(folder)
    same = pilot_model(pilot, 16)
    np.testing.assert_allclose(power(found, 500, 16), power(same, 500, 16))
    made = plan_from_pilot(folder, ks=[8], power=0.8, effect=0.5, num_samples=16)
    [row] = made.rows
    assert row["k"] == 8
    assert row["effect"] == pytest.approx(-0.5 * pilot.inner_product[0])
    assert made.to_frame()["power"][0] >= 0.8
    # With the column that says what samples gain.
    curve = pd.read_parquet(folder / "curve.parquet")
    curve["answer_error"] = 0.8 * curve["standard_error"]
    curve.to_parquet(folder / "curve.parquet")
    more = plan_from_pilot(folder, ks=[8], power=0.8, effect=0.5, num_samples=64).rows[0]
    assert more["num_prompts"] < row["num_prompts"]


def test_a_pilot_without_a_conflict_leads_to_an_effect(folder):
    from typer.testing import CliRunner

    from passgrad.cli import app

    curve = pd.read_parquet(folder / "curve.parquet")
    curve["inner_product"] = curve["inner_product"].abs()
    curve.to_parquet(folder / "curve.parquet")
    planned = plan_from_pilot(folder)
    assert not planned.possible().rows
    shown = CliRunner().invoke(app, ["plan", str(folder)]).output
    assert "inf" not in shown
    assert shown.startswith("At k = 2, 4, 8 the product is not negative")
    assert "--effect" in shown
    told = CliRunner().invoke(app, ["plan", str(folder), "--effect", "0.5"]).output
    assert "show the conflict with probability" in told


def test_the_cost_is_in_the_tokens_of_the_pilot(folder):
    options = {"ks": [8], "effect": 0.5, "num_samples": 16}
    alone = plan_from_pilot(folder, **options).rows[0]["tokens"]
    ids = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    pd.DataFrame({"completion_ids": ids}).to_parquet(folder / "rollouts.parquet")
    assert plan_from_pilot(folder, **options).rows[0]["tokens"] == pytest.approx(3 * alone)
    given = plan_from_pilot(folder, tokens_per_completion=7, **options)
    assert given.rows[0]["tokens"] == pytest.approx(7 * alone)


def test_clear_errors(tmp_path, folder):
    with pytest.raises(UserError, match="no finished measurement"):
        plan_from_pilot(tmp_path / "none")
    with pytest.raises(UserError, match="not measured at k = 3: it has 1, 2, 4, 8"):
        plan_from_pilot(folder, ks=[3])
    with pytest.raises(UserError, match="a positive share of a squared norm, got -1"):
        plan_from_pilot(folder, effect=-1)
    curve = pd.read_parquet(folder / "curve.parquet")
    curve.loc[0, "inner_product"] = -0.1
    curve.to_parquet(folder / "curve.parquet")
    with pytest.raises(UserError, match="no scale for an effect: measure with several times"):
        plan_from_pilot(folder, effect=0.1)
    model = bandit_model(WORLD, PAPER, KS)
    with pytest.raises(UserError, match="power must lie between"):
        plan(model, power=1.0)
    with pytest.raises(UserError, match="two positive parameters"):
        beta_rates(0, 1)
    for bad in ({"coherence": 0.0}, {"score_noise": -1.0}, {"dimension": 0.5}):
        with pytest.raises(UserError, match="coherence must lie in"):
            assumed_model([0.1], [1.0], [2], cosine=-0.5, **bad)
    with pytest.raises(UserError, match="cosine lies between"):
        assumed_model([0.1], [1.0], [2], cosine=-1.5)
    with pytest.raises(UserError, match="masses that add up to 1"):
        assumed_model([0.1], [0.9], [2], cosine=-0.5)
