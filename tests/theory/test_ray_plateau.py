"""The plateau: pass@1 stalls, pass@k gets out first, and pass@1 overtakes in the end."""

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.objectives import PassAtK
from passgrad_book.experiments.dynamics.plateau import PlateauBandit

pytestmark = pytest.mark.statement("prop-ray-threshold")


@pytest.fixture(scope="module")
def runs():
    world = PlateauBandit(8, 0.5, masses=[0.2] + [0.8 / 7] * 7)
    return {
        k: ascend(world, world.start(4.0), PassAtK(k), step_size=4.0, steps=1600) for k in (1, 4, 8)
    }


def test_all_start_low_and_pass_at_1_stalls_at_the_mass_of_the_winner(runs):
    one = runs[1].pass_at_k(1)
    assert one[0] < 0.04
    assert (one[100:700] < 0.21).all()
    assert one[100] > 0.19
    assert one[-1] > 0.99  # the plateau is no optimum


def test_larger_k_leaves_it_sooner_with_higher_pass_at_1(runs):
    out = {k: int((run.pass_at_k(1) > 0.25).nonzero()[0, 0]) for k, run in runs.items()}
    assert out[8] < out[4] < out[1] / 10
    at = {k: float(run.pass_at_k(1)[100]) for k, run in runs.items()}
    assert at[1] < 0.25 < at[8]
    assert at[1] < 0.25 < at[4]


def test_it_is_not_the_length_of_the_steps():
    """J_k / k weighs no prompt more than J_1 does: its steps are never longer on any prompt."""
    world = PlateauBandit(8, 0.5, masses=[0.2] + [0.8 / 7] * 7)
    ends = {
        k: ascend(world, world.start(4.0), PassAtK(k), step_size=4.0 / k, steps=300)
        for k in (1, 4, 8)
    }
    one = {k: float(run.pass_at_k(1)[-1]) for k, run in ends.items()}
    assert one[1] < 0.21
    assert min(one[4], one[8]) > 0.35


def test_why_the_winner_pushes_less(runs):
    lowest = {k: float(run.success[:, 1:].min()) for k, run in runs.items()}
    assert lowest[1] < lowest[4] / 5 < lowest[8]
    start = float(runs[1].success[0, 1:].min())
    assert lowest[8] > 0.9 * start
    assert lowest[1] < 0.1 * start


def test_without_coupling_there_is_no_plateau():
    world = PlateauBandit(8, 0.0, masses=[0.2] + [0.8 / 7] * 7)
    trace = ascend(world, world.start(4.0), PassAtK(1), step_size=4.0, steps=1600)
    assert (trace.success.diff(dim=0) > -1e-15).all()
    coupled = PlateauBandit(8, 0.5, masses=[0.2] + [0.8 / 7] * 7)
    fall = ascend(coupled, coupled.start(4.0), PassAtK(1), step_size=4.0, steps=100)
    assert (fall.success.diff(dim=0).min(dim=0).values[1:] < -1e-4).all()
    assert torch.isfinite(trace.success).all()
