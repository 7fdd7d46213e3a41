r"""Phase diagrams: where in the space of populations the pass@k gradient opposes that of pass@1.

The population is that of :class:`~passgrad.worlds.bandit.GaussianBandit`. Its two kinds of prompts
enter the gradient separately,

.. math:: \nabla J_k = (1 - h) A_k + h B_k, \qquad
          A_k = -E_{easy}[k p (1 - p)^k \psi], \quad B_k = E_{hard}[k p (1 - p)^k \psi],

where h is the share of hard prompts, and A and B do not depend on it. So one quadrature for each
pair of a start and a separation serves all values of h, and all k come from one batched product.
Along h the inner product with the pass@1 gradient is a polynomial of degree two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.orders import check_k
from passgrad_book.experiments.dynamics.population import quadrature

if TYPE_CHECKING:
    from pandas import DataFrame

_CHUNK = 1 << 19  # entries of the largest temporary: 4 MiB stay in the caches


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """Gradients of pass@k and pass@1 on a grid of populations; tensors are (B, S, H, K), float64.

    The axes are those of ``biases``, ``separations``, ``hard_fractions`` and ``ks``.
    """

    biases: Tensor
    """First parameter of the policy, (B,)."""
    separations: Tensor
    """(S,)."""
    hard_fractions: Tensor
    """(H,)."""
    ks: Tensor
    """(K,)."""
    slope: float
    """Second parameter of the policy."""
    inner_product: Tensor
    """<grad J_k, grad J_1>."""
    norm: Tensor
    """||grad J_k||."""
    norm_at_1: Tensor
    """||grad J_1||, (B, S, H)."""
    pass_at_k: Tensor
    """J_k."""
    quadratic: Tensor
    """c of <grad J_k, grad J_1> = c_0 (1 - h)^2 + c_1 h (1 - h) + c_2 h^2, (B, S, K, 3)."""

    @property
    def cosine(self) -> Tensor:
        """cos(grad J_k, grad J_1), (B, S, H, K)."""
        return (self.inner_product / (self.norm * self.norm_at_1[..., None])).clamp(-1, 1)

    @property
    def boundaries(self) -> Tensor:
        """The shares h in (0, 1) at which the inner product changes sign, (B, S, K, 2).

        They are the roots of the quadratic, in rising order, with nan in place of those that do
        not exist or lie outside; a double root changes no sign and is left out.
        """
        c0, c1, c2 = self.quadratic.unbind(-1)
        # With t = h / (1 - h) > 0 the sign is that of c0 + c1 t + c2 t^2.
        root = (c1.square() - 4 * c0 * c2).sqrt()  # nan where there is none
        # The form without cancellation: the product of the two roots is c0 / c2.
        large = -(c1 + torch.where(c1 < 0, -root, root)) / 2
        odds = torch.stack([large / c2, c0 / large], dim=-1)
        odds = torch.where((odds > 0) & odds.isfinite() & (root[..., None] > 0), odds, torch.nan)
        return (odds / (1 + odds)).sort(dim=-1).values

    def to_frame(self) -> DataFrame:
        """One row a bias, separation, hard fraction and k."""
        import pandas as pd

        axes = [
            axis.numpy() for axis in (self.biases, self.separations, self.hard_fractions, self.ks)
        ]
        names = ["bias", "separation", "hard_fraction", "k"]
        index = pd.MultiIndex.from_product(axes, names=names)
        columns = {
            "inner_product": self.inner_product.flatten().numpy(),
            "cosine": self.cosine.flatten().numpy(),
            "pass_at_k": self.pass_at_k.flatten().numpy(),
        }
        return pd.DataFrame(columns, index=index).reset_index()


def phase_diagram(
    ks: Sequence[float],
    *,
    separations: Sequence[float] | Tensor,
    hard_fractions: Sequence[float] | Tensor,
    biases: Sequence[float] | Tensor = (-2.0,),
    slope: float = -2.0,
    num_nodes: int = 257,
) -> PhaseDiagram:
    """The gradients of pass@k and pass@1 at theta = (bias, slope), for every population of a grid.

    They equal those of ``conflict(GaussianBandit(separation, hard_fraction, num_nodes), theta,
    ks)`` at every point, with the same nodes. Any real k >= 1 is taken.

    Raises UserError for an empty axis, a share of hard prompts outside (0, 1), a k below 1, or a
    number that is not finite.
    """
    orders = torch.tensor([check_k(k) for k in ks], dtype=torch.float64)
    axes = {
        "ks": orders,
        "separations": separations,
        "hard_fractions": hard_fractions,
        "biases": biases,
        "slope": [slope],
    }
    grid = {name: torch.as_tensor(axis, dtype=torch.float64) for name, axis in axes.items()}
    for name, axis in grid.items():
        if axis.ndim != 1 or len(axis) == 0 or not axis.isfinite().all():
            raise UserError(f"{name} must be a list of finite numbers, at least one")
    h = grid["hard_fractions"]
    if not ((h > 0) & (h < 1)).all():
        raise UserError("hard_fractions must lie strictly between 0 and 1")

    shape = (len(grid["biases"]), len(grid["separations"]))
    with_one = torch.cat([torch.ones(1, dtype=torch.float64), orders])  # k = 1 stands first
    bias, separation = torch.meshgrid(grid["biases"], grid["separations"], indexing="ij")
    moments = _moments(bias.flatten(), separation.flatten(), slope, with_one, num_nodes)
    moments = moments.view(*shape, 2, len(with_one), 3)

    shares = torch.stack([1 - h, h], dim=1)
    mixed = torch.einsum("hl,bslkc->bshkc", shares, moments)
    gradients, at_one = mixed[..., 1:, :2], mixed[..., :1, :2]
    easy, hard = moments[:, :, 0, :, :2], moments[:, :, 1, :, :2]
    crossed = easy[..., 1:, :] * hard[..., :1, :] + hard[..., 1:, :] * easy[..., :1, :]
    quadratic = [
        (easy[..., 1:, :] * easy[..., :1, :]).sum(-1),
        crossed.sum(-1),
        (hard[..., 1:, :] * hard[..., :1, :]).sum(-1),
    ]
    return PhaseDiagram(
        grid["biases"],
        grid["separations"],
        h,
        orders,
        float(slope),
        (gradients * at_one).sum(-1),
        gradients.norm(dim=-1),
        at_one[..., 0, :].norm(dim=-1),
        1 - mixed[..., 1:, 2],
        torch.stack(quadratic, dim=-1),
    )


def _moments(bias: Tensor, separation: Tensor, slope: float, ks: Tensor, num_nodes: int) -> Tensor:
    """E[k p (1-p)^k psi] with the label's sign, and E[(1-p)^k]: (cells, labels, K, 3)."""
    s, sign, weight = quadrature(separation, num_nodes)
    moments = s.new_empty(len(s), 2, len(ks), 3)
    size = max(1, _CHUNK // (2 * num_nodes * len(ks)))
    scale = torch.stack([ks, ks, torch.ones_like(ks)], dim=1)
    for start in range(0, len(s), size):
        cells = slice(start, start + size)
        logits = sign * (bias[cells, None, None] + slope * s[cells])
        log_failure = -torch.nn.functional.softplus(logits)
        failure = torch.exp(ks[:, None] * log_failure[:, :, None, :])
        right = weight * torch.sigmoid(logits) * sign
        columns = torch.stack([right, right * s[cells], weight.expand_as(right)], dim=-1)
        moments[cells] = scale * (failure @ columns)
    return moments
