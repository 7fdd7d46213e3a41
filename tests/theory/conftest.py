"""A policy with shared parameters, written with autograd and without the package's formulas."""

import pytest
import torch

from passgrad.worlds.base import World


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

    def p(self, theta):
        first, second = theta.split([3 * self.width, self.width * 3])
        hidden = torch.tanh(self.contexts @ first.view(3, self.width))
        logits = hidden @ second.view(self.width, 3)
        return logits.softmax(dim=1)[torch.arange(len(logits)), self.correct]

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


@pytest.fixture(params=range(5))
def policy(request):
    return SharedPolicy(request.param)


@pytest.fixture
def make_policy():
    return SharedPolicy
