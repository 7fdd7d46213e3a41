import math

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.ascent.directions import (
    Adam,
    AdamMetric,
    Euclidean,
    FisherMetric,
    Gradient,
    NaturalGradient,
    Scheduled,
    as_direction,
)
from passgrad.errors import UserError
from passgrad.objectives import Log, PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.base import AnalyticWorld
from passgrad.worlds.tabular import TabularSoftmax

THETA = (-2.0, -1.0)


def start(world):
    return world.parameters(THETA[: world.num_parameters])


class Few(AnalyticWorld):
    """Sigmoids of a linear function on more parameters than prompts."""

    def __init__(self, seed=0, num_prompts=4, num_parameters=6):
        generator = torch.Generator().manual_seed(seed)
        shape = (num_prompts, num_parameters)
        self.features = torch.randn(*shape, dtype=torch.float64, generator=generator)
        self.masses = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        self.groups = ("all",) * num_prompts
        self.num_parameters = num_parameters

    def success_and_jacobian(self, theta=None):
        p = torch.sigmoid(self.features @ self.parameters(theta))
        return p, (p * (1 - p))[:, None] * self.features


def fisher(world, theta):
    """E[grad p grad p^T / (p (1 - p))] as a d x d matrix."""
    p, jacobian = world.success_and_jacobian(theta)
    return jacobian.T @ torch.diag(world.masses / (p * (1 - p))) @ jacobian


def test_the_gradient_is_that_of_the_objective():
    world, objective = TwoPointBandit(), PassAtK(3)
    p, vector = Gradient(objective)(world, start(world))
    torch.testing.assert_close(p, world.success(THETA))
    torch.testing.assert_close(vector, world.objective_gradient(THETA, objective)[1])
    assert Gradient(objective).label == "pass@3"
    plain, wrapped = ascend(world, THETA, objective), ascend(world, THETA, as_direction(objective))
    assert torch.equal(plain.theta, wrapped.theta)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.7, 0.0)])
def test_adam_is_that_of_torch(betas):
    world, objective, steps = TwoPointBandit(), PassAtK(4), 12
    direction = Adam(objective, betas, eps=1e-3)
    trace = ascend(world, THETA, direction, step_size=0.1, steps=steps, record_theta=True)
    theta = torch.tensor(THETA, dtype=torch.float64)
    optimiser = torch.optim.Adam([theta], lr=0.1, betas=betas, eps=1e-3, maximize=True)
    for step in range(steps):
        torch.testing.assert_close(trace.thetas[step], theta, atol=1e-12, rtol=1e-12)
        theta.grad = world.objective_gradient(theta, objective)[1]
        optimiser.step()
    assert direction.label == "Adam, pass@4"


def test_adam_goes_on_unless_it_is_reset():
    world, direction = TwoPointBandit(), Adam(PassAtK(4))
    first = ascend(world, THETA, direction, steps=3).theta
    assert not torch.equal(ascend(world, THETA, direction, steps=3).theta, first)
    direction.reset()
    assert torch.equal(ascend(world, THETA, direction, steps=3).theta, first)


def test_adam_resets_what_is_within():
    inner = Scheduled(lambda step: PassAtK(1 + step))
    direction = Adam(inner)
    direction(TwoPointBandit(), start(TwoPointBandit()))
    assert inner.count == 1
    direction.reset()
    assert inner.count == 0


def test_the_metric_of_adam_is_adam_without_momentum():
    world, objective, metric = TwoPointBandit(), PassAtK(4), AdamMetric(0.9, 1e-6)
    direction, theta = Adam(objective, (0.0, 0.9), 1e-6), start(TwoPointBandit())
    for _ in range(4):
        p, step = direction(world, theta)
        weights = (world.masses * objective.weight(p))[None]
        gram, combine = metric(world, theta, p, weights)
        torch.testing.assert_close(combine(torch.ones(1, dtype=torch.float64)), step)
        torch.testing.assert_close(gram[0, 0], step @ world.vjp(theta, weights)[1][0])
        theta = theta + 0.3 * step
    metric.reset()
    assert (metric.count, metric.second) == (0, None)


def two_weights(world, theta):
    p = world.success(theta)
    return p, torch.stack([world.masses * PassAtK(k).weight(p) for k in (1, 8)])


def test_the_metric_of_adam_is_of_the_mean_square_of_several_gradients():
    world = Few()
    theta = torch.full((6,), -0.3, dtype=torch.float64)
    p, weights = two_weights(world, theta)
    gram, _ = AdamMetric(0.9, 1e-6)(world, theta, p, weights)
    rows = world.vjp(theta, weights)[1]
    scale = rows.square().mean(dim=0).sqrt() + 1e-6
    torch.testing.assert_close(gram, rows @ (rows / scale).T)


@pytest.mark.parametrize("metric", [Euclidean(), AdamMetric(), FisherMetric(0.05)])
def test_the_gram_matrix_gives_the_first_order_changes(metric):
    world = Few()
    theta = torch.full((6,), -0.3, dtype=torch.float64)
    p, weights = two_weights(world, theta)
    gram, combine = metric(world, theta, p, weights)
    lambdas = torch.tensor([0.7, -0.2], dtype=torch.float64)
    gradients = world.vjp(theta, weights)[1]
    torch.testing.assert_close(gradients @ combine(lambdas), gram @ lambdas)
    assert torch.equal(gram, gram.T)
    assert (torch.linalg.eigvalsh(gram) > 0).all()


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("world", [Few(), TwoPointBandit(), GaussianBandit(num_nodes=9)])
def test_the_natural_gradient_solves_the_system_of_the_fisher_matrix(world, damping):
    theta = torch.linspace(-1, 0.5, world.num_parameters, dtype=torch.float64)
    objective = PassAtK(5)
    p, vector = NaturalGradient(objective, damping)(world, theta)
    matrix = fisher(world, theta) + damping * torch.eye(world.num_parameters, dtype=torch.float64)
    gradient = world.objective_gradient(theta, objective)[1]
    torch.testing.assert_close(matrix @ vector, gradient, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(p, world.success(theta))


def test_relative_damping_is_in_units_of_the_mean_eigenvalue():
    world, theta = Few(), torch.zeros(6, dtype=torch.float64)
    unit = float(fisher(world, theta).trace()) / 4
    relative = NaturalGradient(PassAtK(5), 0.3, relative=True)(world, theta)[1]
    absolute = NaturalGradient(PassAtK(5), 0.3 * unit)(world, theta)[1]
    torch.testing.assert_close(relative, absolute)


def test_large_damping_is_the_gradient():
    world, theta = TwoPointBandit(), start(TwoPointBandit())
    gradient = world.objective_gradient(theta, PassAtK(5))[1]
    vector = NaturalGradient(PassAtK(5), 1e9)(world, theta)[1]
    torch.testing.assert_close(1e9 * vector, gradient, atol=0, rtol=1e-7)


@pytest.mark.parametrize("size", [40.0, 400.0, 2000.0])
@pytest.mark.parametrize("objective", [PassAtK(1), PassAtK(5), Log()])
def test_prompts_that_are_solved_or_lost_take_no_part(size, objective):
    """Three prompts with logits of their own; those of the first two go to infinity."""
    world = TabularSoftmax(3, masses=[0.2, 0.3, 0.5])
    theta = torch.tensor([size, -size, -size, size, 0.3, 0.0], dtype=torch.float64)
    p, vector = NaturalGradient(objective, 0.1)(world, theta)
    assert torch.isfinite(vector).all()
    variance = float(p[2] * (1 - p[2]))
    # On its own, with F of rank one: grad p = variance * (1, -1), ||grad p||^2 = 2 variance^2.
    step = 0.5 * float(objective.weight(p)[2]) * variance / (0.5 * 2 * variance + 0.1)
    expected = torch.tensor([step, -step], dtype=torch.float64)
    torch.testing.assert_close(vector[4:], expected)
    if size >= 400:
        # log p keeps its slope where p is no longer a number; elsewhere nothing is left to gain.
        lost = isinstance(objective, Log) and p[1] > 0
        assert lost or vector[:4].abs().max() < 1e-12


def test_all_prompts_solved_is_no_step():
    world = TabularSoftmax(2)
    theta = torch.tensor([2000.0, -2000.0] * 2, dtype=torch.float64)
    for relative in (False, True):
        vector = NaturalGradient(PassAtK(3), 0.1, relative)(world, theta)[1]
        assert torch.equal(vector, torch.zeros(4, dtype=torch.float64))


def test_a_prompt_without_mass_takes_no_part():
    theta = torch.tensor([0.3, 0.0, -0.4, 0.0, 5.0, 1.0], dtype=torch.float64)
    objective = NaturalGradient(PassAtK(3), 0.1)
    with_it = objective(TabularSoftmax(3, masses=[0.4, 0.6, 0.0]), theta)[1]
    without = objective(TabularSoftmax(2, masses=[0.4, 0.6]), theta[:4])[1]
    torch.testing.assert_close(with_it[:4], without)
    assert torch.equal(with_it[4:], torch.zeros(2, dtype=torch.float64))


def test_a_schedule_takes_its_objectives_in_turn():
    world = TwoPointBandit()
    direction = Scheduled(lambda step: PassAtK([8, 2, 1][step]), "falling")
    trace = ascend(world, THETA, direction, step_size=0.5, steps=3, record_theta=True)
    theta = torch.tensor(THETA, dtype=torch.float64)
    for step, k in enumerate((8, 2, 1)):
        torch.testing.assert_close(trace.thetas[step], theta)
        theta = theta + 0.5 * world.objective_gradient(theta, PassAtK(k))[1]
    torch.testing.assert_close(trace.theta, theta)
    assert direction.label == "falling"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(PassAtK(1), (1.0, 0.9)), r"rate of Adam must lie in \[0, 1\), got 1.0"),
        (lambda: Adam(PassAtK(1), (0.9, -0.1)), r"got -0.1"),
        (lambda: Adam(PassAtK(1), eps=0), "eps must be a positive finite number, got 0"),
        (lambda: AdamMetric(math.nan), "rate of Adam"),
        (lambda: FisherMetric(0), "damping must be a positive finite number, got 0"),
        (lambda: NaturalGradient(PassAtK(1), -1.0), "damping must be .* got -1.0"),
        (lambda: NaturalGradient(PassAtK(1), math.inf), "damping must be .* got inf"),
    ],
)
def test_what_goes_wrong_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
