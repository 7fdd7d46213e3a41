import doctest

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import ESTIMATORS, CentredL2O, advantages, estimator_table, registry
from passgrad.estimators.counts import binomial_law
from passgrad.objectives import Log, Mixture, PassAtK

NAMES = {
    "reinforce-max", "pkpo", "pkpo-loo", "pkpo-loo1", "tang-loo", "centred-l2o", "rloo",
    "plug-in", "plug-in-loo", "u-weight", "plug-in-centred", "tang-centred",
    "passk-training", "passk-training-unscaled", "grpo", "maxrl", "maxrl-full", "verl-passk",
}  # fmt: skip


@pytest.fixture
def rewards():
    return torch.randint(0, 2, (6, 8), generator=torch.Generator().manual_seed(0)).double()


def test_the_names_are_known():
    assert set(ESTIMATORS) == NAMES


def test_docstrings():
    assert doctest.testmod(registry).failed == 0


def test_an_unknown_name_lists_the_known_ones(rewards):
    with pytest.raises(UserError, match="no estimator 'pkpo-loo2'; known are centred-l2o, grpo"):
        advantages(rewards, 2, estimator="pkpo-loo2")
    with pytest.raises(UserError, match="no estimator 3"):
        advantages(rewards, 2, estimator=3)


def test_one_order_and_several(rewards):
    one = advantages(rewards, 3)
    assert one.shape == (6, 8)
    several = advantages(rewards, [1, 3, 8])
    assert several.shape == (3, 6, 8)
    assert torch.equal(several[1], one)
    assert torch.equal(advantages(rewards, np.array([3]))[0], one)
    assert torch.equal(advantages(rewards, np.int64(3)), one)


@pytest.mark.parametrize("graded", [False, True])
def test_a_mixture_is_the_weighted_sum(rewards, graded):
    if graded:
        rewards = rewards + torch.rand(6, 8, generator=torch.Generator().manual_seed(1)).double()
    ks, weights = [1, 2, 5], [0.5, -0.25, 2.0]
    for name in ("pkpo", "pkpo-loo1", "centred-l2o"):
        parts = advantages(rewards, ks, estimator=name)
        expected = torch.einsum("k,kpn->pn", torch.tensor(weights).double(), parts)
        made = advantages(rewards, ks, estimator=name, weights=weights)
        torch.testing.assert_close(made, expected)
    objective = Mixture((PassAtK(1), PassAtK(5)), (0.25, 0.75))
    made = advantages(rewards, objective)
    parts = advantages(rewards, [1, 5])
    torch.testing.assert_close(made, 0.25 * parts[0] + 0.75 * parts[1])
    assert torch.equal(advantages(rewards, PassAtK(5)), parts[1])


def test_a_mixture_ascends_the_mixture_of_the_objectives():
    """By its mean over the counts of a Bernoulli policy."""
    n, p, ks, weights = 6, 0.3, [1, 4], [0.7, 0.3]
    rewards = (torch.arange(n)[None] < torch.arange(n + 1)[:, None]).double()
    made = advantages(rewards, ks, weights=weights)
    estimate = (made * (rewards - p)).sum(dim=1)
    law = binomial_law(torch.tensor(p, dtype=torch.float64), n)
    mixture = Mixture(tuple(PassAtK(k) for k in ks), tuple(weights))
    target = float(mixture.weight(torch.tensor(p, dtype=torch.float64))) * p * (1 - p)
    assert float(law @ estimate) == pytest.approx(target, abs=1e-12)


def test_biased_estimators_do_not_mix(rewards):
    for name in ("passk-training", "plug-in", "grpo", "tang-loo"):
        with pytest.raises(UserError, match=f"{name} cannot mix orders"):
            advantages(rewards, [1, 2], estimator=name, weights=[1, 1])


@pytest.mark.parametrize(
    ("k", "weights"), [([1, 2], [1.0]), (2, [1.0]), ([1, 2], [1.0, float("nan")]), (None, [1.0])]
)
def test_weights_that_do_not_fit(rewards, k, weights):
    with pytest.raises(UserError, match="weights must hold one finite number"):
        advantages(rewards, k, weights=weights)


def test_objectives_that_are_no_mixture_of_pass_at_k(rewards):
    with pytest.raises(UserError, match=r"whole k only, got pass@2\.5"):
        advantages(rewards, PassAtK(2.5))
    with pytest.raises(UserError, match="whole k only, got log"):
        advantages(rewards, Mixture((PassAtK(1), Log()), (1.0, 1.0)))
    with pytest.raises(UserError, match="leave weights out"):
        advantages(rewards, PassAtK(2), weights=[1.0])
    with pytest.raises(UserError, match="k = 9 exceeds the 8 samples"):
        advantages(rewards, [2, 9], weights=[1.0, 1.0])


def test_options_of_ones_own(rewards):
    assert torch.equal(
        advantages(rewards, 2, estimator=CentredL2O()),
        advantages(rewards, 2, estimator="centred-l2o"),
    )


def test_the_table_has_every_estimator_and_no_cell_that_breaks_a_markdown_row():
    table = estimator_table()
    assert isinstance(table, pd.DataFrame)
    assert list(table["estimator"]) == [f"`{name}`" for name in ESTIMATORS]
    for cell in table.to_numpy().ravel():
        assert isinstance(cell, str)
        assert cell
        assert "|" not in cell
        assert cell.count("$") % 2 == 0


def test_the_table_says_what_the_classes_do():
    table = estimator_table().set_index("estimator")
    assert table.loc["`maxrl`", "ascends"] == r"$\log p$ to order $n-1$"
    assert table.loc["`centred-l2o`", "sum 0"] == "yes"
    assert table.loc["`plug-in`", "graded"] == "no"
    assert table.loc["`pkpo-loo`", "samples"] == r"$n \ge k + 1$"
    assert table.loc["`tang-loo`", "samples"] == "$n = k$"
    assert table.loc["`grpo`", "samples"] == r"$n \ge 2$"
