"""PCGrad, UPGrad, MGDA and the constrained step lower neither objective to first order."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.ascent.mixing import coefficients
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.checks import controls

pytestmark = pytest.mark.statement("prop-no-fall", "cor-pcgrad-upgrad")

lengths = st.floats(0.05, 20)
# Away from exact opposition, where every gain below is zero.
angles = st.floats(0, 0.98 * math.pi)


def gram_of(first, second, angle):
    product = first * second * math.cos(angle)
    return torch.tensor([[first**2, product], [product, second**2]], dtype=torch.float64)


def changes(gram, aggregator):
    return gram @ coefficients(gram, aggregator, normalise=False)


@settings(deadline=None)
@given(lengths, lengths, angles)
def test_the_gains_of_pcgrad(first, second, angle):
    gram = gram_of(first, second, angle)
    conflict = gram[0, 1] < 0
    expected = gram.diagonal() * math.sin(angle) ** 2 if conflict else gram.sum(dim=1)
    torch.testing.assert_close(changes(gram, "pcgrad"), expected, atol=1e-9, rtol=1e-8)
    assert (expected > 0).all()
    half = coefficients(gram, "pcgrad", normalise=False) / 2
    torch.testing.assert_close(coefficients(gram, "upgrad", normalise=False), half)


@settings(deadline=None)
@given(lengths, lengths, st.floats(0, 0.9 * math.pi))
def test_upgrad_is_the_mean_of_the_projections_on_the_cone_of_no_fall(first, second, angle):
    """The cone of directions d with <g_i, d> >= 0, by its own projection and not by PCGrad's."""
    gram = gram_of(first, second, angle)
    rows = torch.linalg.cholesky(gram + 1e-12 * torch.eye(2, dtype=torch.float64))
    expected = sum(onto_cone(rows[i], rows) for i in range(2)) / 2
    step = coefficients(gram, "upgrad", normalise=False) @ rows
    torch.testing.assert_close(step, expected, atol=1e-5, rtol=1e-4)


def onto_cone(vector, rows):
    """The nearest d with rows @ d >= 0, in the plane: inside, on an edge, or the tip."""
    candidates = [vector, torch.zeros_like(vector)]
    candidates += [vector - min(0.0, float(vector @ r / (r @ r))) * r for r in rows]
    allowed = [d for d in candidates if (rows @ d >= -1e-9).all()]
    return min(allowed, key=lambda d: float((d - vector).norm()))


@settings(deadline=None)
@given(lengths, lengths, angles)
def test_mgda_raises_both_by_no_less_than_the_square_of_its_step(first, second, angle):
    gram = gram_of(first, second, angle)
    lambdas = coefficients(gram, "mgda", normalise=False)
    square = lambdas @ gram @ lambdas
    # Frank-Wolfe stops within a tolerance.
    assert (gram @ lambdas >= square - 1e-3 * gram.diagonal().max()).all()


@settings(deadline=None)
@given(lengths, lengths, angles)
def test_the_plain_step_loses_what_these_do_not(first, second, angle):
    gram = gram_of(first, second, angle)
    assume(abs(math.cos(angle)) > 1e-6)
    plain = gram[:, 1]
    assert bool(plain[0] < 0) == bool(gram[0, 1] < 0)
    for aggregator in ("pcgrad", "constrained"):
        assert (changes(gram, aggregator) >= -1e-9 * gram.diagonal()).all()


def test_small_steps_do_as_the_first_order_says(policy, case):
    size = 1e-5
    for aggregator in ("pcgrad", "upgrad", "mgda", "constrained"):
        direction = ConflictFreeDirection(12, aggregator=aggregator)
        trace = ascend(policy, policy.theta, direction, step_size=size, steps=1)
        for k, change in zip((1, 12), direction.history[0].changes.tolist(), strict=True):
            moved = float(trace.pass_at_k(k)[1] - trace.pass_at_k(k)[0])
            with case(aggregator=aggregator, k=k):
                assert moved == pytest.approx(size * change, rel=1e-2, abs=1e-9)
                assert change > -1e-12


def test_where_the_gradients_oppose_each_other_exactly_nothing_moves():
    """Without features that differ, the two prompts of the bandit have parallel gradients."""
    world, theta = (
        TwoPointBandit(1e-9, hard_fraction=0.3),
        torch.tensor([-2.0, 0.0], dtype=torch.float64),
    )
    direction = ConflictFreeDirection(10)
    step = direction(world, theta)[1]
    gram = direction.history[0].gram
    assert direction.history[0].cosine == pytest.approx(-1)
    assert step.norm() < 1e-6 * gram.diagonal().max().sqrt()
    gradient = world.objective_gradient(theta, PassAtK(10))[1]
    assert gradient.norm() > 0.01


def test_nothing_falls_in_the_bandits_where_the_gradients_conflict():
    found = controls.first_order()
    assert found.pop("conflicts") > 0
    assert min(found.values()) > -1e-9, found
