"""E[w_k(p) (p' - p)] from counts: without bias, and the inner product of a step to first order."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from passgrad.measurement.logs.change import Pair, first_order, realised, weights
from passgrad.measurement.logs.visits import Window
from passgrad.objectives import PassAtK
from passgrad.orders import Orders
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-step-from-counts", "prop-step-without-bias")

KS = Orders.of([1, 2, 3, 5])


def _all_outcomes(n: int, n_after: int, p: float, p_after: float) -> tuple[Pair, np.ndarray]:
    """Every pair of counts, and its chance."""
    c, c_after = (x.ravel() for x in np.mgrid[0 : n + 1, 0 : n_after + 1])
    size = len(c)
    pair = Pair(
        Window(0, 0), Window(1, 1), np.arange(size),
        np.full(size, n), c, np.full(size, n_after), c_after,
    )  # fmt: skip
    return pair, binom.pmf(c, n, p) * binom.pmf(c_after, n_after, p_after)


@pytest.mark.parametrize(("n", "n_after"), [(5, 5), (6, 8), (9, 5)])
@pytest.mark.parametrize(("p", "p_after"), [(0.0, 0.3), (0.2, 0.15), (0.7, 0.9), (1.0, 0.4)])
def test_the_estimates_have_no_bias(n: int, n_after: int, p: float, p_after: float) -> None:
    pair, chance = _all_outcomes(n, n_after, p, p_after)
    k = KS.array
    weight = k * (1 - p) ** (k - 1.0)
    assert first_order(pair, KS) @ chance == pytest.approx(weight * (p_after - p), abs=1e-12)
    assert realised(pair, KS) @ chance == pytest.approx(
        (1 - p) ** k - (1 - p_after) ** k, abs=1e-12
    )
    assert weights(pair.samples_before, pair.correct_before, KS) @ chance == pytest.approx(weight)


def test_the_plug_in_has_a_bias_that_this_estimate_lacks() -> None:
    pair, chance = _all_outcomes(5, 5, 0.2, 0.2)
    rate, rate_after = pair.correct_before / 5, pair.correct_after / 5
    plug_in = 5 * (1 - rate) ** 4 * (rate_after - rate) @ chance
    assert plug_in > 0.05  # nothing changed, and yet hard prompts seem to rise
    assert first_order(pair, Orders.of(5))[0] @ chance == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 8])
def test_it_is_the_inner_product_of_the_step_to_first_order(k: int) -> None:
    """The gap to <grad J_k, step> falls with the square of the step."""
    world = TwoPointBandit()
    theta = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    step = torch.tensor([0.6, -0.8], dtype=torch.float64)
    objective = PassAtK(k)
    p, gradient = world.objective_gradient(theta, objective)
    gaps = []
    for size in (0.02, 0.01):
        after = world.success(theta + size * step)
        from_counts = float((world.masses * objective.weight(p) * (after - p)).sum())
        gaps.append(abs(from_counts - float(gradient @ (size * step))))
    assert 0 < gaps[1] < 0.3 * gaps[0]


@pytest.mark.parametrize("k", [1, 2, 7])
def test_curvature_is_taylors_remainder(k: int) -> None:
    """J_k(p') - J_k(p) - w_k(p) (p' - p) lies between minus and plus the bounds of Lagrange."""
    grid = np.linspace(0, 1, 41)
    p, after = (x.ravel() for x in np.meshgrid(grid, grid))
    rest = (1 - p) ** k - (1 - after) ** k - k * (1 - p) ** (k - 1) * (after - p)
    assert (rest <= 1e-15).all()
    low = np.minimum(p, after)
    bound = 0.5 * k * (k - 1) * (1 - low) ** max(k - 2, 0) * (after - p) ** 2
    assert (-rest <= bound + 1e-15).all()
