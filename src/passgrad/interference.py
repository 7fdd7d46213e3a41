r"""Does ascending pass@k cost pass@1? The inner product of the two gradients and its parts.

With the agreement :math:`a(x) = \langle \nabla p(x), \nabla J_1 \rangle` of a prompt and the
weights :math:`w_k(x) = k (1 - p(x))^{k - 1}` (paper, Proposition 4.1),

.. math::
   \langle \nabla J_k, \nabla J_1 \rangle = E[w_k a]
   = E[w_k] \, \|\nabla J_1\|^2 + \mathrm{cov}(w_k, a).

The two gradients conflict where this is negative: a step up pass@k then lowers pass@1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from passgrad import exponential_sums
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.orders import check_k, real_orders
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

_LARGEST_K = 1e6


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

        The first of :func:`crossings`, to rounding; k beyond 10^6 are not looked at.
        """
        orders = crossings(self)
        return float(orders[0]) if len(orders) else math.nan

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

    def correlation_form(self) -> tuple[Tensor, Tensor]:
        """The correlation of w_k and a over prompts, and the value below which it is a conflict.

        Both (K,): rho and -E[w_k] ||grad J_1||^2 / (sigma_w sigma_a) (paper, Appendix A).
        nan where the weights or the agreements do not vary by more than rounding makes them, as the
        weights do not at k = 1: there neither is defined.
        """
        weight, largest_weight, sigma_weight = self._centred(self.weights)
        agreement, largest_agreement, sigma_agreement = self._centred(self.agreement[None])
        covariance = weight @ (self.masses / self.masses.sum() * agreement[0])
        mean_weight = self.weights @ self.masses / largest_weight
        limit = mean_weight * self.norm_at_1**2 / (sigma_weight * largest_agreement)
        return covariance / (sigma_weight * sigma_agreement), -limit / sigma_agreement

    def _centred(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (K, N) functions of the prompt: their deviations from the mean in units of the largest
        value, (K, N), that value, (K,), and the standard deviation in the same units, (K,), nan
        where it is no more than the rounding of a sum over prompts.
        """
        largest = values.abs().amax(dim=1)
        scaled = values / largest[:, None]
        law = self.masses / self.masses.sum()
        deviation = scaled - (scaled @ law)[:, None]
        sigma = (deviation.square() @ law).sqrt()
        rounding = 2 * len(self.masses) * torch.finfo(values.dtype).eps
        return deviation, largest, sigma.where(sigma > rounding, torch.nan)

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
    once.

    :raises UserError: For an empty ``ks`` or a k below 1.

    >>> import passgrad as pg
    >>> curve = pg.conflict(pg.TwoPointBandit(), (-2, -2), ks=(1, 2, 10))
    >>> curve.cosine
    tensor([ 1.0000, -0.7397, -0.7746], dtype=torch.float64)
    >>> round(curve.threshold, 4)
    1.2364
    """
    orders = real_orders(ks)
    if theta is not None:  # the world's own parameters need no copy
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


def sign_changes(curve: Conflict, *, cumulated: bool = False) -> int:
    """An upper bound on the number of k > 1 at which <grad J_k, grad J_1> changes its sign.

    As a function of k - 1 it is k times an exponential sum over prompts with the rates
    -log(1 - p(x)). By the generalised rule of signs it has no more zeros, counted with
    multiplicity, than the agreement, averaged over prompts of equal success rate, has changes of
    sign in the order of the success rate. One change therefore means one threshold.
    With ``cumulated`` it is the number of changes of the cumulated agreement, u -> E[a; p <= u],
    a bound that is never larger. Both exceed the number of zeros by an even number (the first of
    the zeros at all real k, the second of those at k > 1). Prompts of p = 1 have no part in it.
    """
    _, terms = exponential_sums.ordered(*_finite_terms(curve))
    return exponential_sums.sign_changes(np.cumsum(terms) if cumulated else terms)


def crossings(curve: Conflict, *, up_to: float = _LARGEST_K) -> Tensor:
    """All k, 1 <= k < ``up_to``, at which <grad J_k, grad J_1> changes its sign, (C,), increasing.

    None is missed but for rounding (:func:`passgrad.exponential_sums.sign_change_points`); their
    number is at most :func:`sign_changes`. The first of them goes from agreement to conflict.
    ``up_to`` may be infinite. The default leaves out what only the law of p within 10^-6 of zero
    decides: where quadrature stands for a population, that is a matter of its last nodes.
    Raises UserError for ``up_to`` below 1.
    """
    if not up_to >= 1:
        raise UserError(f"up_to must be at least 1, got {up_to}")
    rates, terms = _finite_terms(curve)
    orders = 1 + exponential_sums.sign_change_points(rates, terms, up_to - 1)
    # Prompts of p = 1 count at k = 1 and at no k above: the product may jump there.
    solved = float((curve.masses * curve.agreement)[curve.success == 1].sum())
    if (terms.sum() + solved) * terms.sum() < 0:
        orders = np.insert(orders, 0, 1.0)
    return torch.from_numpy(orders)


def _finite_terms(curve: Conflict) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rates -log(1 - p) and coefficients D a of the exponential sum, where p < 1."""
    below_1 = curve.success < 1
    terms = (curve.masses * curve.agreement)[below_1]
    return -torch.log1p(-curve.success[below_1]).numpy(), terms.numpy()
