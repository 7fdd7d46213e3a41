"""The population of the bandit by quadrature: pass@5 ascent with a unit step, 2000 steps.

theta and the share of hard prompts are assumptions of this project: the paper prints neither.
"""

import pytest

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit

pytestmark = pytest.mark.statement("prop-conflict-identity")

CASES = [
    # theta, hard fraction, cosine, J_1 before, J_1 after, J_5 before, J_5 after
    ((-2.0, -2.0), 0.4, -0.110, 0.5324, 0.5063, 0.7586, 0.9697),
    ((-2.0, -2.0), 0.3, +0.238, 0.5873, 0.5223, None, None),
    ((-2.0, 0.0), 0.4, -0.845, 0.5762, 0.5063, 0.7879, 0.9697),
    ((-2.0, 0.0), 0.3, -0.941, 0.6523, 0.5223, None, None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"theta={case[0]}, hard={case[1]}")
def test_reference_values(case):
    theta, hard_fraction, cosine, *ends = case
    world = GaussianBandit(separation=0.2, hard_fraction=hard_fraction)
    assert round(float(conflict(world, theta, [5]).cosine[0]), 3) == cosine
    trace = ascend(world, theta, PassAtK(5), step_size=1.0, steps=2000)
    values = [trace.pass_at_k(k)[t] for k in (1, 5) for t in (0, -1)]
    for value, expected in zip(values, ends, strict=True):
        assert expected is None or round(float(value), 4) == expected


def test_pass_at_1_rises_before_it_falls_where_the_gradients_agree_at_first():
    world = GaussianBandit(separation=0.2, hard_fraction=0.3)
    one = ascend(world, (-2.0, -2.0), PassAtK(5), step_size=1.0, steps=2000).pass_at_k(1)
    assert round(float(one[10]), 4) == 0.5909
    assert one[0] < one[10] > one[-1]


def test_well_separated_features_do_not_conflict():
    world = GaussianBandit(separation=2.0, hard_fraction=0.4)
    assert round(float(conflict(world, (-2.0, -2.0), [5]).cosine[0]), 3) == 0.877
