"""What a measurement leads to, and that what it says can be typed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from passgrad.cli import app
from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement.advice import advice, chosen_order
from passgrad.worlds.bandit import TwoPointBandit

FOLDER = Path("a folder/m")


@pytest.fixture(scope="module")
def estimate():
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    samples = sample_bandit(world, torch.tensor([0.5, 0.5]), 16, num_prompts=100, seed=1)
    return estimate_conflict(samples, [1, 2, 4])


def with_band(estimate, low, high):
    return replace(estimate, interval=estimate.interval.with_band(np.array(low), np.array(high)))


def test_a_conflict_leads_to_another_update(estimate):
    found = advice(with_band(estimate, [1.0, -2, -2], [2.0, 1, -1]), FOLDER)
    assert "conflict is shown from k = 4" in found.text
    assert found.command == 'PassKGRPOTrainer(..., k=ConflictFree(4, "constrained"))'


def test_no_conflict_leads_to_plain_training(estimate):
    found = advice(with_band(estimate, [1.0, 1, 1], [2.0, 2, 2]), FOLDER)
    assert found.command == "PassKGRPOTrainer(..., k=4)"


def test_an_open_sign_leads_to_a_plan_that_runs(estimate):
    wide = with_band(estimate, [-1.0, -1, -1], [2.0, 2, 2])
    found = advice(wide, FOLDER)
    ratio = estimate.inner_product[2] / estimate.standard_error[2]
    side = "negative" if ratio < 0 else "positive"
    assert f"at k = 4 is open: the estimate is {side}, {abs(ratio):.1f} standard" in found.text
    assert found.command == "passgrad plan 'a folder/m' --ks 4 --effect 0.1"
    hard = replace(wide, success=np.array([0.0] * 90 + [0.5] * 10))
    assert "never solved, so more samples" in advice(hard, FOLDER).text
    few = replace(wide, answer_error=0.5 * wide.standard_error)
    assert "only 25% of the variance" in advice(few, FOLDER).text
    many = replace(wide, answer_error=0.9 * wide.standard_error)
    assert "more samples a prompt lower" in advice(many, FOLDER).text


def test_without_a_gradient_there_is_nothing_to_plan_from(estimate):
    wide = with_band(estimate, [-1.0, -1, -1], [2.0, 2, 2])
    found = advice(replace(wide, squared_norm_at_1=-0.1), FOLDER)
    assert not found.command
    assert "several times as many prompts" in found.text


def test_the_order_of_interest_is_not_1(estimate):
    assert chosen_order(estimate) in (2, 4)
    assert chosen_order(estimate, largest=2) == 2


def test_the_command_is_one():
    assert CliRunner().invoke(app, ["plan", "--help"]).exit_code == 0
