"""A conflict is mutual: a small step up either objective goes down the other."""

import pytest

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit

pytestmark = pytest.mark.statement("prop-mutual")


@pytest.mark.parametrize("k", [2, 5, 20])
def test_small_steps_harm_both_ways_exactly_where_the_gradients_conflict(k):
    seen = set()
    for theta in ((-2.0, -2.0), (-2.0, 0.0), (1.0, 0.0), (-0.2, 1.0)):
        for h in (0.1, 0.4, 0.6):
            world = GaussianBandit(0.2, h)
            conflicts = bool(conflict(world, theta, [k]).inner_product[0] < 0)
            seen.add(conflicts)
            for up, other in ((1, k), (k, 1)):
                step = ascend(world, theta, PassAtK(up), step_size=1e-4)
                assert step.pass_at_k(up)[1] > step.pass_at_k(up)[0]
                assert bool(step.pass_at_k(other)[1] < step.pass_at_k(other)[0]) == conflicts
    assert seen == {True, False}


def test_a_large_step_may_not():
    """The statement is about small steps: one of length 40 jumps to the mirror image."""
    world, theta = TwoPointBandit(), (-2.0, -2.0)
    near = ascend(world, theta, PassAtK(10), step_size=1e-4).pass_at_k(1)
    far = ascend(world, theta, PassAtK(10), step_size=40.0).pass_at_k(1)
    assert near[1] < near[0]
    assert far[1] > far[0]
