"""log p to order T is the mixture of pass@j / j, and a mixture conflicts only if a part does."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passgrad.objective_map import objective_map
from passgrad.objectives import Log, Mixture, PassAtK

pytestmark = pytest.mark.statement("prop-harmonic-mixture")


def test_its_gradient_is_the_harmonic_sum_of_the_pass_at_j_gradients(policy, case):
    for order in (1, 2, 7, 30):

        def series(p, order=order):
            return -sum((1 - p) ** j / j for j in range(1, order + 1))

        direct = policy.gradient(lambda p, series=series: policy.masses @ series(p))
        parts = [policy.objective_gradient(None, PassAtK(j))[1] / j for j in range(1, order + 1)]
        _, gradient = policy.objective_gradient(None, Log(order=order))
        equal = sum(j * part for j, part in enumerate(parts, 1))
        with case(order=order):
            torch.testing.assert_close(sum(parts), direct, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(gradient, direct, rtol=1e-9, atol=1e-12)
            # equal shares are another objective
            assert order == 1 or (equal - direct).norm() > 1e-6


def test_it_tends_to_the_logarithm_as_fast_as_the_failure_rates_vanish(policy):
    p = policy.success()
    for order in (4, 64):
        gap = Log().weight(p) - Log(order=order).weight(p)
        torch.testing.assert_close(gap, (1 - p) ** order / p, rtol=1e-6, atol=1e-12)


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the fixture is a class
)
@given(
    seed=st.integers(0, 10**6),
    ks=st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    coefficients=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
)
def test_a_mixture_conflicts_only_if_one_of_its_parts_does(make_policy, seed, ks, coefficients):
    policy = make_policy(seed)
    parts = [PassAtK(k) for k in ks]
    mixture = Mixture(parts, coefficients[: len(ks)])
    row = objective_map(policy, None, [PassAtK(1), *parts, mixture]).inner_products[0]
    expected = sum(c * u for c, u in zip(coefficients, row[1:-1], strict=False))
    assert float(row[-1]) == pytest.approx(float(expected), abs=1e-12)
    if row[-1] < -1e-12:
        assert (row[1:-1] < 0).any()


def test_a_part_can_conflict_where_the_mixture_does_not(make_policy):
    """Here pass@1, the largest part of log p, outweighs the part that conflicts."""
    seen = 0
    for seed in range(40):
        found = objective_map(make_policy(seed), None, [PassAtK(1), PassAtK(8), Log(order=8)])
        _, part, mixture = found.inner_products[0]
        seen += bool(part < 0 < mixture)
        assert not mixture < 0 < part
    assert seen > 0
