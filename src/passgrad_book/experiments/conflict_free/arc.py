r"""What steps of one length change to first order: the arc on which all methods lie.

With the Gram matrix G of the gradients of J_1 and J_k and the angle :math:`\psi` between them, a
step :math:`d = M^{-1} \sum_j \lambda_j \nabla J_j` with :math:`\lambda \ge 0` at the angle
:math:`\varphi` from that of pass@1 changes the two, per unit of its length, by

.. math:: \bigl(\sqrt{G_{11}} \cos \varphi, \; \sqrt{G_{kk}} \cos(\psi - \varphi)\bigr), \qquad
          0 \le \varphi \le \psi .
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.ascent.frontier import method
from passgrad.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame


def gram_of(norm_1: float, norm_k: float, cosine: float) -> Tensor:
    """The Gram matrix, (2, 2) float64, of two gradients with these norms and this cosine."""
    inner = cosine * norm_1 * norm_k
    return torch.tensor([[norm_1**2, inner], [inner, norm_k**2]], dtype=torch.float64)


def arc(gram: Tensor, points: int = 101) -> DataFrame:
    """So many points of the arc from pass@1 to pass@k: ``angle`` in radians from the step of
    pass@1, ``change_1`` and ``change_k`` per unit of length. Raises UserError for a gradient that
    is zero.
    """
    import pandas as pd

    norms, widest = _polar(gram)
    angle = torch.linspace(0, 1, points, dtype=torch.float64) * widest
    return pd.DataFrame(
        {
            "angle": angle,
            "change_1": norms[0] * angle.cos(),
            "change_k": norms[1] * (widest - angle).cos(),
        }
    )


def first_order(gram: Tensor, methods: Sequence[str]) -> DataFrame:
    r"""Where the named methods (:func:`passgrad.ascent.frontier.method`) stand on the arc.

    One row a method: ``share`` of lambda_k in lambda_1 + lambda_k, ``angle`` in radians from the
    step of pass@1, ``own_length`` :math:`\sqrt{\lambda^\top G \lambda}` of the step with the
    method's own coefficients, and the changes per unit of length. Raises UserError for a gradient
    that is zero, a schedule, and a step that vanishes.
    """
    import pandas as pd

    norms, _ = _polar(gram)
    rows: list[dict[str, Any]] = []
    for name in methods:
        choose = method(name).choose
        if choose is None:
            raise UserError(f"{name} is a schedule: it has no place on the arc of one step")
        lambdas = choose(gram).double()
        length = float((lambdas @ gram @ lambdas).clamp(min=0).sqrt())
        if length == 0:
            raise UserError(f"the step of {name} vanishes: it has no place on the arc")
        change = gram @ lambdas / length
        rows.append(
            {
                "method": name,
                "share": float(lambdas[1] / lambdas.sum()),
                "angle": float((change[0] / norms[0]).clamp(-1, 1).acos()),
                "own_length": length,
                "change_1": float(change[0]),
                "change_k": float(change[1]),
            }
        )
    return pd.DataFrame(rows)


def _polar(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The norms of the two gradients, (2,), and the angle between them."""
    norms = gram.diagonal().sqrt()
    if not (norms > 0).all():
        raise UserError("a gradient is zero: there is no angle between the two")
    return norms, (gram[0, 1] / norms.prod()).clamp(-1, 1).acos()
