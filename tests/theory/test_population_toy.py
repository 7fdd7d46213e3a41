"""The population of the bandit by quadrature: pass@5 ascent with a unit step, 2000 steps.

theta and the share of hard prompts are assumptions of this project: the paper prints neither.
"""

import pytest

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.checks import population

pytestmark = pytest.mark.statement("prop-conflict-identity")

EXPECTED = {
    0.4: {
        "pass_at_1_before": 0.5324,
        "pass_at_1_after": 0.5063,
        "pass_at_5_before": 0.7586,
        "pass_at_5_after": 0.9697,
        "pass_at_1_before_flat": 0.5762,
        "pass_at_1_after_flat": 0.5063,
        "pass_at_5_before_flat": 0.7879,
        "pass_at_5_after_flat": 0.9697,
    },
    0.3: {
        "pass_at_1_before": 0.5873,
        "pass_at_1_after": 0.5223,
        "pass_at_1_before_flat": 0.6523,
        "pass_at_1_after_flat": 0.5223,
    },
}
COSINES = {
    # (slope, hard fraction): cosine; the bias is -2
    (-2.0, 0.4): -0.110,
    (-2.0, 0.3): +0.238,
    (0.0, 0.4): -0.845,
    (0.0, 0.3): -0.941,
}


def test_reference_values(case):
    for hard_fraction, expected in EXPECTED.items():
        found = population.ascent(hard_fraction)
        for name, value in expected.items():
            with case(hard_fraction=hard_fraction, quantity=name):
                assert round(found[name], 4) == value
    for (slope, hard_fraction), value in COSINES.items():
        world = GaussianBandit(separation=0.2, hard_fraction=hard_fraction)
        with case(slope=slope, hard_fraction=hard_fraction):
            assert round(float(conflict(world, (-2.0, slope), [5]).cosine[0]), 3) == value


def test_pass_at_1_rises_before_it_falls_where_the_gradients_agree_at_first():
    world = GaussianBandit(separation=0.2, hard_fraction=0.3)
    one = ascend(world, (-2.0, -2.0), PassAtK(5), step_size=1.0, steps=2000).pass_at_k(1)
    assert round(float(one[10]), 4) == 0.5909
    assert one[0] < one[10] > one[-1]


def test_well_separated_features_do_not_conflict():
    world = GaussianBandit(separation=2.0, hard_fraction=0.4)
    assert round(float(conflict(world, (-2.0, -2.0), [5]).cosine[0]), 3) == 0.877
