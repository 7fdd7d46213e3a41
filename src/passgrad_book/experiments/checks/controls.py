"""Where there is no conflict, and steps that lose nothing."""

from __future__ import annotations

import torch

from passgrad.ascent.mixing import coefficients, first_order_changes
from passgrad.interference import conflict
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.tabular import TabularSoftmax

KS = (1, 2, 5, 10, 32, 100)


def tabular() -> dict[str, float]:
    """Negative control: the smallest <grad J_k, grad J_1> over 200 random tabular policies."""
    generator = torch.Generator().manual_seed(0)
    world = TabularSoftmax(8, 3)
    least = float("inf")
    for _ in range(200):
        theta = 2 * torch.randn(world.num_parameters, dtype=torch.float64, generator=generator)
        least = min(least, float(conflict(world, theta, KS).inner_product.min()))
    return {"smallest": least}


def first_order() -> dict[str, float]:
    """What pass@1 and pass@k gain to first order by conflict-free steps, where they conflict.

    The smallest gain over all thetas, over the squared norm of the gradient in question.
    """
    found, conflicts = {}, 0
    for name in ("pcgrad", "constrained", "mgda"):
        least = float("inf")
        for world in (TwoPointBandit(), GaussianBandit()):
            for theta in [(b, s) for b in (-3.0, -2.0, -1.0) for s in (-3.0, -2.0, 0.0, 1.0)]:
                p, jacobian = world.success_and_jacobian(theta)
                weights = torch.stack([world.masses * k * (1 - p) ** (k - 1) for k in (1, 10)])
                gradients = weights @ jacobian
                gram = gradients @ gradients.T
                if gram[0, 1] >= 0:
                    continue
                conflicts += name == "pcgrad"
                changes = first_order_changes(gram, coefficients(gram, name))
                least = min(least, float((changes / gram.diagonal()).min()))
        found[name] = least
    return found | {"conflicts": conflicts}
