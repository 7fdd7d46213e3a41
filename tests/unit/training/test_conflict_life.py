import math

import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.training.ascent import ascend
from passgrad.training.conflict_life import conflict_along, conflict_life, phases
from passgrad.training.directions import Adam
from passgrad.worlds.bandit import TwoPointBandit

THETA = (-1.0, -2.0)


@pytest.fixture(scope="module")
def tables():
    return conflict_along(TwoPointBandit(), THETA, ks=[2, 10], step_size=0.5, steps=7, every=3)


def test_the_path_is_that_of_the_ascent(tables):
    trace = ascend(TwoPointBandit(), THETA, PassAtK(1), step_size=0.5, steps=7)
    path = tables["path"].set_index("step")
    assert list(path.index) == [0, 3, 6, 7]
    expected = trace.pass_at_k(1)[[0, 3, 6, 7]]
    assert torch.equal(torch.from_numpy(path["pass_at_1"].to_numpy(copy=True)), expected)
    assert path["success_hard"][7] == float(trace.success[7, 1])


def test_the_steps_can_be_named():
    path = {"ks": [2], "step_size": 0.5, "steps": 5}
    named = conflict_along(TwoPointBandit(), THETA, every=[4, 1, 9], **path)["path"]
    assert list(named["step"]) == [0, 1, 4, 5]
    often = conflict_along(TwoPointBandit(), THETA, every=1, **path)["path"]
    merged = named.merge(often, on="step", suffixes=("", "_often"))
    assert (merged["pass_at_1"] - merged["pass_at_1_often"]).abs().max() < 1e-15


def test_what_is_measured_is_the_conflict_there(tables):
    world = TwoPointBandit()
    theta = ascend(world, THETA, PassAtK(1), step_size=0.5, steps=3).theta
    curve = conflict(world, theta, [2, 10])
    orders = tables["orders"].set_index(["step", "k"])
    for place, k in enumerate((2, 10)):
        row = orders.loc[3, k]
        assert row["cosine"] == float(curve.cosine[place])
        assert row["inner_product"] == float(curve.inner_product[place])
        assert row["pass_at_k"] == float(world.masses @ PassAtK(k).value(curve.success))
    path = tables["path"].set_index("step").loc[3]
    assert path["threshold"] == pytest.approx(curve.threshold, nan_ok=True)
    assert path["agreement_easy"] == float(curve.agreement[0])


def test_a_direction_keeps_its_state_between_measurements():
    path = {"step_size": 0.05, "steps": 6}
    often = conflict_along(TwoPointBandit(), THETA, Adam(PassAtK(4)), ks=[2], every=1, **path)[
        "path"
    ]
    trace = ascend(TwoPointBandit(), THETA, Adam(PassAtK(4)), **path)
    assert often["pass_at_1"].iloc[-1] == pytest.approx(float(trace.pass_at_k(1)[-1]), abs=1e-14)


def test_a_life_of_a_small_model():
    options = {"hidden_size": 16, "num_layers": 1, "num_prompts": 3, "warm_up_steps": 2}
    path = {"ks": [4], "step_size": 0.01, "steps": 3, "every": 2, "seed": 1, "world": options}
    plain, again, other, combined = (
        conflict_life(ascended, **path) for ascended in (1, 1, 16, "pcgrad")
    )
    assert list(plain["orders"]["step"]) == [0, 2, 3]
    assert plain["path"].equals(again["path"])
    starts = {float(one["path"]["success_hard"][0]) for one in (plain, other, combined)}
    ends = {float(one["path"]["success_hard"][2]) for one in (plain, other, combined)}
    assert (len(starts), len(ends)) == (1, 3)


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([0.5, 0.1, -0.2, -0.4, -0.1, 0.3], (20, 30, -0.4, 50, 3 / 6)),
        ([-0.1, 0.2, -0.3, -0.2], (0, 20, -0.3, math.nan, 3 / 4)),
        ([0.3, 0.2], (math.nan, math.nan, math.nan, math.nan, 0)),
        ([-0.3, -0.2], (0, 0, -0.3, math.nan, 1)),
        ([0.1, -0.5, 0.1, -0.1, -0.2, 0.0], (10, 40, -0.2, 50, 3 / 6)),
        ([0.1, math.nan, -0.2, 0.1], (20, 20, -0.2, 30, 1 / 4)),
    ],
)
def test_phases(cosines, expected):
    made = phases([10 * i for i in range(len(cosines))], cosines)
    assert list(made) == ["born", "deepest", "lowest", "ended", "share"]
    assert list(made.values()) == pytest.approx(list(expected), nan_ok=True)


def test_what_goes_wrong_is_named():
    with pytest.raises(UserError, match="every must be at least 1, got 0"):
        conflict_along(TwoPointBandit(), THETA, step_size=1.0, steps=1, every=0)
