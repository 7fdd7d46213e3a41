"""Identities of the paper: equations (2) to (11), Proposition 4.1, Appendices A and B.

Gaps are relative to the size of what is compared; the settings are those below, in float64.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import Bandit, GaussianBandit, TwoPointBandit

KS = (1, 2, 3, 5, 7.5, 10, 32, 100)
THETAS = [(b, s) for b in (-2.0, -0.5, 1.0) for s in (-2.0, 0.0, 1.5)]


def _worlds() -> list[Bandit]:
    return [
        TwoPointBandit(),
        TwoPointBandit(hard_fraction=0.3),
        GaussianBandit(),
        GaussianBandit(separation=2.0, hard_fraction=0.2),
    ]


def _success(world: Bandit, theta: Tensor) -> Tensor:
    """The rates written out, for autograd: nothing of the package's jacobian is used."""
    return torch.sigmoid(world.signed_features @ theta)


def _gradient(world: Bandit, theta: tuple[float, float], k: float) -> Tensor:
    """The gradient of J_k by autograd through 1 - (1 - p)^k."""
    at = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    value = world.masses @ (1 - (1 - _success(world, at)) ** k)
    return torch.autograd.grad(value, at)[0]


def bounds_of_pass_at_k() -> dict[str, float]:
    """How far J_1 <= J_k <= f_k(J_1) and J_k <= J_m, m >= k, are ever missed."""
    worst = 0.0
    for world in _worlds():
        for theta in THETAS:
            success = world.success(theta)
            values = [float(world.masses @ PassAtK(k).value(success)) for k in KS]
            for before, after in itertools.pairwise(values):
                worst = max(worst, before - after)
            for k, value in zip(KS, values, strict=True):
                worst = max(worst, value - (1 - (1 - values[0]) ** k))
    return {"excess": worst}


def weighted_gradient() -> dict[str, float]:
    """The gradient of J_k by autograd against E[w_k grad p], and one prompt's two gradients."""
    gap = away = 0.0
    for world in _worlds():
        for theta in THETAS:
            p, jacobian = world.success_and_jacobian(theta)
            for k in KS:
                exact = _gradient(world, theta, k)
                stated = (world.masses * PassAtK(k).weight(p)) @ jacobian
                gap = max(gap, float((exact - stated).norm() / exact.norm()))
    world = TwoPointBandit()
    for theta in THETAS:
        at = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        for prompt in range(2):
            rate = _success(world, at)[prompt]
            one, ten = (
                torch.autograd.grad(1 - (1 - rate) ** k, at, retain_graph=True)[0] for k in (1, 10)
            )
            away = max(away, 1 - float(one @ ten / (one.norm() * ten.norm())))
    return {"gap": gap, "one_minus_cosine": away}


def mean_agreement() -> dict[str, float]:
    """E[a] against ||grad J_1||^2, and the smallest mean agreement over all settings."""
    gap, least = 0.0, float("inf")
    for world in _worlds():
        for theta in THETAS:
            curve = conflict(world, theta)
            mean = float(world.masses @ curve.agreement)
            gap = max(gap, abs(mean - curve.norm_at_1**2) / curve.norm_at_1**2)
            least = min(least, mean)
    return {"gap": gap, "smallest": least}


def inner_product() -> dict[str, float]:
    """Proposition 4.1 and equation (11): four forms of <grad J_k, grad J_1> against autograd."""
    gap, conflicts, agreements = 0.0, 0, 0
    for world in _worlds():
        for theta in THETAS:
            curve = conflict(world, theta, ks=KS)
            at_1 = _gradient(world, theta, 1)
            covariance = curve.covariance_form()
            for place, k in enumerate(KS):
                of_k = _gradient(world, theta, k)
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


def correlation() -> dict[str, float]:
    """Settings in which the criterion of Appendix A and the sign of the product differ."""
    wrong = 0
    for world in _worlds():
        for theta in THETAS:
            curve = conflict(world, theta, ks=KS[1:])
            rho, limit = curve.correlation_form()
            wrong += int(((rho < limit) != (curve.inner_product < 0)).sum())
    return {"mismatches": wrong}


def pairs() -> dict[str, float]:
    """Appendix B: <grad J_k, grad J_m> against E[w_k(x) w_m(x') kappa(x, x')]."""
    gap = 0.0
    for world in _worlds():
        for theta in THETAS[::2]:
            kernel, success = world.kernel(theta), world.success(theta)
            weighted = [world.masses * PassAtK(k).weight(success) for k in KS]
            gradients = [_gradient(world, theta, k) for k in KS]
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
        gradients = torch.stack([_gradient(world, theta, k) for k in KS])
        gradients = gradients / gradients.norm(dim=1, keepdim=True)
        smallest = min(smallest, float((gradients @ gradients.T).min()))
    return {"smallest_kernel": least, "smallest_cosine": smallest}
