r"""Estimates of <grad J_k, grad J_1> from the same answers in both gradients: for comparison.

With :math:`G(k) = \sum_x D(x) u_x(k)` from all answers,

.. math:: E\langle G(k), G(1) \rangle = \langle E\, G(k), E\, G(1) \rangle
          + \sum_x D(x)^2 \, \mathrm{tr}\, \mathrm{Cov}(u_x(k), u_x(1)),

and the last term is mostly positive: noise agrees with itself. It decreases as 1 / (M n) and is
all there is where gradients are small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.measurement.samples import SampledGradients
from passgrad.stats.bands import Array

Method = Literal["same-sample", "plug-in"]


def biased_conflict(
    samples: SampledGradients,
    ks: Iterable[int],
    *,
    method: Method = "same-sample",
    estimator: str | Estimator = "pkpo-loo1",
) -> Array:
    """<G(k), G(1)>, (K, ...), from the same answers: biased.

    "same-sample" has the advantages of ``estimator``, unbiased in each gradient by itself.
    "plug-in" has w_k(c / n) times the rewards instead (Barakat et al., 2026, section 5): its
    weights are biased as well. One gradient and one directional pass over every answer that counts.
    Raises UserError for another method, or a k beyond n.
    """
    if method not in ("same-sample", "plug-in"):
        raise UserError(f'method must be "same-sample" or "plug-in", got {method!r}')
    chosen = get_estimator("plug-in" if method == "plug-in" else estimator)
    rewards = samples.rewards.double()
    orders = [1, *ks]
    flat = chosen.advantages(rewards.reshape(-1, rewards.shape[-1]), orders)
    weights = samples.masses.double()[:, None] * flat.view(len(orders), *rewards.shape)
    # Only answers that count at some order: for the plug-in these are the right ones.
    counted = (weights != 0).any(dim=0)
    d = samples.directional(samples.gradients(weights[:1]), counted)[0]
    return np.asarray((weights[1:] * d).sum(dim=(-2, -1)))
