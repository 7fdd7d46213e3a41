"""Figures 2 to 5 of the paper: the population of the bandit.

The paper prints neither theta nor the share of hard prompts of these figures; separation 0.2, a
share of 0.4 and k = 5 are assumed here, with theta = (-2, -2) as in Section 3.3 or (-2, 0).
"""

from __future__ import annotations

import torch

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit

K, STEPS = 5, 2000


def kernel_blocks() -> dict[str, float]:
    """Figure 2: mean cosine of grad p within and across kinds, 120 easy and 80 hard prompts."""
    world = GaussianBandit().sample(120, 80, seed=0)
    kernel = world.kernel((-2.0, -2.0))
    norms = kernel.diagonal().sqrt()
    cosines = kernel / torch.outer(norms, norms)
    off = ~torch.eye(120, dtype=torch.bool)
    return {
        "within_easy": float(cosines[:120, :120][off].mean()),
        "within_hard": float(cosines[120:, 120:][off[:80, :80]].mean()),
        "across": float(cosines[:120, 120:].mean()),
    }


def conflict_region() -> dict[str, float]:
    """Figure 3: share of the square [-4, 4]^2 of theta in which pass@5 and pass@1 conflict."""
    world, grid = GaussianBandit(), torch.linspace(-4, 4, 17).tolist()
    signs = [float(conflict(world, (b, s), [K]).inner_product[0]) < 0 for b in grid for s in grid]
    apart = GaussianBandit(separation=2.0)
    wide = [float(conflict(apart, (b, s), [K]).inner_product[0]) < 0 for b in grid for s in grid]
    return {"share": sum(signs) / len(signs), "share_far_apart": sum(wide) / len(wide)}


def agreement_after_ascent() -> dict[str, float]:
    """Figure 4: E[min(a, 0)] before and after pass@5 ascent, 100 unit steps and 2000."""
    world, found = GaussianBandit(), {}
    for steps, name in ((0, "before"), (100, "after_100"), (STEPS, "after_2000")):
        theta = ascend(world, (-2.0, -2.0), PassAtK(K), step_size=1.0, steps=steps).theta
        a = conflict(world, theta).agreement
        found[name] = float(world.masses @ a.clamp(max=0))
        found[f"lowest_{name}"] = float(a.min())
    return found


def ascent(hard_fraction: float = 0.4) -> dict[str, float]:
    """Figure 5: pass@5 and pass@1 over 2000 unit steps up pass@5, from (-2, -2) and (-2, 0)."""
    world, found = GaussianBandit(hard_fraction=hard_fraction), {}
    for slope, name in ((-2.0, ""), (0.0, "_flat")):
        trace = ascend(world, (-2.0, slope), PassAtK(K), step_size=1.0, steps=STEPS)
        for k in (1, K):
            values = trace.pass_at_k(k)
            found[f"pass_at_{k}_before{name}"] = float(values[0])
            found[f"pass_at_{k}_after{name}"] = float(values[-1])
    return found


def fewer_hard() -> dict[str, float]:
    """With 30 % hard prompts pass@1 rises first, and with features far apart nothing conflicts."""
    world = GaussianBandit(hard_fraction=0.3)
    one = ascend(world, (-2.0, -2.0), PassAtK(K), step_size=1.0, steps=STEPS).pass_at_k(1)
    apart = conflict(GaussianBandit(separation=2.0), (-2.0, -2.0), [K])
    return {
        "cosine": float(conflict(world, (-2.0, -2.0), [K]).cosine[0]),
        "first_ten_steps": float(one[10] - one[0]),
        "all_steps": float(one[-1] - one[0]),
        "cosine_far_apart": float(apart.cosine[0]),
    }
