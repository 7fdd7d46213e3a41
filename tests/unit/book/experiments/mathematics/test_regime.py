"""Spread of success rates and conflict along an exact ascent."""

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.mathematics.regime import first_conflict, follow_conflict, spread

WORLD = GaussianBandit(0.2, 0.4).sample(6, 4, seed=1)
THETA = [-2.0, -2.0]


@pytest.fixture(scope="module")
def followed():
    return follow_conflict(WORLD, THETA, ks=[2, 5], step_size=3.0, steps=4)


def test_the_path_is_that_of_the_ascent_and_the_conflict_that_of_each_point(followed):
    trace = ascend(WORLD, THETA, PassAtK(1), step_size=3.0, steps=4, record_theta=True)
    for step, theta in enumerate(trace.thetas):
        exact = conflict(WORLD, theta, ks=[2, 5])
        curve = followed["curve"][followed["curve"]["step"] == step]
        np.testing.assert_allclose(curve["cosine"], exact.cosine, rtol=1e-9)
        prompts = followed["prompts"][followed["prompts"]["step"] == step]
        np.testing.assert_allclose(prompts["success"], trace.success[step], rtol=1e-12)
        np.testing.assert_allclose(prompts["agreement"], exact.agreement, rtol=1e-9)
    assert followed["prompts"]["step"].max() == 4


def test_the_first_conflict_is_where_the_product_turns(followed):
    found = first_conflict(followed["prompts"])
    theta = torch.tensor(THETA, dtype=torch.float64)
    ks = list(range(2, 40))
    inner = conflict(WORLD, theta, ks=ks).inner_product
    below = [k for k, one in zip(ks, inner.tolist(), strict=True) if one < 0]
    assert found[0] == below[0]
    assert np.isnan(first_conflict(followed["prompts"], largest=below[0] - 1)[0])


def test_other_objectives_may_be_ascended():
    one = follow_conflict(WORLD, THETA, PassAtK(5), ks=[2], step_size=3.0, steps=1)
    other = ascend(WORLD, THETA, PassAtK(5), step_size=3.0, steps=1)
    last = one["prompts"][one["prompts"]["step"] == 1]
    np.testing.assert_allclose(last["success"], other.success[1], rtol=1e-12)


def test_spread_by_hand():
    table = pd.DataFrame(
        {
            "step": [0, 0, 0, 1, 1],
            "mass": [0.5, 0.25, 0.25, 0.5, 0.5],
            "success": [1.0, 0.0, 0.0, 0.4, 0.4],
        }
    )
    found = spread(table)
    assert found["pass_at_1"].tolist() == pytest.approx([0.5, 0.4])
    assert found["deviation"].tolist() == pytest.approx([0.5, 0.0])
    assert found["split"].tolist() == pytest.approx([1.0, 0.0])
    assert found["easy"].tolist() == [0.5, 0.0]
    assert found["hard"].tolist() == [0.5, 0.0]
