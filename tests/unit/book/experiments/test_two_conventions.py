"""compare_ascents holds what ascend gives, one objective at a time, from the same theta."""

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.two_conventions import compare_ascents

THETA = (-2.0, -2.0)


@pytest.fixture
def table():
    objectives = [PassAtK(1), PassAtK(10)]
    return compare_ascents(
        TwoPointBandit(), THETA, objectives, ks=[1, 10], step_size=0.5, steps=3
    ).set_index(["objective", "k", "group", "step"])["pass_at_k"]


@pytest.mark.parametrize("objective", [PassAtK(1), PassAtK(10)], ids=["pass@1", "pass@10"])
@pytest.mark.parametrize("k", [1, 10])
def test_it_is_the_trace_of_each_ascent(table, objective, k):
    trace = ascend(TwoPointBandit(), THETA, objective, step_size=0.5, steps=3)
    expected = {"all": trace.pass_at_k(k), **trace.group_pass_at_k(k)}
    for group, values in expected.items():
        found = torch.tensor(table[objective.label, k, group].to_list(), dtype=torch.float64)
        torch.testing.assert_close(found, values, rtol=0, atol=0)


def test_every_objective_starts_from_the_same_point(table):
    start = table.xs(0, level="step")
    assert start["pass@1"].equals(start["pass@10"])


def test_in_conflict_each_objective_costs_the_other(table):
    assert table["pass@10", 1, "all", 3] < table["pass@10", 1, "all", 0]
    assert table["pass@1", 10, "all", 3] < table["pass@1", 10, "all", 0]
