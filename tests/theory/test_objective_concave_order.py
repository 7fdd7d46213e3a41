"""If w_f / w_g falls along p and the hard prompts are against, f conflicts wherever g does."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from passgrad.interference import conflict
from passgrad.objective_map import more_concave, objective_map
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.base import AnalyticWorld

pytestmark = pytest.mark.statement("thm-concave-order", "cor-concave-order-pass-at-k")


class Line(AnalyticWorld):
    """Success rates, their slopes in one parameter, and masses, as they are given."""

    num_parameters = 1

    def __init__(self, p, slopes, masses):
        self.p, self.slopes, masses = (torch.as_tensor(v).double() for v in (p, slopes, masses))
        self.masses = masses / masses.sum()
        self.groups = ("all",) * len(self.p)

    def success_and_jacobian(self, theta=None):
        return self.p, self.slopes[:, None]

    def own_parameters(self):
        return torch.zeros(1, dtype=torch.float64)


def numbers(low, high, size):
    return st.lists(st.floats(low, high), min_size=size, max_size=size)


SIZE = 5
prompts = st.tuples(
    numbers(0.001, 0.999, SIZE), numbers(-1, 1, SIZE), numbers(0.05, 1, SIZE), st.integers(0, SIZE)
)


def crossing_once(drawn):
    """p in order, a with a <= 0 on the ``place`` hardest prompts and a >= 0 on the others, D."""
    p, a, masses, place = drawn
    a = torch.tensor(a, dtype=torch.float64).abs()
    a[:place] *= -1
    masses = torch.tensor(masses, dtype=torch.float64)
    p = torch.tensor(sorted(p), dtype=torch.float64)
    assume((p.diff() > 1e-6).all())
    return p, a, masses / masses.sum(), place


@settings(deadline=None, max_examples=300)
@given(
    drawn=prompts,
    ratios=numbers(0.01, 100, SIZE),
    weights=numbers(0.01, 100, SIZE),
    share=st.floats(0, 1),
)
def test_the_bound_holds_at_every_crossing_where_the_ratio_falls_through_it(
    drawn, ratios, weights, share
):
    """t is any number between the last prompt against and the first one for, and r falls at t."""
    _, a, masses, place = crossing_once(drawn)
    assume(0 < place < SIZE)
    ratio = torch.tensor(sorted(ratios, reverse=True), dtype=torch.float64)
    w_g = torch.tensor(weights, dtype=torch.float64)
    at_crossing = float(ratio[place] + share * (ratio[place - 1] - ratio[place]))
    of_f, of_g = float(masses @ (ratio * w_g * a)), float(masses @ (w_g * a))
    assert of_f <= at_crossing * of_g + 1e-9


def test_a_ratio_that_falls_on_the_prompts_alone_does_not_bound_at_a_crossing_between_them():
    """The premise at t is needed: w_f dips to 0.1 at t = 0.5, where no prompt lies."""
    world = Line([0.2, 0.8], [-0.1, 1.0], [0.5, 0.5])
    agreement = float(world.masses @ world.slopes) * world.slopes
    w_f, w_g = torch.tensor([2.0, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    of_f, of_g = float(world.masses @ (w_f * agreement)), float(world.masses @ (w_g * agreement))
    assert (w_f / w_g).diff() < 0  # more concave on the success rates
    assert of_f > 0.1 / 1.0 * of_g  # and the bound with rho = w_f(t) / w_g(t) is false
    for rho in (2.0, 1.5, 1.0):  # between the two prompts' ratios it is true
        assert of_f <= rho * of_g + 1e-12 or rho < 1.0


@settings(deadline=None, max_examples=300)
@given(drawn=prompts, ratios=numbers(0.01, 100, SIZE), weights=numbers(0.01, 100, SIZE))
def test_the_bound_holds_for_any_falling_ratio_of_weights(drawn, ratios, weights):
    _, a, masses, place = crossing_once(drawn)
    ratio = torch.tensor(sorted(ratios, reverse=True), dtype=torch.float64)
    w_g = torch.tensor(weights, dtype=torch.float64)
    of_f, of_g = float(masses @ (ratio * w_g * a)), float(masses @ (w_g * a))
    # Any t between the last prompt against and the first one for serves; r(t) is between theirs.
    for at in {max(place - 1, 0), min(place, SIZE - 1)}:
        assert of_f <= float(ratio[at]) * of_g + 1e-9
    if of_g < -1e-6:
        assert of_f < 0


ORDERED = [
    (PassAtK(3), PassAtK(1)),
    (PassAtK(9), PassAtK(2.5)),
    (Log(), PassAtK(1)),
    (Log(), ArcsinSqrt()),
    (Log(order=9), Log(order=4)),
    (PassAtK(5), Log(order=9)),
    (LogPassAtK(4), PassAtK(4)),
    (LogPassAtK(4), ArcsinSqrt(4)),
    (ArcsinSqrt(8), ArcsinSqrt(1)),
]


@pytest.mark.parametrize(("f", "g"), ORDERED, ids=lambda objective: objective.label)
@settings(deadline=None, max_examples=60)
@given(drawn=prompts)
def test_a_conflict_of_the_less_concave_is_one_of_the_more_concave(f, g, drawn):
    p, a, masses, _ = crossing_once(drawn)
    assert more_concave(f, g, p)
    # The slopes are the agreements: grad J_1 is then E[a], and its sign is the premise E[a] > 0.
    assume(masses @ a > 1e-6)
    found = objective_map(Line(p, a, masses), None, [PassAtK(1), g, f]).inner_products[0]
    if found[1] < -1e-9:
        assert found[2] < 0


@settings(deadline=None, max_examples=200)
@given(p=numbers(0.01, 0.99, 2), w_f=numbers(0.1, 10, 2), w_g=numbers(0.1, 10, 2))
def test_a_rising_ratio_has_two_prompts_on_which_g_alone_conflicts(p, w_f, w_g):
    """The converse: the order of the ratio is needed, not only sufficient."""
    assume(abs(p[0] - p[1]) > 1e-3)
    assume(w_f[0] / w_g[0] < 0.99 * w_f[1] / w_g[1])  # rises from the first prompt to the second
    assume(w_g[1] < 0.99 * w_g[0])  # else g does not conflict with pass@1 on any such pair
    share = (w_g[1] / w_g[0] + min(1, w_f[1] / w_f[0])) / 2
    world = Line(sorted(p), [-share, 1.0], [0.5, 0.5])
    of_one = float(world.masses @ world.slopes)
    agreement = of_one * world.slopes
    assert of_one > 0
    assert agreement[0] < 0 < agreement[1]
    of_f, of_g = (
        float(world.masses @ (torch.tensor(w, dtype=torch.float64) * agreement)) for w in (w_f, w_g)
    )
    assert of_g < 0 < of_f


@settings(deadline=None, max_examples=100)
@given(drawn=prompts, k=st.floats(1, 60), more=st.floats(0, 60))
def test_a_single_crossing_makes_conflict_in_k_last(drawn, k, more):
    p, a, masses, place = crossing_once(drawn)
    curve = conflict(Line(p, a, masses), None, [1])
    sign = 1 if masses @ a > 0 else -1
    before, after = (sign * curve.inner_product_at(j) for j in (k, k + more))
    if before < -1e-9:
        assert after < 0 or after == pytest.approx(0, abs=1e-12)
    # and with the bound of the theorem, at the first prompt that is not against
    ratio = (k + more) / k * (1 - float(p[min(place, SIZE - 1)])) ** more
    assert after <= ratio * before + 1e-9


@pytest.mark.parametrize(("f", "g"), ORDERED, ids=lambda objective: objective.label)
@settings(deadline=None, max_examples=30)
@given(drawn=prompts, apart=numbers(-3, 3, SIZE))
def test_it_is_enough_that_the_means_at_equal_success_rates_cross_once(f, g, drawn, apart):
    """Each prompt is split into two that disagree with each other as much as one likes."""
    p, a, masses, _ = crossing_once(drawn)
    assume(masses @ a > 1e-6)
    apart = torch.tensor(apart, dtype=torch.float64)
    world = Line(p.repeat(2), torch.cat([a + apart, a - apart]), masses.repeat(2))
    found = objective_map(world, None, [PassAtK(1), g, f]).inner_products[0]
    if found[1] < -1e-9:
        assert found[2] < 0


def test_without_a_single_crossing_a_larger_k_can_end_the_conflict():
    world = Line([0.02, 0.2, 0.9], [0.5, -1.0, 1.2], [0.1, 0.3, 0.6])
    found = objective_map(world, None, [PassAtK(k) for k in (1, 6, 60)]).inner_products[0]
    assert found[0] > 0
    assert found[1] < 0 < found[2]
    # The population of the toy is such a case.
    population = GaussianBandit()
    found = objective_map(population, (-1.0, -0.5), [PassAtK(k) for k in (1, 4, 32)])
    assert found.conflicts[0].tolist() == [False, True, False]


def test_on_two_prompts_the_ratio_of_the_two_weights_decides_for_every_objective():
    world, theta = TwoPointBandit(), (-2.0, -2.0)
    curve = conflict(world, theta)
    (a_easy, a_hard), success = curve.agreement.tolist(), curve.success
    objectives = [PassAtK(1), ArcsinSqrt(), PassAtK(1.2), PassAtK(1.3), Log(order=2), Log()]
    row = objective_map(world, theta, objectives).inner_products[0]
    found = []
    for objective, product in zip(objectives, row, strict=True):
        easy, hard = objective.weight(success).tolist()
        assert bool(product < 0) is (hard / easy > a_easy / -a_hard)
        found.append(bool(product < 0))
    assert found == [False, False, False, True, True, True]
