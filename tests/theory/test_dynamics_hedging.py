"""Where prompts look alike, the policy that maximises pass@k hedges, and pays with pass@1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from passgrad.ascent.ascent import ascend
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.optimum import best_pass_at_1, hedged_answer, optimal_theta
from passgrad_book.experiments.dynamics.phase import phase_diagram

pytestmark = pytest.mark.statement("prop-hedging", "cor-gaussian-optimum")


def aliased(pi, eta, k):
    return (1 - eta) * (1 - pi**k) + eta * (1 - (1 - pi) ** k)


@settings(deadline=None, max_examples=60)
@given(eta=st.floats(0.01, 0.99), k=st.floats(1.2, 40))
def test_the_hedge_is_the_maximum(eta, k):
    found = minimize_scalar(
        lambda pi: -aliased(pi, eta, k), bounds=(0, 1), method="bounded", options={"xatol": 1e-12}
    )
    hedge = float(hedged_answer(eta, k))
    assert aliased(hedge, eta, k) >= -found.fun - 1e-14
    # The derivative vanishes there, up to the rounding of 1 - hedge.
    push, pull = eta * (1 - hedge) ** (k - 1), (1 - eta) * hedge ** (k - 1)
    assert push == pytest.approx(pull, rel=k * 1e-15 / min(hedge, 1 - hedge) + 1e-13)


def test_the_closed_form_of_the_statement():
    """pi = 1 / (1 + ((1 - h) / h)^(1 / (k - 1)))."""
    for h in (0.1, 0.4, 0.9):
        for k in (2, 5, 10):
            expected = 1 / (1 + ((1 - h) / h) ** (1 / (k - 1)))
            assert float(hedged_answer(h, k)) == pytest.approx(expected, rel=1e-14)


def test_pass_at_1_falls_with_k_from_the_better_bet_to_one_half():
    for h in (0.2, 0.4, 0.7):
        ks = [1, 1.1, 2, 3, 5, 10, 100, 1e5]
        pi = torch.stack([hedged_answer(h, k) for k in ks])
        level = (1 - h) * (1 - pi) + h * pi
        assert float(level[0]) == max(h, 1 - h)
        assert (level.diff() < 0).all()
        assert float(level[-1]) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("separation", [0.0, 0.2, 2.0, 6.0])
@pytest.mark.parametrize(("fraction", "k"), [(0.4, 5), (0.3, 2), (0.7, 10)])
def test_the_optimum_of_the_gaussian_bandit(separation, fraction, k):
    world = GaussianBandit(separation, fraction)

    def negative(theta):
        gradient = world.objective_gradient(theta, PassAtK(k))[1]
        return -world.objective_value(theta, PassAtK(k)), -gradient.numpy()

    theta = optimal_theta(k, separation, fraction)
    assert float(world.objective_gradient(theta, PassAtK(k))[1].norm()) < 1e-14
    for start in ((0.0, 0.0), (-2.0, -2.0), (1.0, 3.0)):
        found = minimize(negative, start, jac=True, tol=1e-14)
        assert -found.fun <= world.objective_value(theta, PassAtK(k)) + 1e-15
        assert found.x.tolist() == pytest.approx(theta.tolist(), abs=1e-3)


def test_no_function_of_the_feature_does_better():
    """A free table over the nodes, one answer a node, against the two parameters."""
    world, k = GaussianBandit(1.0, 0.3, num_nodes=65), 4
    s, posterior = world.features[:65, 1] + 0.5, None  # the standardised nodes
    density = {d: torch.exp(-((s - d) ** 2) / 2) for d in (-0.5, 0.5)}
    posterior = 0.3 * density[0.5] / (0.3 * density[0.5] + 0.7 * density[-0.5])
    logits = torch.logit(posterior) / (k - 1)
    bias, slope = optimal_theta(k, 1.0, 0.3)
    torch.testing.assert_close(logits, bias + slope * s, atol=1e-10, rtol=0)
    hedge = hedged_answer(posterior, k)
    best = aliased(hedge, posterior, k)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = torch.rand(65, dtype=torch.float64, generator=generator)
        assert (aliased(other, posterior, k) <= best + 1e-15).all()


@pytest.mark.parametrize(("fraction", "one", "five"), [(0.4, 0.5063, 0.9697), (0.3, 0.5223, None)])
def test_the_end_of_the_ascent_in_the_references_is_this_optimum(fraction, one, five):
    """Two thousand unit steps on pass@5, from a far start."""
    world = GaussianBandit(0.2, fraction)
    theta = optimal_theta(5, 0.2, fraction)
    assert round(world.objective_value(theta, PassAtK(1)), 4) == one
    assert five is None or round(world.objective_value(theta, PassAtK(5)), 4) == five
    trace = ascend(world, (-2.0, 0.0), PassAtK(5), step_size=1.0, steps=2000)
    torch.testing.assert_close(trace.theta, theta, atol=1e-6, rtol=0)


def test_the_price_of_the_hedge():
    """Below the best pass@1 for every k > 1; it goes to nothing as the kinds move apart."""
    for k in (1.5, 2, 5, 20):
        losses = []
        for separation in (0.0, 1.0, 4.0, 16.0):
            world = GaussianBandit(separation, 0.4)
            level = world.objective_value(optimal_theta(k, separation, 0.4), PassAtK(1))
            losses.append(best_pass_at_1(separation, 0.4) - level)
        assert min(losses[:3]) > 1e-6
        assert losses[-1] < 0.02 * (k - 1) / 19 + 1e-3
    assert math.isclose(best_pass_at_1(0.0, 0.4), 0.6)


def test_the_conflict_at_the_start_does_not_tell_who_loses():
    """On the grid of the book: losses without a conflict, and conflicts that end in a gain."""
    k, bias, slope = 5, -2.0, -2.0
    separations = torch.linspace(0, 2, 32, dtype=torch.float64)
    fractions = torch.linspace(0.02, 0.98, 32, dtype=torch.float64)
    diagram = phase_diagram(
        [k], separations=separations, hard_fractions=fractions, biases=[bias], slope=slope
    )
    conflicts = diagram.inner_product[0, :, :, 0] < 0
    changes = []
    for separation in separations.tolist():
        for fraction in fractions.tolist():
            world = GaussianBandit(separation, fraction, num_nodes=65)
            theta = optimal_theta(k, separation, fraction)
            end, start = (world.masses @ world.success(t) for t in (theta, (bias, slope)))
            changes.append(float(end - start))
    falls = torch.tensor(changes).view(32, 32) < 0
    assert int((falls & ~conflicts).sum()) > int((falls & conflicts).sum()) > 0
    assert int((~falls & conflicts).sum()) > 0
