"""A combination by the Gram matrix is a re-weighting of prompts, and one of advantages."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.mixing import coefficients
from passgrad.estimators import advantages
from passgrad.objectives import Mixture, PassAtK

pytestmark = pytest.mark.statement("prop-gram-combination")

METHODS = ("pcgrad", "upgrad", "mgda", "constrained")


def test_a_step_is_the_gradient_of_other_weights(policy, case):
    for aggregator, k in itertools.product(METHODS, (2, 8, 40)):
        direction = ConflictFreeDirection(k, aggregator=aggregator)
        p, step = direction(policy, policy.theta)
        one, other = direction.history[0].lambdas
        weights = one + other * k * (1 - p) ** (k - 1)
        expected = policy.gradient(lambda p, weights=weights: policy.masses @ (weights * p))
        with case(aggregator=aggregator, k=k):
            torch.testing.assert_close(step, expected, atol=1e-12, rtol=1e-9)


def test_with_coefficients_that_are_not_negative_it_is_a_step_up_a_mixture(policy, case):
    for aggregator in METHODS:
        direction = ConflictFreeDirection(8, aggregator=aggregator)
        combined = ascend(policy, policy.theta, direction, step_size=0.1, steps=1)
        lambdas = direction.history[0].lambdas
        mixture = Mixture((PassAtK(1), PassAtK(8)), tuple(lambdas.tolist()))
        plain = ascend(policy, policy.theta, mixture, step_size=0.1, steps=1)
        with case(aggregator=aggregator):
            assert (lambdas >= 0).all()
            torch.testing.assert_close(combined.theta, plain.theta)


def test_mixed_advantages_have_the_combination_as_their_mean(policy, case):
    """All groups of n answers of a prompt, with their probabilities: nothing is sampled."""
    for k in [2, 3]:
        with case(k=k):
            n, lambdas = 3, torch.tensor([0.4, 1.3], dtype=torch.float64)
            pi, scores = policy.probabilities(policy.theta), policy.scores()
            total = torch.zeros(policy.num_parameters, dtype=torch.float64)
            for x, mass in enumerate(policy.masses):
                for answers in itertools.product(range(3), repeat=n):
                    group = list(answers)
                    rewards = (torch.tensor([group]) == policy.correct[x]).double()
                    mixed = lambdas @ advantages(rewards, k=[1, k])[:, 0]
                    total += mass * pi[x, group].prod() * (mixed @ scores[x, group])
            rows = [policy.objective_gradient(policy.theta, PassAtK(order))[1] for order in (1, k)]
            torch.testing.assert_close(total, lambdas @ torch.stack(rows), atol=1e-10, rtol=1e-8)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    st.sampled_from(METHODS),
)
def test_the_coefficients_of_two_objectives_are_not_negative(entries, aggregator):
    rows = torch.tensor(entries, dtype=torch.float64).view(2, 3)
    assert (coefficients(rows @ rows.T, aggregator, normalise=False) >= -1e-9).all()
