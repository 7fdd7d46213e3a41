"""What a step does in a world, without sampling."""

import torch

from passgrad.objectives import PassAtK


def realised_step(world, theta, vector, etas, ks):
    """J_k(theta + eta v) - J_k(theta) without sampling: (E, K), float64.

    Differences of rates far below one are taken before they are averaged. Raises UserError for a
    vector of another length or not finite.
    """
    origin = world.parameters(theta)
    v = world.parameters(vector)
    orders = [PassAtK(k) for k in ks]
    start = world.success(origin)
    before = torch.stack([f.value(start) for f in orders])
    rows = []
    for eta in etas:
        rates = world.success(origin + eta * v)
        rows.append((torch.stack([f.value(rates) for f in orders]) - before) @ world.masses)
    return torch.stack(rows)


def exact_derivatives(world, theta, vector, ks, *, step=None):
    r"""D_v J_k and D_v^2 J_k of a world, without sampling: (K,) each, float64.

    :math:`p' = \langle \nabla p, v \rangle` exactly, and p'' as the difference of p' at theta +- h v
    over 2 h, with h = ``step``; by default the h at which the largest log-rate changes by 10^-2
    (10^-5 in float64), where it is right to about six digits (four in float32).
    """  # noqa: E501
    origin, v = world.parameters(theta), world.parameters(vector)
    p = world.success(origin)
    slope = world.jvp(origin, v[None])[0]
    if step is None:
        steepest = float((slope / p.clamp(min=1e-12)).abs().max())
        step = (1e-5 if world.dtype == torch.float64 else 1e-2) / max(steepest, 1e-12)
    ends = [world.jvp(origin + sign * step * v, v[None])[0] for sign in (1, -1)]
    bend = (ends[0] - ends[1]) / (2 * step)
    first, second = [], []
    for k in ks:
        weight = PassAtK(k).weight(p)
        curvature = -k * (k - 1) * (1 - p) ** max(k - 2, 0)
        first.append(world.masses @ (weight * slope))
        second.append(world.masses @ (weight * bend + curvature * slope.square()))
    return torch.stack(first), torch.stack(second)
