import math

import pytest
import torch
from scipy.stats import norm

from passgrad.errors import UserError
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.optimum import best_pass_at_1, hedged_answer, optimal_theta


def test_the_answer_has_the_shape_of_the_posterior():
    eta = torch.tensor([[0.1, 0.5], [0.9, 1.0]], dtype=torch.float64)
    assert hedged_answer(eta, 3).shape == (2, 2)
    assert hedged_answer(eta, 3)[1, 1] == 1
    torch.testing.assert_close(hedged_answer(eta, 2), eta)


def test_pass_at_1_takes_the_better_bet():
    eta = torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0])
    assert hedged_answer(eta, 1).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(("separation", "fraction"), [(0.2, 0.4), (2.0, 0.7), (-1.0, 0.2)])
def test_the_bayes_rate_is_the_mean_of_the_better_bets(separation, fraction):
    """By quadrature over the feature, from the two densities alone."""
    s = torch.linspace(-12, 12, 200001, dtype=torch.float64).numpy()
    easy = (1 - fraction) * norm.pdf(s, -separation / 2)
    hard = fraction * norm.pdf(s, separation / 2)
    expected = float(torch.trapezoid(torch.tensor(easy).maximum(torch.tensor(hard)), dx=24 / 2e5))
    assert best_pass_at_1(separation, fraction) == pytest.approx(expected, abs=1e-8)


def test_without_separation_the_better_bet_is_the_larger_kind():
    assert best_pass_at_1(0.0, 0.3) == 0.7
    assert best_pass_at_1(0.0, 0.8) == 0.8


def test_it_is_a_bound_that_steep_policies_approach():
    world = GaussianBandit(1.0, 0.4, num_nodes=4097)
    best = best_pass_at_1(1.0, 0.4)
    steep = optimal_theta(1.01, 1.0, 0.4)
    reached = float(world.masses @ world.success(steep))
    assert best - 1e-3 < reached < best


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hedged_answer(1.2, 3), "posterior must lie between 0 and 1"),
        (lambda: hedged_answer(math.nan, 3), "posterior must lie between 0 and 1"),
        (lambda: hedged_answer(0.2, 0.5), "at least 1"),
        (lambda: optimal_theta(1, 0.2, 0.4), "no finite optimum"),
        (lambda: optimal_theta(2, 0.2, 1.0), "strictly between 0 and 1"),
        (lambda: best_pass_at_1(math.inf, 0.4), "separation must be a finite number"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
