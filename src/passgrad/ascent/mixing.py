r"""From the Gram matrix of several gradients to the coefficients of one combined step.

With :math:`G_{ij} = \langle g_i, g_j \rangle` for the gradients of m objectives, every method of
gradient surgery is a choice of coefficients: the step goes along :math:`\sum_j \lambda_j g_j`, and
objective i changes to first order by :math:`(G \lambda)_i`. Policy gradients are linear in the
advantages, so the combined gradient is that of the advantages
:math:`A_i = \sum_j \lambda_j A_i^{(j)}`: whatever the method is, one backward pass does.

The coefficients are those of torchjd's weightings (Quinton and Rey, 2024), to which the Gram matrix
is all that matters, and ``"constrained"``: the ascent of the last objective, held to first-order
changes of the first one that are not negative.

A Gram matrix that was estimated without bias need not be positive semi-definite, and has diagonal
entries that may be close to zero or negative. Its nearest positive semi-definite matrix is taken,
and where standard errors are known no squared norm is taken to be below its error: the division by
it would turn noise into coefficients.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from passgrad.ascent.pairs import CLOSED, RADIUS
from passgrad.errors import UserError

#: name -> the class in torchjd.aggregation, its options, and the extra that it needs
_WEIGHTINGS: Mapping[str, tuple[str, Mapping[str, Any], str | None]] = MappingProxyType(
    {
        "pcgrad": ("PCGradWeighting", {}, None),
        "mgda": ("MGDAWeighting", {}, None),
        "upgrad": ("UPGradWeighting", {}, "quadprog_projector"),
        "dualproj": ("DualProjWeighting", {}, "quadprog_projector"),
        "cagrad": ("CAGradWeighting", {"c": RADIUS}, "cagrad"),
        "imtlg": ("IMTLGWeighting", {}, None),
        "gradvac": ("GradVacWeighting", {}, None),
        "alignedmtl": ("AlignedMTLWeighting", {}, None),
        "nashmtl": ("NashMTL", {}, "nash_mtl"),
        "sum": ("SumWeighting", {}, None),
    }
)

#: what ``aggregator`` may be called
AGGREGATORS: tuple[str, ...] = (*_WEIGHTINGS, "constrained")


def nearest_psd(gram: Tensor) -> Tensor:
    """The positive semi-definite matrix closest to a symmetric one in the Frobenius norm.

    (m, m) -> (m, m): negative eigenvalues are set to zero.
    """
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    nearest: Tensor = (vectors * values.clamp(min=0)) @ vectors.T
    return nearest


def coefficients(
    gram: Any,
    aggregator: str = "pcgrad",
    *,
    error: Any = None,
    quantile: float = 0.0,
    keep: float = 0.0,
    normalise: bool = True,
) -> Tensor:
    r"""The lambda of the combined step from the Gram matrix of the objectives: (m,), float64.

    At a Gram matrix of zeros, where no method prefers a direction, the coefficients are equal.
    Two objectives need no solver: UPGrad is half of PCGrad there, and DualProj, Nash-MTL and CAGrad
    have the closed forms of :mod:`passgrad.ascent.pairs`. For more of them torchjd has a solver
    that may not be installed.

    :param gram: (m, m), symmetric: exact, or estimated without bias.
    :param aggregator: A name in :data:`AGGREGATORS`. ``"constrained"`` ascends the last objective k
        and holds the first one, with :math:`\lambda = (\mu, 1)` and the least :math:`\mu \ge 0` for
        which :math:`G_{1k} + \mu G_{11} \ge c\,G_{11}`, c = ``keep``. With c = 0, among all steps
        of one length that do not lower objective 1 to first order it raises objective k most. It
        takes two objectives.
    :param error: Standard errors of the entries, (m, m); None for an exact matrix. Entries that are
        not finite mean that nothing is known yet: then the coefficients are equal, and those of
        ``"constrained"`` are (1, 0), which is safe.
    :param quantile: By so many standard errors ``"constrained"`` goes below the estimates of
        :math:`G_{1k}` and :math:`G_{11}`. Where :math:`G_{11}` is not above zero by as much, it
        returns (1, 0).
    :param keep: The share c of the gain of a gradient step on objective 1 that ``"constrained"``
        keeps. 0 keeps its level, 1 its whole gain.
    :param normalise: Divide by the sum of absolute values, so that a step is a weighted mean of the
        gradients and a learning rate keeps its meaning.
    :raises UserError: For an unknown name, a matrix that is not square or not finite, and a missing
        optional dependency.
    """
    matrix = torch.as_tensor(gram, dtype=torch.float64).detach().cpu()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise UserError(f"a Gram matrix is square, got the shape {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise UserError("the Gram matrix has entries that are not finite")
    if aggregator not in AGGREGATORS:
        raise UserError(f"there is no aggregator {aggregator!r}; known: {', '.join(AGGREGATORS)}")
    keep = check_keep(keep, aggregator)
    errors = torch.zeros_like(matrix)
    if error is not None:
        errors = torch.as_tensor(error, dtype=torch.float64).detach().cpu()
        if errors.shape != matrix.shape:
            raise UserError(f"error has the shape {tuple(errors.shape)}, the Gram matrix another")
    if aggregator == "constrained":
        made = _constrained(matrix, errors, quantile, keep)
    elif not errors.isfinite().all():
        made = torch.ones(len(matrix), dtype=torch.float64)
    else:
        floor = torch.maximum(matrix.diagonal(), errors.diagonal())
        projected = nearest_psd(matrix - torch.diag(matrix.diagonal() - floor))
        made = _weights(projected, aggregator)
    total = made.abs().sum()
    if not made.isfinite().all() or total == 0:
        made, total = torch.ones(len(matrix), dtype=torch.float64), torch.tensor(len(matrix))
    return made / total if normalise else made


def first_order_changes(gram: Any, lambdas: Tensor) -> Tensor:
    """What each objective gains to first order by a unit step along the combination: (m,)."""
    return torch.as_tensor(gram, dtype=torch.float64) @ lambdas.double()


def check_aggregator(aggregator: str) -> None:
    """Raise the UserError of :func:`coefficients` for an unknown name or a missing dependency."""
    coefficients(torch.eye(2, dtype=torch.float64), aggregator)


def check_keep(keep: float, aggregator: str) -> float:
    """The share of a gain that ``aggregator`` is to keep, as a float.

    :raises UserError: For what is no share from 0 to 1, and for a share above 0 with another
        aggregator than ``"constrained"``.
    """
    if isinstance(keep, bool) or not isinstance(keep, Real) or not 0 <= keep <= 1:
        raise UserError(f"keep must be a share of a gain, from 0 to 1, got {keep!r}")
    if keep and aggregator != "constrained":
        raise UserError(f"keep belongs to 'constrained': leave it out with {aggregator!r}")
    return float(keep)


def _constrained(gram: Tensor, error: Tensor, quantile: float, keep: float) -> Tensor:
    if len(gram) != 2:
        raise UserError(f"'constrained' takes two objectives, got {len(gram)}")
    safe = torch.tensor([1.0, 0.0], dtype=torch.float64)
    if not error.isfinite().all():
        return safe
    low = float(gram[0, 1] - quantile * error[0, 1])
    reach = quantile * float(error[0, 0])
    # A bound of G_1k / G_11 from below takes the largest G_11 above zero and the least below it.
    own = float(gram[0, 0]) + (reach if low >= 0 else -reach)
    if low >= 0 and keep == 0:
        return torch.tensor([0.0, 1.0], dtype=torch.float64)
    if own <= 0:
        return safe
    return torch.tensor([max(keep - low / own, 0.0), 1.0], dtype=torch.float64)


def _weights(gram: Tensor, aggregator: str) -> Tensor:
    if aggregator == "upgrad" and len(gram) == 2:
        return _weights(gram, "pcgrad") / 2
    if aggregator in CLOSED and len(gram) == 2:
        return CLOSED[aggregator](gram)
    name, options, extra = _WEIGHTINGS[aggregator]
    scale = gram.diagonal().max()
    if not scale > 0:
        return torch.ones(len(gram), dtype=torch.float64)
    weighting = _made(name, options, extra, len(gram))
    # The result does not depend on the scale; some of the methods have absolute tolerances.
    argument = gram / scale
    if aggregator == "nashmtl":
        # It asks for the gradients; any matrix with this Gram matrix has the same coefficients.
        values, vectors = torch.linalg.eigh(argument)
        argument = vectors * values.clamp(min=0).sqrt()
    # PCGrad draws an order, which two objectives do not have; the caller's generator stays as it is
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Nash-MTL solves each problem once, so that what a second solution costs does not matter.
        warnings.filterwarnings("ignore", message="You are solving a parameterized problem")
        return weighting(argument).double()


def _made(
    name: str, options: Mapping[str, Any], extra: str | None, size: int
) -> Callable[[Tensor], Tensor]:
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise UserError(
            "gradient surgery needs torchjd: install passgrad with the extra [train]"
        ) from error
    try:
        if name == "NashMTL":
            return aggregation.NashMTL(n_tasks=size, max_norm=0.0).weighting
        weighting: Callable[[Tensor], Tensor] = getattr(aggregation, name)(**options)
        return weighting
    except ImportError as error:
        raise UserError(
            f"{name.removesuffix('Weighting')} needs the extra torchjd[{extra}]: "
            f'pip install "torchjd[{extra}]"'
        ) from error


class RunningGram:
    r"""An exponentially weighted mean of estimated Gram matrices, with standard errors.

    The weight of an estimate halves with every ``half_life`` later ones. Estimates at successive
    steps come from fresh samples and are independent given the path, so that their spread gives the
    error of the mean: with weights w, :math:`v \sum w^2 / (\sum w)^2` and v the weighted variance.
    The drift of the true matrix over the window is a bias of the mean and adds to the spread.
    """

    def __init__(self, size: int = 2, half_life: float = 8.0) -> None:
        if not half_life > 0:
            raise UserError(f"half_life must be positive, got {half_life!r}")
        self.size, self.half_life = size, half_life
        self.reset()

    def reset(self) -> None:
        """Forget all estimates."""
        zero = torch.zeros(self.size, self.size, dtype=torch.float64)
        self.count = 0
        self._first, self._second = zero, zero.clone()
        self._weight = self._square = 0.0

    def update(self, gram: Tensor) -> None:
        """Take in one more estimate, (m, m)."""
        keep = 0.5 ** (1 / self.half_life)
        one = torch.as_tensor(gram, dtype=torch.float64)
        self._first = keep * self._first + one
        self._second = keep * self._second + one.square()
        self._weight = keep * self._weight + 1
        self._square = keep**2 * self._square + 1
        self.count += 1

    @property
    def mean(self) -> Tensor:
        """(m, m); zeros before the first estimate."""
        return self._first / max(self._weight, 1.0)

    @property
    def effective(self) -> float:
        """The number of equally weighted estimates with the same error."""
        return self._weight**2 / self._square if self.count else 0.0

    @property
    def error(self) -> Tensor:
        """Standard errors of the mean, (m, m); infinite before the second estimate."""
        if self.count < 2:
            return torch.full_like(self._first, math.inf)
        variance = (self._second / self._weight - self.mean.square()).clamp(min=0)
        # As for a sample variance, the mean has taken up part of the spread.
        return (variance / (self.effective - 1)).sqrt()

    def cosine(self, confidence: float = 0.975) -> float:
        """Of the first two objectives, from the means: nan until both squared norms exceed 0 by
        their one-sided bounds, and where the estimates contradict each other, a ratio beyond 1.
        A ratio of noise says nothing.
        """
        if self.count < 2:
            return math.nan
        mean, reach = self.mean, self.quantile(confidence) * self.error
        norms = mean.diagonal()[:2]
        if not (norms > reach.diagonal()[:2]).all():
            return math.nan
        ratio = float(mean[0, 1] / norms.prod().sqrt())
        return ratio if abs(ratio) <= 1 else math.nan

    def quantile(self, confidence: float) -> float:
        """By how many errors a one-sided bound of that confidence lies off the mean."""
        self.check_confidence(confidence)
        if self.count < 2:
            return math.inf
        from scipy.stats import t

        return float(t.ppf(confidence, self.effective - 1))

    @staticmethod
    def check_confidence(confidence: float) -> None:
        """Raise UserError for a confidence that :meth:`quantile` does not take."""
        if not 0.5 <= confidence < 1:
            raise UserError(f"confidence must lie in [0.5, 1), got {confidence!r}")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; numbers and lists only."""
        return {
            "count": self.count,
            "first": self._first.tolist(),
            "second": self._second.tolist(),
            "weight": self._weight,
            "square": self._square,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.count = int(state["count"])
        self._first = torch.tensor(state["first"], dtype=torch.float64)
        self._second = torch.tensor(state["second"], dtype=torch.float64)
        self._weight, self._square = float(state["weight"]), float(state["square"])
