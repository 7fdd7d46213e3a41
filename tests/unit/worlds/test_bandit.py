import math

import pytest
import torch
from scipy.integrate import quad

from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import Bandit, GaussianBandit, TwoPointBandit

THETA = torch.tensor([-1.3, 0.7], dtype=torch.float64)
WORLDS = {
    "two points": TwoPointBandit(0.5, 0.3),
    "population": GaussianBandit(0.5, 0.3, num_nodes=33),
    "sample": GaussianBandit(0.5, 0.3).sample(5, 4, seed=1),
}


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


def policy(world, theta):
    """p written anew: a softmax over the logits (0, theta . psi) and the action that is right."""
    logits = torch.stack([torch.zeros(world.num_prompts).double(), world.features @ theta], dim=1)
    right = torch.tensor([int(group == "hard") for group in world.groups])
    return logits.softmax(dim=1)[torch.arange(len(right)), right]


def test_success_and_jacobian_are_those_of_the_policy(world):
    p, jacobian = world.success_and_jacobian(THETA)
    torch.testing.assert_close(p, policy(world, THETA), rtol=1e-13, atol=0)
    expected = torch.autograd.functional.jacobian(lambda theta: policy(world, theta), THETA)
    torch.testing.assert_close(jacobian, expected, rtol=1e-12, atol=1e-300)


def test_the_signed_features_point_to_the_right_answer(world):
    for group, psi, u in zip(world.groups, world.features, world.signed_features, strict=True):
        assert u.tolist() == (psi if group == "hard" else -psi).tolist()
    torch.testing.assert_close(
        torch.sigmoid(world.signed_features @ THETA), policy(world, THETA), rtol=1e-13, atol=0
    )


def test_the_jacobian_is_that_of_finite_differences(world):
    step = 1e-5
    for i, direction in enumerate(torch.eye(2, dtype=torch.float64)):
        forth, back = (
            world.success(THETA + step * direction),
            world.success(THETA - step * direction),
        )
        torch.testing.assert_close(
            world.jvp(THETA, direction[None])[0], (forth - back) / (2 * step), rtol=0, atol=1e-9
        )
        assert torch.equal(
            world.success_and_jacobian(THETA)[1][:, i], world.jvp(THETA, direction[None])[0]
        )


def test_products_with_the_jacobian(world):
    p, jacobian = world.success_and_jacobian(THETA)
    weights = torch.rand(3, world.num_prompts, dtype=torch.float64)
    value, rows = world.vjp(THETA, weights)
    assert torch.equal(value, p)
    torch.testing.assert_close(rows, weights @ jacobian)
    torch.testing.assert_close(world.kernel(THETA), jacobian @ jacobian.T)


def test_masses_and_groups(world):
    assert float(world.masses.sum()) == pytest.approx(1, abs=1e-14)
    hard = torch.tensor([group == "hard" for group in world.groups])
    assert float(world.masses[hard].sum()) == pytest.approx(0.3, abs=1e-14)
    assert not world.success(THETA).requires_grad


def test_far_out_success_rates_keep_their_relative_accuracy():
    p = TwoPointBandit().success([-700.0, 0.0])
    assert float(p[1]) == pytest.approx(math.exp(-700), rel=1e-12)
    assert float(p[0]) == 1


def population_mean(function, theta, separation, hard_fraction):
    """E[function(p)] by adaptive quadrature over the normal densities of both kinds."""

    def integrand(x, sign):
        u = sign * (theta[0] + theta[1] * (x + sign * separation / 2))
        return function(1 / (1 + math.exp(-u))) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    easy, hard = (quad(integrand, -12, 12, (sign,), epsabs=1e-13)[0] for sign in (-1, 1))
    return (1 - hard_fraction) * easy + hard_fraction * hard


@pytest.mark.parametrize("theta", [(-2.0, -2.0), (-2.0, 0.0), (3.0, 5.0)])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_the_population_is_that_of_adaptive_quadrature(theta, k):
    world = GaussianBandit(separation=0.4, hard_fraction=0.35)
    expected = population_mean(lambda p: 1 - (1 - p) ** k, theta, 0.4, 0.35)
    assert world.objective_value(theta, PassAtK(k)) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("theta", [(-2.0, -2.0), (1.0, 5.0)])
def test_twice_the_nodes_change_nothing_and_few_nodes_do(theta):
    def gradient(num_nodes):
        return GaussianBandit(num_nodes=num_nodes).objective_gradient(theta, PassAtK(10))[1]

    torch.testing.assert_close(gradient(257), gradient(513), rtol=0, atol=1e-12)
    assert (gradient(9) - gradient(513)).abs().max() > 1e-6


def test_a_sample_has_the_moments_of_the_population():
    sample = GaussianBandit(separation=1.0, hard_fraction=0.2).sample(20_000, 10_000, seed=0)
    s = sample.features[:, 1]
    assert float(s[:20_000].mean()) == pytest.approx(-0.5, abs=0.03)
    assert float(s[20_000:].mean()) == pytest.approx(0.5, abs=0.03)
    assert float(s[:20_000].std()) == pytest.approx(1, abs=0.03)
    assert sample.groups.count("hard") == 10_000
    expected = GaussianBandit(separation=1.0, hard_fraction=0.2).objective_value(THETA, PassAtK(4))
    assert sample.objective_value(THETA, PassAtK(4)) == pytest.approx(expected, abs=0.01)


def test_the_seed_decides_the_sample():
    def features(seed):
        return GaussianBandit().sample(3, 3, seed=seed).features

    assert torch.equal(features(0), features(0))
    assert not torch.equal(features(0), features(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoPointBandit(hard_fraction=0.0), "hard_fraction must lie strictly between"),
        (lambda: TwoPointBandit(hard_fraction=math.nan), "hard_fraction"),
        (lambda: GaussianBandit(hard_fraction=1.0), "hard_fraction"),
        (lambda: GaussianBandit(separation=math.inf), "separation must be a finite number"),
        (lambda: GaussianBandit(num_nodes=2), "num_nodes must be at least 3, got 2"),
        (lambda: GaussianBandit().sample(0, 3, seed=0), "prompts of both kinds, got 0 and 3"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_bandit_can_be_made_of_any_features():
    s, hard = torch.tensor([0.0, 1.0]).double(), torch.tensor([True, False])
    world = Bandit(s, hard, torch.tensor([0.5, 0.5]).double())
    assert world.groups == ("hard", "easy")
