"""The constrained step is the projection on the steps that do not lower the base objective."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.directions import Euclidean, FisherMetric
from passgrad.ascent.mixing import coefficients
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-constrained", "cor-price-of-no-fall")

vectors = st.lists(st.floats(-5, 5), min_size=6, max_size=6)


def pair(entries):
    return torch.tensor(entries, dtype=torch.float64).view(2, 3)


@settings(deadline=None)
@given(vectors, st.integers(0, 2**32 - 1))
def test_it_is_the_nearest_step_without_a_fall(entries, seed):
    base, goal = rows = pair(entries)
    if base.norm() < 1e-3 or goal.norm() < 1e-3:
        return
    step = coefficients(rows @ rows.T, "constrained", normalise=False) @ rows
    assert base @ step >= -1e-9
    others = torch.randn(200, 3, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    others = others[others @ base >= 0] * goal.norm()
    assert ((others - goal).norm(dim=1) >= (step - goal).norm() - 1e-9).all()
    # The variational inequality that marks the projection on a convex cone.
    assert ((others - step) @ (goal - step) <= 1e-7).all()


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0, math.pi))
def test_the_price_in_the_objective(first, second, angle):
    product = first * second * math.cos(angle)
    gram = torch.tensor([[first**2, product], [product, second**2]], dtype=torch.float64)
    lambdas = coefficients(gram, "constrained", normalise=False)
    gain = float((gram @ lambdas)[1])
    share = 1 - min(0.0, math.cos(angle)) ** 2
    assert gain == pytest.approx(second**2 * share, abs=1e-9 * second**2)
    # At equal lengths of the step the factor is the sine.
    length = math.sqrt(max(float(lambdas @ gram @ lambdas), 0.0))
    assert gain == pytest.approx(second * math.sqrt(share) * length, abs=1e-6 * second**2)


@settings(deadline=None)
@given(vectors, st.integers(0, 2**32 - 1))
def test_no_step_of_its_length_gains_more(entries, seed):
    base, goal = rows = pair(entries)
    if base.norm() < 1e-3 or goal.norm() < 1e-3:
        return
    step = coefficients(rows @ rows.T, "constrained", normalise=False) @ rows
    others = torch.randn(300, 3, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    others = others[others @ base >= 0]
    others = others / others.norm(dim=1, keepdim=True) * step.norm()
    assert (others @ goal <= step @ goal + 1e-7).all()


def test_it_is_the_projection_in_the_metric(policy, case):
    for metric in [Euclidean(), FisherMetric(0.3)]:
        with case(metric=metric):
            direction = ConflictFreeDirection(12, aggregator="constrained", metric=metric)
            step = direction(policy, policy.theta)[1]
            one, other = (policy.objective_gradient(policy.theta, PassAtK(k))[1] for k in (1, 12))
            gram = direction.history[0].gram
            expected = gram[1, 1] - min(0.0, float(gram[0, 1])) ** 2 / gram[0, 0]
            torch.testing.assert_close(other @ step, expected, atol=1e-12, rtol=1e-8)
            assert one @ step >= -1e-12


def test_pass_at_1_stands_still_to_second_order_while_pass_at_k_rises():
    world = TwoPointBandit()
    lost = []
    for size in (1e-2, 5e-3):
        direction = ConflictFreeDirection(10, aggregator="constrained")
        trace = ascend(world, [-2.0, -2.0], direction, step_size=size, steps=1)
        assert direction.history[0].gram[0, 1] < 0
        lost.append(float(trace.pass_at_k(1)[1] - trace.pass_at_k(1)[0]))
        assert trace.pass_at_k(10)[1] > trace.pass_at_k(10)[0]
    assert lost[0] / lost[1] == pytest.approx(4, rel=0.05)
