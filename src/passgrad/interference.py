r"""Does ascending pass@k cost pass@1? The inner product of the two gradients and its parts.

With the agreement :math:`a(x) = \langle \nabla p(x), \nabla J_1 \rangle` of a prompt and the
weights :math:`w_k(x) = k (1 - p(x))^{k - 1}` (paper, Proposition 4.1),

.. math::
   \langle \nabla J_k, \nabla J_1 \rangle = E[w_k a]
   = E[w_k] \, \|\nabla J_1\|^2 + \mathrm{cov}(w_k, a).

The two gradients conflict where this is negative: a step up pass@k then goes down pass@1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import PassAtK, check_k
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame

_LARGEST_K = 1e6
_GRID_POINTS = 4001


@dataclass(frozen=True, eq=False)
class Conflict:
    """The pass@k gradients against the pass@1 gradient, at one theta.

    Tensors over k follow ``ks``, tensors over prompts follow the world's prompts; all are float64.
    """

    ks: Tensor
    """(K,)."""
    inner_product: Tensor
    """<grad J_k, grad J_1>, (K,), from the gradients themselves."""
    norm: Tensor
    """||grad J_k||, (K,)."""
    norm_at_1: float
    """||grad J_1||."""
    success: Tensor
    """p(x), (N,)."""
    agreement: Tensor
    """a(x) = <grad p(x), grad J_1>, (N,) (paper, eq. 8)."""
    weights: Tensor
    """w_k(x), (K, N)."""
    masses: Tensor
    """D(x), (N,)."""
    groups: tuple[str, ...]
    """One label a prompt."""

    @property
    def cosine(self) -> Tensor:
        """cos(grad J_k, grad J_1), (K,); nan where one of them is zero."""
        return (self.inner_product / (self.norm * self.norm_at_1)).clamp(-1, 1)

    @property
    def threshold(self) -> float:
        """The first real k >= 1 at which <grad J_k, grad J_1> turns negative; nan if none does.

        The root of E[w_k a] is bracketed on a grid that is geometric in k - 1, up to k = 10^6,
        and found to 1e-12. Two changes of sign within 0.7 % of each other would go unnoticed.
        """
        from scipy.optimize import brentq

        steps = torch.logspace(-6, math.log10(_LARGEST_K - 1), _GRID_POINTS, dtype=torch.float64)
        low = 1.0
        for high in (1 + steps).tolist():
            if self._sign_at(high) < 0:
                return float(brentq(self._sign_at, low, high, xtol=1e-12))
            low = high
        return math.nan

    def _sign_at(self, k: float) -> float:
        """E[w_k a] up to a positive factor, which keeps large k from underflowing to zero."""
        terms = self.masses * self.agreement
        log_failure = torch.log1p(-self.success).clamp(min=-1e300)  # at p = 1, k = 1: 0 * (-inf)
        largest = log_failure[terms != 0].max() if terms.any() else 0.0
        # A prompt without agreement adds nothing, but may lie above the largest: exp(inf) * 0.
        return float(terms @ torch.exp((k - 1) * (log_failure - largest).clamp(max=0)))

    def inner_product_at(self, k: float) -> float:
        """E[w_k a] = <grad J_k, grad J_1> for any real k >= 1 (paper, Proposition 4.1)."""
        return float((self.masses * PassAtK(k).weight(self.success)) @ self.agreement)

    def covariance_form(self) -> Tensor:
        """E[w_k] ||grad J_1||^2 + cov(w_k, a), (K,) (paper, Proposition 4.1)."""
        mean_weight = self.weights @ self.masses
        deviation = self.weights - mean_weight[:, None]
        mean_agreement = self.masses @ self.agreement
        covariance = deviation @ (self.masses * (self.agreement - mean_agreement))
        return mean_weight * self.norm_at_1**2 + covariance

    def reweighted(self, k: float) -> Tensor:
        """The law D_k(x) proportional to w_k(x) D(x), (N,) (paper, eq. 11).

        <grad J_k, grad J_1> has the sign of the mean of a under it.
        It is taken through logarithms, so that it exists where every weight underflows.
        """
        exponent = torch.full_like(self.success, check_k(k) - 1)
        return torch.softmax(
            self.masses.log() + torch.special.xlog1py(exponent, -self.success), dim=0
        )

    def to_frame(self) -> DataFrame:
        """One row a k: inner product, cosine, norm, pass@k and the mean weight."""
        import pandas as pd

        return pd.DataFrame(
            {
                "k": self.ks.numpy(),
                "inner_product": self.inner_product.numpy(),
                "cosine": self.cosine.numpy(),
                "norm": self.norm.numpy(),
                "pass_at_k": [
                    float(self.masses @ PassAtK(float(k)).value(self.success)) for k in self.ks
                ],
                "mean_weight": (self.weights @ self.masses).numpy(),
            }
        )

    def prompts_frame(self) -> DataFrame:
        """One row a prompt: group, mass, success rate, agreement, and the weight at each k."""
        import pandas as pd

        columns = {
            "group": list(self.groups),
            "mass": self.masses.numpy(),
            "success": self.success.numpy(),
            "agreement": self.agreement.numpy(),
        }
        weights = {
            f"weight_{float(k):g}": row.numpy()
            for k, row in zip(self.ks, self.weights, strict=True)
        }
        return pd.DataFrame(columns | weights)


def conflict(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    ks: Iterable[float] | Tensor = (1, 2, 4, 8, 16, 32),
) -> Conflict:
    """The inner products <grad J_k, grad J_1>, k in ``ks``, and the agreement of every prompt.

    It costs one pass for the success rates, the world's :meth:`~World.gradient_products` for the
    gradients and one jvp along grad J_1 for the agreements; at most two gradients are held at
    once. Raises UserError for an empty ``ks`` or a k below 1.
    """
    orders = _check_ks(ks)
    theta = world.parameters(theta)
    success = world.success(theta)
    weights = torch.stack([PassAtK(k).weight(success) for k in orders])
    products = world.gradient_products(theta, world.masses, world.masses * weights)
    return Conflict(
        ks=torch.tensor(orders, dtype=torch.float64),
        inner_product=products.inner_products,
        norm=products.squared_norms.sqrt(),
        norm_at_1=products.reference_norm,
        success=success,
        agreement=world.jvp(theta, products.gradient[None])[0],
        weights=weights,
        masses=world.masses,
        groups=world.groups,
    )


def conflict_strength(curve: Conflict, k: float, *, margin: float, score_bound: float) -> float:
    """The delta = m W_- - G^2 W_+ with <grad J_k, grad J_1> <= -delta (paper, Corollary 4.4).

    W_- and W_+ are the means of w_k over the prompts with a(x) <= -m and over the others, m > 0 is
    ``margin`` and G^2 = ``score_bound`` bounds E||grad log pi||^2 on every prompt.
    A positive delta proves a conflict. (The paper prints "delta < 0"; its proofs use delta > 0.)
    """
    weighted = curve.masses * PassAtK(k).weight(curve.success)
    against = _against(curve, margin)
    return float(margin * weighted[against].sum() - score_bound * weighted[~against].sum())


def sufficient_k(curve: Conflict, *, margin: float, score_bound: float) -> float:
    """The k* beyond which Proposition 4.5 proves a conflict; nan where its premise does not hold.

    The premise: the prompts with a(x) <= -m have mass q > 0, and each of them has a lower success
    rate than every other prompt. It is sufficient only, see :attr:`Conflict.threshold`.
    """
    against = _against(curve, margin)
    if not against.any() or against.all():
        return math.nan
    highest, lowest = float(curve.success[against].max()), float(curve.success[~against].min())
    if not highest < lowest < 1:
        return math.nan
    q = float(curve.masses[against].sum())
    ratio = math.log((1 - q) * score_bound / (q * margin))
    return max(1.0, 1 + ratio / (math.log1p(-highest) - math.log1p(-lowest)))


def proven_step_size(
    curve: Conflict, k: float, *, margin: float, score_bound: float, curvature_bound: float
) -> float:
    """The step size below which a step along grad J_k provably lowers J_1 and raises J_k.

    It is min(delta / C_2, 1 / L_k) of Proposition 4.6, with L_k = k^2 G^2 + k F,
    C_2 = k^2 G^2 L_1 / 2 and F = ``curvature_bound`` >= E||Hess log pi||; 0 where delta <= 0.
    The step must be strictly smaller: at the end point (which the paper includes) the bound gives
    J_1 no higher, but not lower.
    """
    delta = conflict_strength(curve, k, margin=margin, score_bound=score_bound)
    smoothness = k**2 * score_bound + k * curvature_bound
    curvature = k**2 * score_bound * (score_bound + curvature_bound) / 2
    return max(0.0, min(delta / curvature, 1 / smoothness))


def _against(curve: Conflict, margin: float) -> Tensor:
    if not margin > 0:
        raise UserError(f"margin must be positive, got {margin}")
    return curve.agreement <= -margin


def _check_ks(ks: Iterable[float] | Tensor) -> list[float]:
    values = ks.tolist() if isinstance(ks, Tensor) else ks
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise UserError(f"ks must be a sequence of numbers such as [1, 2, 10], got {ks!r}")
    orders = [check_k(k) for k in values]
    if not orders:
        raise UserError("ks is empty: name at least one k")
    return orders
