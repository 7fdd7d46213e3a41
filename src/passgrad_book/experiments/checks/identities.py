"""Identities of the paper: equations (2) to (11), Proposition 4.1, Appendices A and B.

Gaps are relative to the size of what is compared; the settings are those of :func:`bandits`, in
float64, and others in ``tests/theory``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import Bandit, GaussianBandit, TwoPointBandit
from passgrad.worlds.base import World

KS = (1, 2, 3, 5, 7.5, 10, 32, 100)
THETAS = [(b, s) for b in (-2.0, -0.5, 1.0) for s in (-2.0, 0.0, 1.5)]


class Setting(NamedTuple):
    """A world at a theta, with its rates written out: autograd sees nothing of the package."""

    world: World
    theta: Tensor
    rates: Callable[[Tensor], Tensor]
    """From theta, (d,), to p, (N,)."""

    def gradient(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of value(p(theta)) by autograd."""
        at = self.theta.clone().requires_grad_()
        return torch.autograd.grad(value(self.rates(at)), at)[0]

    def gradient_at(self, k: float) -> Tensor:
        """The gradient of J_k by autograd through 1 - (1 - p)^k."""
        return self.gradient(lambda p: self.world.masses @ (1 - (1 - p) ** k))


def _of_bandit(world: Bandit, theta: tuple[float, float]) -> Setting:
    sign = torch.tensor([1.0 if group == "hard" else -1.0 for group in world.groups])
    at = torch.tensor(theta, dtype=torch.float64)
    return Setting(world, at, lambda theta: torch.sigmoid(sign * (world.features @ theta)))


def bandits(thetas: Sequence[tuple[float, float]] = THETAS) -> list[Setting]:
    """Four bandits at each theta."""
    worlds = (
        TwoPointBandit(),
        TwoPointBandit(hard_fraction=0.3),
        GaussianBandit(),
        GaussianBandit(separation=2.0, hard_fraction=0.2),
    )
    return [_of_bandit(world, theta) for world in worlds for theta in thetas]


def bounds_of_pass_at_k(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """How far J_1 <= J_k <= f_k(J_1) and J_k <= J_m, m >= k, are ever missed."""
    worst = 0.0
    for world, theta, _ in settings or bandits():
        success = world.success(theta)
        values = [float(world.masses @ PassAtK(k).value(success)) for k in KS]
        for before, after in itertools.pairwise(values):
            worst = max(worst, before - after)
        for k, value in zip(KS, values, strict=True):
            worst = max(worst, value - (1 - (1 - values[0]) ** k))
    return {"excess": worst}


def weighted_gradient(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """The gradient of J_k by autograd against E[w_k grad p], and one prompt's two gradients."""
    gap = away = 0.0
    for setting in settings or bandits():
        world, theta, _ = setting
        p, jacobian = world.vjp(theta, torch.eye(world.num_prompts, dtype=torch.float64))
        for k in KS:
            exact = setting.gradient_at(k)
            for stated in (
                (world.masses * PassAtK(k).weight(p)) @ jacobian,
                world.objective_gradient(theta, PassAtK(k))[1],
            ):
                gap = max(gap, float((exact - stated).norm() / exact.norm()))
        if world.num_prompts > 10:
            continue
        for prompt, row in enumerate(jacobian):
            ten = setting.gradient(lambda p, x=prompt: 1 - (1 - p[x]) ** 10)  # type: ignore[misc]
            away = max(away, 1 - float(row @ ten / (row.norm() * ten.norm())))
    return {"gap": gap, "one_minus_cosine": away}


def mean_agreement(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """E[a] against ||grad J_1||^2, and the smallest mean agreement over all settings."""
    gap, least = 0.0, float("inf")
    for setting in settings or bandits():
        world, theta, _ = setting
        curve = conflict(world, theta)
        mean = float(world.masses @ curve.agreement)
        square = float(setting.gradient_at(1).square().sum())
        gap = max(gap, *(abs(own - square) / square for own in (mean, curve.norm_at_1**2)))
        least = min(least, mean)
    return {"gap": gap, "smallest": least}


def inner_product(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """Proposition 4.1 and equation (11): four forms of <grad J_k, grad J_1> against autograd."""
    gap, conflicts, agreements = 0.0, 0, 0
    for setting in settings or bandits():
        world, theta, _ = setting
        curve = conflict(world, theta, ks=KS)
        at_1 = setting.gradient_at(1)
        covariance = curve.covariance_form()
        for place, k in enumerate(KS):
            of_k = setting.gradient_at(k)
            exact, size = float(of_k @ at_1), float(of_k.norm() * at_1.norm())
            mean_weight = float(world.masses @ curve.weights[place])
            forms = (
                float(curve.inner_product[place]),
                curve.inner_product_at(k),
                float(covariance[place]),
                mean_weight * float(curve.reweighted(k) @ curve.agreement),
            )
            gap = max(gap, *(abs(form - exact) / size for form in forms))
            conflicts += exact < 0
            agreements += exact > 0
    return {"gap": gap, "conflicts": conflicts, "agreements": agreements}


def correlation(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """Settings in which the criterion of Appendix A and the sign of the product differ."""
    wrong = 0
    for world, theta, _ in settings or bandits():
        curve = conflict(world, theta, ks=KS[1:])
        rho, limit = curve.correlation_form()
        wrong += int(((rho < limit) != (curve.inner_product < 0)).sum())
    return {"mismatches": wrong}


def pairs(settings: Sequence[Setting] | None = None) -> dict[str, float]:
    """Appendix B: <grad J_k, grad J_m> against E[w_k(x) w_m(x') kappa(x, x')]."""
    gap = 0.0
    for setting in settings or bandits(THETAS[::2]):
        world, theta, _ = setting
        kernel, success = world.kernel(theta), world.success(theta)
        weighted = [world.masses * PassAtK(k).weight(success) for k in KS]
        gradients = [setting.gradient_at(k) for k in KS]
        for u, g in zip(weighted, gradients, strict=True):
            for v, h in zip(weighted, gradients, strict=True):
                size = float(g.norm() * h.norm())
                gap = max(gap, abs(float(u @ kernel @ v) - float(g @ h)) / size)
    return {"gap": gap}


def positive_kernel() -> dict[str, float]:
    """Proposition B.1: the smallest cosine of two gradients where no kernel entry is negative.

    All prompts are of one kind and their features lie on one side of the slope, so that all
    gradients point into one quadrant.
    """
    s = torch.linspace(0.1, 3.0, 30, dtype=torch.float64)
    masses = torch.full_like(s, 1 / len(s))
    world = Bandit(s, torch.ones(len(s), dtype=torch.bool), masses)
    least = smallest = float("inf")
    for theta in THETAS:
        least = min(least, float(world.kernel(theta).min()))
        gradients = torch.stack([world.objective_gradient(theta, PassAtK(k))[1] for k in KS])
        gradients = gradients / gradients.norm(dim=1, keepdim=True)
        smallest = min(smallest, float((gradients @ gradients.T).min()))
    return {"smallest_kernel": least, "smallest_cosine": smallest}
