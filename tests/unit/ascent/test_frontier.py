import math

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.directions import AdamMetric, Euclidean, FisherMetric
from passgrad.ascent.frontier import frontier, method
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.tabular import TabularSoftmax

THETA = (-2.0, -2.0)
METHODS = (
    "pass@1", "mixture 0.5", "pass@k", "annealed", "pcgrad", "upgrad", "mgda", "cagrad",
    "constrained",
)  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    return frontier(TwoPointBandit(), THETA, METHODS, k=10, steps=5, length=0.05)


def step_of(world, theta, names, **options):
    """The first steps, as vectors, from the paths of one step."""
    return frontier(world, theta, names, steps=1, **options)["path"].query("step == 0")


def test_the_columns(tables):
    path, prompts = tables["path"], tables["prompts"]
    assert list(path.columns) == [
        "method", "step", "pass_at_1", "pass_at_1_easy", "pass_at_1_hard", "pass_at_k",
        "pass_at_k_easy", "pass_at_k_hard", "cosine", "norm_1", "norm_k", "share", "length",
        "predicted_1", "predicted_k", "realised_1", "realised_k",
    ]  # fmt: skip
    assert list(prompts.columns) == [
        "method", "prompt", "group", "mass", "success_start", "success_end",
    ]  # fmt: skip
    assert list(dict.fromkeys(path["method"])) == list(METHODS)
    assert path.groupby("method")["step"].apply(list).map(lambda s: s == [0, 1, 2, 3, 4, 5]).all()
    last = path[path["step"] == 5]
    assert last[["cosine", "length", "predicted_1", "realised_k"]].isna().all(axis=None)
    assert len(prompts) == len(METHODS) * 2
    ends = prompts.assign(part=prompts["mass"] * prompts["success_end"]).groupby("method")["part"]
    np.testing.assert_allclose(
        ends.sum().loc[list(METHODS)], last.set_index("method")["pass_at_1"].loc[list(METHODS)]
    )


def test_the_same_call_gives_the_same_tables(tables):
    again = frontier(TwoPointBandit(), THETA, METHODS, k=10, steps=5, length=0.05)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])


@pytest.mark.parametrize("metric", [None, FisherMetric(0.1), AdamMetric])
def test_every_step_has_the_length_in_the_metric(metric):
    make = {} if metric is None else {
        "make_metric": metric if metric is AdamMetric else lambda: metric
    }  # fmt: skip
    tables = frontier(TwoPointBandit(), THETA, METHODS, k=10, steps=3, length=0.03, **make)
    lengths = tables["path"].query("step < 3")["length"]
    np.testing.assert_allclose(lengths, 0.03, rtol=1e-9)


def test_the_length_is_that_of_the_move():
    """Held against paths of ascend, which knows nothing of lengths."""
    world = GaussianBandit(num_nodes=21)
    theta = torch.tensor(THETA, dtype=torch.float64)
    for name, objective in (("pass@1", PassAtK(1)), ("pass@k", PassAtK(10))):
        gradient = world.objective_gradient(theta, objective)[1]
        one = step_of(world, theta, [name], length=0.2)
        moved = ascend(
            world, theta, objective, step_size=0.2 / float(gradient.norm()), record_theta=True
        )
        assert float((moved.theta - theta).norm()) == pytest.approx(0.2)
        realised = moved.pass_at_k(10)[1] - moved.pass_at_k(10)[0]
        assert one["realised_k"].item() == pytest.approx(float(realised))
    own = step_of(world, theta, ["pass@1"], step_size=0.7)["length"].item()
    gradient = world.objective_gradient(theta, PassAtK(1))[1]
    assert own == pytest.approx(0.7 * float(gradient.norm()))


def test_upgrad_is_pcgrad_at_one_length_and_half_of_it_at_one_step_size(tables):
    path = tables["path"].set_index(["method", "step"])[["pass_at_1", "pass_at_k"]]
    np.testing.assert_allclose(path.loc["pcgrad"], path.loc["upgrad"], rtol=1e-12)
    own = step_of(TwoPointBandit(), THETA, ["pcgrad", "upgrad"], step_size=0.1)["length"]
    assert own.iloc[0] == pytest.approx(2 * own.iloc[1])


def test_no_method_of_surgery_lowers_pass_at_1_to_first_order(tables):
    path = tables["path"].query("step < 5")
    first = path[path["step"] == 0].set_index("method")
    assert first["cosine"].iloc[0] < 0
    assert first["predicted_1"]["pass@k"] < 0
    for name in ("pcgrad", "upgrad", "mgda", "constrained"):
        assert (path.loc[path["method"] == name, "predicted_1"] >= -1e-15).all()
    assert first["predicted_1"]["constrained"] == pytest.approx(0, abs=1e-15)
    # The price: of all steps of this length pass@k's own raises J_k most.
    assert first["predicted_k"].idxmax() == "pass@k"
    sine = math.sqrt(1 - first["cosine"].iloc[0] ** 2)
    ratio = first["predicted_k"]["constrained"] / first["predicted_k"]["pass@k"]
    assert ratio == pytest.approx(sine)


def test_small_steps_do_what_is_predicted():
    path = step_of(TwoPointBandit(), THETA, METHODS, length=1e-6)
    for one in ("1", "k"):
        scale = path[f"predicted_{one}"].abs().max()
        error = (path[f"predicted_{one}"] - path[f"realised_{one}"]).abs().max()
        assert error < 1e-4 * scale


def test_annealing_goes_from_pass_at_k_to_pass_at_1():
    names = ["pass@1", "pass@k", "annealed"]
    path = frontier(TwoPointBandit(), THETA, names, k=9, steps=3, length=0.01)["path"]
    annealed = path[path["method"] == "annealed"]
    assert annealed["share"].fillna(-1).tolist() == [1, -1, 0, -1]
    first = path[path["step"] == 0].set_index("method")
    assert first["predicted_k"]["annealed"] == first["predicted_k"]["pass@k"]
    # In between it is the gradient of pass@3, to first order: held against it.
    world, theta = TwoPointBandit(), torch.tensor(THETA, dtype=torch.float64)
    gradient = world.objective_gradient(theta, PassAtK(9))[1]
    theta = theta + 0.01 * gradient / gradient.norm()
    rows = [world.objective_gradient(theta, PassAtK(one))[1] for one in (1, 3)]
    expected = 0.01 * float(rows[0] @ rows[1] / rows[1].norm())
    assert annealed["predicted_1"].iloc[1] == pytest.approx(expected)


def test_without_shared_parameters_surgery_is_the_sum_and_constrained_is_pass_at_k():
    world = TabularSoftmax(3, masses=[0.2, 0.3, 0.5])
    theta = torch.linspace(-1, 1, 6, dtype=torch.float64)
    names = ["pcgrad", "sum", "constrained", "pass@k"]
    path = frontier(world, theta, names, k=6, steps=3, step_size=0.5)["path"]
    path = path.set_index(["method", "step"])[["pass_at_1", "pass_at_k"]]
    np.testing.assert_allclose(path.loc["pcgrad"], path.loc["sum"], rtol=1e-12)
    np.testing.assert_allclose(path.loc["constrained"], path.loc["pass@k"], rtol=1e-12)


@pytest.mark.parametrize("make", [Euclidean, lambda: FisherMetric(0.1), lambda: AdamMetric(0.9)])
def test_with_own_lengths_it_is_the_path_of_the_direction(make):
    """A metric with a state, such as Adam's, must see every step of its path and no other."""
    world, names = TwoPointBandit(), ["pass@1", "pcgrad", "constrained"]
    path = frontier(world, THETA, names, steps=3, step_size=0.02, make_metric=make)["path"]
    for name in names[1:]:
        direction = ConflictFreeDirection(10, aggregator=name, metric=make())
        trace = ascend(world, THETA, direction, step_size=0.02, steps=3)
        rows = path[path["method"] == name]
        np.testing.assert_allclose(rows["pass_at_k"], trace.pass_at_k(10), rtol=1e-12)
        history = direction.to_frame()
        np.testing.assert_allclose(rows["cosine"].iloc[:3], history["cosine"], rtol=1e-9)


def test_what_goes_wrong_is_named():
    world = TwoPointBandit()
    for wrong in ("best", "mixture", "mixture 2", "mixture x"):
        with pytest.raises(UserError, match="there is no method"):
            method(wrong)
    with pytest.raises(UserError, match="not both"):
        frontier(world, THETA, ["pass@1"], steps=1)
    with pytest.raises(UserError, match="not both"):
        frontier(world, THETA, ["pass@1"], steps=1, length=1.0, step_size=1.0)
    with pytest.raises(UserError, match="positive"):
        frontier(world, THETA, ["pass@1"], steps=1, length=-1.0)
    with pytest.raises(UserError, match="at least 1"):
        frontier(world, THETA, ["pass@1"], steps=0, length=1.0)
    solved = torch.tensor([2000.0, -2000.0], dtype=torch.float64)
    with pytest.raises(UserError, match="step 0 of pass@1 has no direction"):
        frontier(TabularSoftmax(1), solved, ["pass@1"], steps=1, length=1.0)


def test_steps_that_leave_the_finite_numbers_are_named():
    class Broken(TwoPointBandit):
        def success(self, theta=None):
            moved = self.parameters(theta)[0] != THETA[0]
            return super().success(theta) * (math.nan if moved else 1.0)

    with pytest.raises(UserError, match="the ascent on pcgrad left .* at step 1: take shorter"):
        frontier(Broken(), THETA, ["pcgrad"], steps=1, length=1.0)


def test_progress_is_told(told):
    frontier(TwoPointBandit(), THETA, METHODS[:2], steps=3, length=0.1, progress=told)
    assert told.stages == [("ascending pass@1", 3), ("ascending mixture 0.5", 3)]
    assert told.done == 6
