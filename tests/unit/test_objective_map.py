import math

import pytest
import torch

from passgrad import objective_map as module
from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objective_map import (
    agreement,
    cumulated_agreement,
    curvature,
    effective_share,
    more_concave,
    objective_map,
)
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, Mixture, PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.base import World
from passgrad.worlds.tabular import TabularSoftmax

THETA = (-2.0, -2.0)
OBJECTIVES = [PassAtK(1), PassAtK(10), ArcsinSqrt(), ArcsinSqrt(4), Log(), Log(order=4)]
RATES = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)


@pytest.fixture(scope="module")
def found():
    return objective_map(GaussianBandit(), THETA, OBJECTIVES)


def test_every_cell_is_the_product_of_two_gradients(found):
    world = GaussianBandit()
    gradients = [world.objective_gradient(THETA, objective)[1] for objective in OBJECTIVES]
    for i, u in enumerate(gradients):
        assert float(found.norms[i]) == pytest.approx(float(u.norm()), rel=1e-12)
        for j, v in enumerate(gradients):
            assert float(found.inner_products[i, j]) == pytest.approx(float(u @ v), abs=1e-12)
            cosine = float(u @ v / (u.norm() * v.norm()))
            assert float(found.cosines[i, j]) == pytest.approx(cosine, abs=1e-9)
    assert torch.equal(found.inner_products, found.inner_products.T)
    assert (found.conflicts == (found.inner_products < 0)).all()


def test_it_holds_what_belongs_to_it(found):
    world = GaussianBandit()
    assert found.labels == [objective.label for objective in OBJECTIVES]
    assert found.weights.shape == (len(OBJECTIVES), world.num_prompts)
    assert torch.equal(found.success, world.success(THETA))
    assert torch.equal(found.masses, world.masses)
    frame = found.to_frame()
    assert list(frame.columns) == list(frame.index) == found.labels
    assert frame.loc["pass@1", "log"] == float(found.cosines[0, 4])


def test_its_pass_at_k_cells_are_those_of_the_conflict():
    ks = [1, 2, 7]
    found = objective_map(TwoPointBandit(), THETA, [PassAtK(k) for k in ks])
    curve = conflict(TwoPointBandit(), THETA, ks)
    torch.testing.assert_close(found.inner_products[0], curve.inner_product, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.cosines[0], curve.cosine, rtol=1e-12, atol=0)


class Counting(GaussianBandit):
    """Counts the passes, and goes without the shortcuts of a small world."""

    def __init__(self):
        super().__init__(num_nodes=3)
        self.passes = []

    def vjp(self, theta, weights):
        self.passes.append(("vjp", len(weights)))
        return super().vjp(theta, weights)

    def kernel(self, theta=None):
        self.passes.append(("kernel", self.num_prompts))
        return super().kernel(theta)

    def gradient_products(self, theta, reference, weights):
        return World.gradient_products(self, theta, reference, weights)


@pytest.mark.parametrize("size", [1, 3, 5, 6])
def test_a_large_world_gives_the_same_map_with_fewer_gradients_at_a_time(size, monkeypatch):
    objectives = OBJECTIVES[:size]
    world = Counting()  # of six prompts
    expected = objective_map(world, THETA, objectives)
    assert world.passes == [("vjp", size)]
    world.passes.clear()
    monkeypatch.setattr(module, "_LARGEST_STACK", 2 * size - 1)
    close = {"rtol": 1e-12, "atol": 1e-14}
    large = objective_map(world, THETA, objectives)
    torch.testing.assert_close(large.inner_products, expected.inner_products, **close)
    pairs = size * (size + 1) // 2
    assert world.passes == ([("kernel", 6)] if pairs >= 12 else [("vjp", 1)] * pairs)


def test_float32_gradients_are_multiplied_in_float64():
    class Single(GaussianBandit):
        dtype = torch.float32

        def vjp(self, theta, weights):
            p, rows = super().vjp(theta, weights)
            return p, rows.float()

        def success_and_jacobian(self, theta=None):
            return GaussianBandit().success_and_jacobian(THETA)

        def parameters(self, theta=None):
            return torch.tensor(THETA)

    found = objective_map(Single(), THETA, OBJECTIVES)
    assert found.inner_products.dtype == torch.float64
    exact = objective_map(GaussianBandit(), THETA, OBJECTIVES).inner_products
    torch.testing.assert_close(found.inner_products, exact, rtol=1e-4, atol=1e-8)


def test_a_policy_that_shares_nothing_has_no_conflict_on_its_map():
    logits = torch.linspace(-3, 3, 16, dtype=torch.float64)
    found = objective_map(TabularSoftmax(8), logits, OBJECTIVES)
    assert not found.conflicts.any()


def test_the_cosine_with_a_zero_gradient_is_not_a_number():
    solved = TabularSoftmax(1)
    found = objective_map(solved, [800.0, 0.0], [PassAtK(1), PassAtK(2)])
    assert found.cosines.isnan().all()


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(UserError, match="objectives is empty"):
        objective_map(TwoPointBandit(), THETA, [])
    hopeless = TabularSoftmax(2)
    logits = [0.0, 0.0, -800.0, 0.0]
    message = "the weight of log is inf at the success rate 0 of prompt 1"
    with pytest.raises(UserError, match=message) as caught:
        objective_map(hopeless, logits, [PassAtK(1), Log()])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        agreement(hopeless, logits, Log())
    assert objective_map(hopeless, logits, [Log(order=3)]).weights.tolist() == [[1.75, 3.0]]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.label)
def test_the_agreement_is_the_change_of_each_success_rate(objective):
    world = GaussianBandit(num_nodes=5)
    found = agreement(world, THETA, objective)
    _, gradient = world.objective_gradient(THETA, objective)
    step = 1e-6 / float(gradient.norm())
    theta = world.parameters(THETA)
    ahead, behind = (world.success(theta + s * gradient) for s in (step, -step))
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    weighted = world.masses * objective.weight(world.success(THETA))
    assert float(weighted @ found) == pytest.approx(float(gradient @ gradient), rel=1e-12)


def test_the_cumulated_agreement_adds_up_from_the_hardest_prompt():
    success = torch.tensor([0.5, 0.1, 0.5, 0.9], dtype=torch.float64)
    masses = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    values = torch.tensor([1.0, -2.0, 3.0, 5.0], dtype=torch.float64)
    levels, cumulated = cumulated_agreement(success, masses, values)
    assert levels.tolist() == [0.1, 0.5, 0.9]
    assert cumulated.tolist() == pytest.approx([-0.4, 0.6, 2.6])


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (PassAtK(1), lambda p: 0 * p),
        (PassAtK(8), lambda p: 7 / (1 - p)),
        (Log(), lambda p: 1 / p),
        (ArcsinSqrt(), lambda p: (1 - 2 * p) / (2 * p * (1 - p))),
        (Mixture([PassAtK(1), PassAtK(2)], [1, 0.5]), lambda p: 1 / (2 - p)),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_the_curvature_is_the_closed_form(objective, expected):
    torch.testing.assert_close(curvature(objective, RATES), expected(RATES), rtol=1e-9, atol=1e-9)
    assert not RATES.requires_grad


def test_a_weight_that_does_not_depend_on_p_has_no_curvature():
    class Linear:
        label = "linear"

        def value(self, p):
            return 2 * p

        def weight(self, p):
            return torch.full_like(p, 2)

    assert (curvature(Linear(), RATES) == 0).all()


def test_more_concave_is_a_partial_order():
    assert more_concave(PassAtK(5), PassAtK(2), RATES)
    assert not more_concave(PassAtK(2), PassAtK(5), RATES)
    assert more_concave(Log(), Log(), RATES)
    # log p bends more at small p, pass@k at large p: neither is above the other.
    assert not more_concave(Log(), PassAtK(5), RATES)
    assert not more_concave(PassAtK(5), Log(), RATES)
    # On success rates that are all below 1 / k they are ordered.
    assert more_concave(Log(), PassAtK(5), RATES[RATES < 0.2])
    # GRPO bends the other way above one half.
    assert not more_concave(ArcsinSqrt(), PassAtK(1), RATES)
    assert more_concave(ArcsinSqrt(), PassAtK(1), RATES[RATES < 0.5])
    assert more_concave(PassAtK(1), ArcsinSqrt(), RATES[RATES > 0.5].flip(0))
    with pytest.raises(UserError, match="infinite|inf at"):
        more_concave(Log(), PassAtK(1), torch.tensor([0.0, 0.5]))


def test_more_concave_agrees_with_the_curvature():
    every = [*OBJECTIVES, LogPassAtK(4), PassAtK(3)]
    for f in every:
        for g in every:
            above = bool((curvature(f, RATES) >= curvature(g, RATES) - 1e-9).all())
            assert more_concave(f, g, RATES) is above, (f, g)


def test_the_effective_share():
    masses = torch.full((4,), 0.25, dtype=torch.float64)
    weights = [[3, 3, 3, 3], [0, 0, 5, 0], [1, 1, 0, 0], [1e-300, 0, 0, 0]]
    weights = torch.tensor(weights, dtype=torch.float64)
    assert effective_share(masses, weights).tolist() == pytest.approx([1, 0.25, 0.5, 0.25])
    law = torch.softmax(torch.tensor([0.3, -1.0, 2.0, 0.1]).double(), dim=0)
    share = float(effective_share(masses, law[None])[0])
    assert 4 * share == pytest.approx(1 / float(law.square().sum()), rel=1e-12)
    assert math.isnan(float(effective_share(masses, torch.zeros(1, 4).double())[0]))


def test_the_effective_share_of_the_map(found):
    assert float(found.effective_shares[0]) == pytest.approx(1)
    assert (found.effective_shares[1:] < 1).all()
