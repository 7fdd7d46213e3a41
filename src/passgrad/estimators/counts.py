r"""Laws and tables over the number c of right answers among n samples, in log space.

Everything binary in this package is a function of c. The table

.. math:: S_c = \binom{n-1-c}{k-1} \Big/ \binom{n-1}{k-1}

is the chance that k - 1 of the other n - 1 samples, c of them right, are all wrong: the chance
that a right answer decides a group of k that it belongs to. Up to factors in n, k and c it is
what all estimators of pass@k are made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError


def decisive_share(num_samples: int, ks: Sequence[int]) -> Tensor:
    """S_c for c = 0..n - 1: (K, n), float64; 1 at c = 0, and 0 from c = n - k + 1 on.

    Products of factors 1 - (k - 1) / (n - j) are added up in logarithms, so n may be large.
    """
    orders = torch.tensor(list(ks), dtype=torch.float64)[:, None]
    others = torch.arange(num_samples - 1, 0, -1, dtype=torch.float64)  # n - j for j = 1..n - 1
    left = others - (orders - 1)
    factors = torch.where(left > 0, torch.log(left.clamp(min=1e-300) / others), -torch.inf)
    start = torch.zeros(len(orders), 1, dtype=torch.float64)
    return torch.exp(torch.cat([start, factors], dim=1).cumsum(dim=1))


def binomial_law(p: Tensor, num_samples: int) -> Tensor:
    """The chance of c right answers among n, c = 0..n, for rates p of shape (...): (..., n + 1)."""
    from scipy.stats import binom

    counts = np.arange(num_samples + 1)
    return torch.from_numpy(
        np.asarray(binom.pmf(counts, num_samples, p.numpy()[..., None]), dtype=np.float64)
    )


def rates(p: object) -> Tensor:
    """Success rates as a detached float64 tensor; raises UserError outside [0, 1]."""
    try:
        tensor = torch.as_tensor(p, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"success rates must be numbers, got {p!r}") from error
    if not ((tensor >= 0) & (tensor <= 1)).all():
        raise UserError("success rates must lie between 0 and 1")
    return tensor
