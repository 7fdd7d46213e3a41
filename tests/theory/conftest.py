"""Policies with shared parameters, written with autograd and without the package's formulas."""

from contextlib import contextmanager

import pytest
import torch

from passgrad.worlds.base import AnalyticWorld, World
from passgrad_book.experiments.checks.identities import Setting


class SharedPolicy(World):
    """A one-layer tanh network on random contexts with three actions: theta moves every prompt."""

    dtype = torch.float64

    def __init__(self, seed: int, num_prompts: int = 7, width: int = 4) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.contexts = self.normal(num_prompts, 3)
        self.correct = torch.randint(3, (num_prompts,), generator=self.generator)
        self.masses = torch.softmax(self.normal(num_prompts), dim=0)
        self.groups = ("all",) * num_prompts
        self.width = width
        self.num_parameters = 3 * width + width * 3
        self.theta = 1.5 * self.normal(self.num_parameters)

    def normal(self, *shape):
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def own_parameters(self):
        return self.theta

    def probabilities(self, theta):
        """pi_theta(y | x), (N, 3)."""
        first, second = theta.split([3 * self.width, self.width * 3])
        hidden = torch.tanh(self.contexts @ first.view(3, self.width))
        return (hidden @ second.view(self.width, 3)).softmax(dim=1)

    def p(self, theta):
        pi = self.probabilities(theta)
        return pi[torch.arange(len(pi)), self.correct]

    def scores(self):
        """grad log pi(y | x), (N, 3, d), one answer at a time, at the policy's own theta."""
        jacobian = torch.func.jacrev(lambda theta: self.probabilities(theta).log())
        return jacobian(self.theta)

    def hessian(self, function):
        """The Hessian of function(p(theta)) at the policy's own theta."""
        return torch.func.hessian(lambda theta: function(self.p(theta)))(self.theta)

    def success(self, theta=None):
        return self.p(self.parameters(theta))

    def gradient(self, function):
        """The gradient of function(p(theta)) by autograd, at the policy's own theta."""
        theta = self.theta.clone().requires_grad_()
        return torch.autograd.grad(function(self.p(theta)), theta)[0]

    def vjp(self, theta, weights):
        theta = self.parameters(theta).clone().requires_grad_()
        p = self.p(theta)
        rows = [torch.autograd.grad(row @ p, theta, retain_graph=True)[0] for row in weights]
        return p.detach(), torch.stack(rows)

    def jvp(self, theta, directions):
        theta = self.parameters(theta)
        return torch.stack([torch.func.jvp(self.p, (theta,), (v,))[1] for v in directions])


class Given(AnalyticWorld):
    """Success rates and a jacobian as they are given; any kernel of that rank can be had."""

    def __init__(self, p, jacobian):
        self.p, self.jacobian = p, jacobian
        self.masses = torch.full((len(p),), 1 / len(p), dtype=torch.float64)
        self.groups = ("all",) * len(p)
        self.num_parameters = jacobian.shape[1]

    def success_and_jacobian(self, theta=None):
        return self.p, self.jacobian


class LinearPolicy(SharedPolicy):
    """A softmax of three actions, linear in bounded features: its scores are bounded, always.

    With ||phi|| <= 1, E||s||^2 = ||phi||^2 (1 - sum pi^2) <= 2/3, and the Hessian of log pi is
    minus the covariance of the actions times phi phi^T, of norm at most 1/2.
    """

    score_bound, curvature_bound = 2 / 3, 1 / 2

    def __init__(self, seed: int, num_prompts: int = 5, size: float = 3.0) -> None:
        super().__init__(seed, num_prompts)
        self.contexts /= self.contexts.norm(dim=1).max()
        self.num_parameters = 9
        self.theta = size * self.normal(9)

    def probabilities(self, theta):
        return (self.contexts @ theta.view(3, 3)).softmax(dim=1)


class AnglePolicy(SharedPolicy):
    """Two answers of which one is right with p = sin(u . theta)^2, for unit vectors u.

    Its scores on the right and the wrong answer are 2 cot(u . theta) u and -2 tan(u . theta) u, so
    that E||s||^2 = 4 and E||Hess log pi|| = 4 wherever 0 < p < 1: nothing is lost in Cauchy's and
    Schwarz's inequality, and p may be small with a large slope.
    """

    score_bound, curvature_bound = 4.0, 4.0

    def __init__(self, seed: int, num_prompts: int = 5) -> None:
        super().__init__(seed, num_prompts)
        self.contexts /= self.contexts.norm(dim=1, keepdim=True)
        self.correct = torch.zeros(num_prompts, dtype=torch.long)
        self.num_parameters = 3
        self.theta = self.normal(3)

    def probabilities(self, theta):
        right = torch.sin(self.contexts @ theta).square()
        return torch.stack([right, 1 - right], dim=1)


@contextmanager
def named(**quantities):
    try:
        yield
    except Exception as error:
        error.add_note("at " + ", ".join(f"{name} = {it}" for name, it in quantities.items()))
        raise


@pytest.fixture(scope="session")
def case():
    """Names one of many cases of a test: ``with case(k=k): assert ...`` says which k failed."""
    return named


@pytest.fixture(params=range(5))
def policy(request):
    return SharedPolicy(request.param)


@pytest.fixture
def setting(policy):
    """The policy at its own theta, for the checks of the identities."""
    return Setting(policy, policy.theta, policy.p)


@pytest.fixture(scope="session")
def given_world():
    return Given


@pytest.fixture
def make_policy():
    return SharedPolicy


@pytest.fixture
def make_linear_policy():
    return LinearPolicy


@pytest.fixture
def make_angle_policy():
    return AnglePolicy


@pytest.fixture(params=[(kind, seed) for kind in (LinearPolicy, AnglePolicy) for seed in range(6)])
def bounded_policy(request):
    """A policy whose scores and curvatures have bounds that hold at every theta."""
    kind, seed = request.param
    return kind(seed)
