"""One curve decides for all concave objectives at once: C(t) = E[a 1{p <= t}]."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from passgrad.interference import conflict
from passgrad.objective_map import cumulated_agreement
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, PassAtK

pytestmark = pytest.mark.statement("thm-cumulated-agreement")

SIZE = 6
CONCAVE = [PassAtK(2), PassAtK(11), Log(), Log(order=5), LogPassAtK(3), ArcsinSqrt(2)]


def numbers(low, high, unique=False):
    return st.lists(st.floats(low, high), min_size=SIZE, max_size=SIZE, unique=unique)


def tensors(p, a, masses):
    p, a, masses = (torch.tensor(v, dtype=torch.float64) for v in (p, a, masses))
    masses = masses / masses.sum()
    assume(masses @ a > 1e-6)  # it is ||grad J_1||^2
    return p, a, masses


given_prompts = given(p=numbers(0.01, 0.99, unique=True), a=numbers(-1, 1), masses=numbers(0.05, 1))


@settings(deadline=None, max_examples=200)
@given_prompts
def test_the_inner_product_is_a_sum_over_the_curve(p, a, masses):
    """Abel: E[w a] = sum_i (w(p_i) - w(p_{i+1})) C(p_i) + w(p_M) C(p_M)."""
    p, a, masses = tensors(p, a, masses)
    levels, curve = cumulated_agreement(p, masses, a)
    for objective in CONCAVE:
        weight = objective.weight(levels)
        by_parts = ((weight[:-1] - weight[1:]) * curve[:-1]).sum() + weight[-1] * curve[-1]
        exact = masses @ (objective.weight(p) * a)
        torch.testing.assert_close(by_parts, exact, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=300)
@given_prompts
def test_a_curve_that_is_nowhere_negative_excludes_every_concave_conflict(p, a, masses):
    p, a, masses = tensors(p, a, masses)
    # Turned into such a curve: each dip is lifted by what it lacks, at the prompt where it occurs.
    order = p.argsort()
    assume((p[order].diff() > 0).all())
    a = a.clone()
    total = 0.0
    for x in order.tolist():
        a[x] = max(float(a[x]), -total / float(masses[x]))
        total += float(masses[x] * a[x])
    _, lifted = cumulated_agreement(p, masses, a)
    assert (lifted >= -1e-12).all()
    for objective in CONCAVE:
        assert masses @ (objective.weight(p) * a) >= -1e-9
    # and any falling weight at all, one step at a time
    for level in p:
        assert masses @ ((p <= level).double() * a) >= -1e-12


@settings(deadline=None, max_examples=300)
@given_prompts
def test_a_dip_of_the_curve_is_a_conflict_of_a_concave_objective(p, a, masses):
    # The hardest prompt is turned against pass@1, and the easiest makes up for it.
    order = sorted(range(SIZE), key=p.__getitem__)
    a[order[0]] = -abs(a[order[0]]) - 0.01
    rest = sum(masses[i] * a[i] for i in order[:-1])
    a[order[-1]] = (0.1 - rest) / masses[order[-1]]
    p, a, masses = tensors(p, a, masses)
    levels, curve = cumulated_agreement(p, masses, a)
    worst = int(curve.argmin())
    assert curve[worst] < 0
    # min(p, t) with its corner rounded off, and a little of p so that it still rises.
    t, small = float(levels[worst]), 1e-9
    after = float(levels[worst + 1])

    def weight(rate):
        return small + (1 - (rate - t) / (after - t)).clamp(0, 1)

    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert (weight(grid).diff() <= 0).all()
    assert (weight(grid) > 0).all()
    assert masses @ (weight(p) * a) < 0


def test_a_dip_need_not_be_a_conflict_of_any_pass_at_k():
    """Pass@k has weights of one shape; this dip is in none of them, nor in the logarithm's."""
    p = torch.tensor([0.1, 0.5, 0.55], dtype=torch.float64)
    terms = torch.tensor([0.5, -1.0, 0.6], dtype=torch.float64)
    _, curve = cumulated_agreement(p, torch.ones(3, dtype=torch.float64), terms)
    assert curve[1] < 0 < curve[2]
    for k in torch.linspace(1, 200, 400).tolist():
        assert PassAtK(k).weight(p) @ terms > 0
    assert Log().weight(p) @ terms > 0


def test_grpo_can_conflict_under_a_curve_without_a_dip():
    """Its f is not concave: above one half the weight rises with the success rate."""
    p = torch.tensor([0.5, 0.999], dtype=torch.float64)
    terms = torch.tensor([1.0, -0.5], dtype=torch.float64)
    _, curve = cumulated_agreement(p, torch.ones(2, dtype=torch.float64), terms)
    assert (curve > 0).all()
    assert ArcsinSqrt().weight(p) @ terms < 0
    assert ArcsinSqrt(2).weight(p) @ terms > 0


def test_the_last_value_is_the_squared_norm_of_the_pass_at_1_gradient(policy):
    found = conflict(policy)
    _, curve = cumulated_agreement(found.success, found.masses, found.agreement)
    assert float(curve[-1]) == pytest.approx(found.norm_at_1**2, abs=1e-12)
