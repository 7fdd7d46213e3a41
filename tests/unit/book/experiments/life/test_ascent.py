import math

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.ascent.directions import Adam
from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.life.ascent import (
    VANISHING,
    _without_vanished,
    conflict_along,
    phases,
)
from passgrad_book.experiments.life.stored import conflict_life, direction_of

THETA = (-1.0, -2.0)


class AlongTheBias:
    label = "bias"

    def __call__(self, world, theta):
        return world.success(theta), torch.tensor([1.0, 0.0], dtype=torch.float64)


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


def test_groups_take_their_parts_of_the_product(tables):
    world = TwoPointBandit()
    orders, path = tables["orders"], tables["path"]
    parts = orders["part_easy"] + orders["part_hard"]
    assert parts.tolist() == pytest.approx(orders["inner_product"].tolist(), rel=1e-12)
    assert (orders["weight_easy"] + orders["weight_hard"]).tolist() == pytest.approx([1.0] * 8)
    hard = orders.set_index(["step", "k"])["weight_hard"]
    success = path.set_index("step")[["success_easy", "success_hard"]].loc[3].to_numpy(copy=True)
    easy_weight, hard_weight = (
        world.masses * PassAtK(10).weight(torch.from_numpy(success))
    ).tolist()
    assert hard[3, 10] == pytest.approx(hard_weight / (easy_weight + hard_weight), rel=1e-12)


def test_agreements_are_means_of_the_kernel(tables):
    world, path = TwoPointBandit(), tables["path"]
    easy, hard = world.masses.tolist()
    made = easy * path["kernel_easy_hard"] + hard * path["kernel_hard_hard"]
    assert made.tolist() == pytest.approx(path["agreement_hard"].tolist(), rel=1e-12)
    kernel = world.kernel(torch.tensor(THETA, dtype=torch.float64))
    assert path["kernel_easy_hard"][0] == pytest.approx(float(kernel[0, 1]), rel=1e-12)
    assert path["kernel_easy_easy"][0] == pytest.approx(float(kernel[0, 0]), rel=1e-12)


def test_no_cosine_where_the_gradients_have_vanished():
    """Far out on the axis of the bias one prompt is solved, and the other one hopeless."""

    def orders(bias):
        path = {"ks": [2, 3], "step_size": bias, "steps": 1, "every": 1}
        return conflict_along(TwoPointBandit(), (0.0, 0.0), AlongTheBias(), **path)["orders"]

    near, far = orders(1.0), orders(40.0)
    assert not near["cosine"].isna().any()
    assert (far["norm"][2:] < VANISHING * far["norm"][:2].to_numpy()).all()
    assert far["cosine"].isna().tolist() == [False, False, True, True]


def test_either_gradient_may_vanish():
    orders = pd.DataFrame({"norm": [1.0, 2.0, 0.5, 1.9e-6, 0.5, 0.5], "cosine": [0.1] * 6})
    _without_vanished(orders, np.array([3.0, 3.1e-6, 2.9e-6]), 2)
    assert orders["cosine"].isna().tolist() == [False, False, False, True, True, True]


def test_measurements_may_be_in_another_precision():
    path = {"ks": [2], "step_size": 0.5, "steps": 2, "every": 1}
    own = conflict_along(TwoPointBandit(), THETA, **path)
    other = conflict_along(TwoPointBandit(), THETA, measured=TwoPointBandit(separation=3.0), **path)
    assert (own["path"]["pass_at_1"] != other["path"]["pass_at_1"]).all()


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
    plain, again, other, pcgrad = (
        conflict_life(ascended=name, **path) for name in ("pass@1", "pass@1", "pass@16", "pcgrad@4")
    )
    assert list(plain["orders"]["step"]) == [0, 2, 3]
    assert plain["path"].equals(again["path"])
    starts = {float(one["path"]["success_hard"][0]) for one in (plain, other, pcgrad)}
    ends = {float(one["path"]["success_hard"][2]) for one in (plain, other, pcgrad)}
    assert (len(starts), len(ends)) == (1, 3)


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([0.5, 0.1, -0.2, -0.4, -0.1, 0.3], (20, 30, -0.4, 50, 3 / 6)),
        ([-0.1, 0.2, -0.3, -0.2], (0, 20, -0.3, math.nan, 3 / 4)),
        ([0.3, 0.2], (math.nan, math.nan, math.nan, math.nan, 0)),
        ([-0.3, -0.2], (0, 0, -0.3, math.nan, 1)),
        ([0.1, -0.5, 0.1, -0.1, -0.2, 0.0], (10, 40, -0.2, 50, 3 / 6)),
        ([0.1, math.nan, -0.2, 0.1], (20, 20, -0.2, 30, 1 / 3)),
        ([0.1, -0.2, math.nan, math.nan], (10, 10, -0.2, math.nan, 1 / 2)),
        ([0.1, -0.2, math.nan, -0.3, 0.2], (10, 30, -0.3, 40, 1 / 2)),
        ([math.nan], (math.nan, math.nan, math.nan, math.nan, math.nan)),
    ],
)
def test_phases(cosines, expected):
    made = phases([10 * i for i in range(len(cosines))], cosines)
    assert list(made) == ["born", "deepest", "lowest", "ended", "share"]
    assert list(made.values()) == pytest.approx(list(expected), nan_ok=True)


def test_what_goes_wrong_is_named():
    with pytest.raises(UserError, match="every must be at least 1, got 0"):
        conflict_along(TwoPointBandit(), THETA, step_size=1.0, steps=1, every=0)


def test_a_direction_has_a_name():
    assert direction_of("pass@8") == PassAtK(8)
    assert direction_of("pcgrad@8").label == "pcgrad of pass@1 and pass@8"
    for name in ("pass", "pass@", "pass@x", "8"):
        with pytest.raises(UserError, match=f"'{name}' names no ascent: give pass@8"):
            direction_of(name)
