r"""Derivatives along a vector by central differences.

.. math:: \langle \nabla f_i(\theta), v \rangle
          = \frac{f_i(\theta + h v) - f_i(\theta - h v)}{2 h} + O(h^2)

for many functions at once costs two evaluations of each and asks nothing of the model: any
attention, any kernel. The price is a choice of h. Too long, and the landscape bends, which it does
sharply along a gradient; too short, and the rounding of float32 is all that is left. So h is
searched for on a few of the functions: it is halved while that helps and doubled where that does,
until two steps that differ by a factor of two agree.

Weights are rounded too, and entries of h v below half of the last place of a weight would all be
lost, which makes every derivative too small: by 0.1 % at steps of use. So moved weights are rounded
up or down at random, with probabilities that keep their mean. What that adds points nowhere, and in
many dimensions is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from passgrad.errors import UserError

#: where the search begins: the displacement ||h v|| over ||theta||
START = 2e-6
#: two steps agree when their derivatives differ by this share of their length
TOLERANCE = 1e-3
# Of START: twelve halvings or doublings, a factor of 4,000.
_REACH = 12
# So many more bits of a number float64 holds; so many weights are moved at a time.
_SPARE_BITS, _CHUNK = {torch.float32: 29, torch.bfloat16: 45}, 2**19


_MOVABLE = {"torch.float64", *map(str, _SPARE_BITS)}


class Displacement:
    r"""Parameters moved to :math:`\theta + h v` in place, and put back bit for bit at the end,
    whatever happens between.

    Holds one copy of the parameters that move. Those without a direction stay.

    :raises UserError: For parameters in float16.
    """

    def __init__(self, parameters: Mapping[str, Tensor], directions: Mapping[str, Tensor]) -> None:
        others = {str(p.dtype) for p in parameters.values()} - _MOVABLE
        if others:
            raise UserError(
                f"weights in {', '.join(sorted(others))} cannot be moved by a small step; "
                "load the model in float32 or bfloat16"
            )
        self._moved = [(parameters[name].detach(), v) for name, v in directions.items()]
        self._saved: list[Tensor] = []
        #: h, where the parameters are now
        self.step = 0.0

    def __enter__(self) -> Self:
        self._saved = [parameter.clone() for parameter, _ in self._moved]
        return self

    @torch.no_grad()
    def to(self, step: float) -> None:
        """Move to theta + step v, from wherever the parameters are now."""
        if step == self.step:
            return
        for (parameter, v), saved in zip(self._moved, self._saved, strict=True):
            if parameter.dtype in _SPARE_BITS:
                _move_and_round(parameter, saved, v, step)
            else:
                torch.add(saved, v.to(saved), alpha=step, out=parameter)
        self.step = step

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for (parameter, _), saved in zip(self._moved, self._saved, strict=True):
            parameter.copy_(saved)
        self._saved, self.step = [], 0.0


def _move_and_round(parameter: Tensor, saved: Tensor, v: Tensor, step: float) -> None:
    """Write saved + step v into weights, rounded at random without bias.

    A random number is added to the bits that the weights do not have, and the sum is cut: it
    carries into the last place as often as those bits say. Weights that do not move stay exactly.
    """
    spare = _SPARE_BITS[parameter.dtype]
    bits = _random_bits(parameter.device, spare)
    scratch = torch.empty(len(bits), dtype=torch.float64, device=parameter.device)
    flat, origin, along = (x.reshape(-1) for x in (parameter, saved, v.to(saved.device)))
    for target, start, part in zip(
        flat.split(_CHUNK), origin.split(_CHUNK), along.split(_CHUNK), strict=True
    ):
        exact = scratch[: len(part)]
        exact.copy_(start).add_(part, alpha=step)
        exact.view(torch.int64).add_(bits[: len(part)]).bitwise_and_(-(1 << spare))
        target.copy_(exact)
    if flat.data_ptr() != parameter.data_ptr():  # not contiguous: reshape made a copy
        parameter.copy_(flat.view(parameter.shape))


@lru_cache(maxsize=4)
def _random_bits(device: torch.device, spare: int) -> Tensor:
    """Always the same; each chunk of weights uses them again."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1 << spare, (_CHUNK,), generator=generator).to(device)


@dataclass(frozen=True)
class Differences:
    """Derivatives along a vector, and how far they can be trusted.

    ``slopes``: one for each function, float64. ``step``: h. ``error``: how much the derivatives of
    the pilot change from step 2 h to h, as a share of their length; where the bend of the landscape
    is what is left, those at h are three times closer to the truth than that.
    """

    slopes: Tensor
    step: float
    error: float


def length(tensors: Mapping[str, Tensor]) -> float:
    """The length of the whole vector. In float32 it may be off by some percent for 10^8 numbers,
    which a step to start from bears.
    """
    return math.hypot(*(float(torch.linalg.vector_norm(t.detach())) for t in tensors.values()))


def central_differences(
    evaluate: Callable[[Sequence[int]], Tensor],
    count: int,
    parameters: Mapping[str, Tensor],
    directions: Mapping[str, Tensor],
    *,
    pilot: Sequence[int],
    tolerance: float = TOLERANCE,
    limit: float = math.inf,
    norm: Callable[[Mapping[str, Tensor]], float] = length,
    agree: Callable[[float], float] = float,
) -> Differences | None:
    r""":math:`\langle \nabla f_i, v \rangle` for i = 0..count - 1.

    Two evaluations of each function, and two of the pilot for every further step that is tried (one
    as a rule).

    :param evaluate: ``evaluate(places)`` gives f_i for these i at what the parameters now are.
    :param directions: v by name; parameters that it does not name stay.
    :param pilot: The functions on which the step is chosen.
    :param tolerance: Two steps agree when the derivatives differ by this share of their length.
    :param limit: Give up, with None, when no two steps agree this far.
    :param norm: The length of parameters and of a vector, where these tensors are only the share of
        one process of several.
    :param agree: The number that all processes go on with, for what each of them found, so that
        they take the same steps. ``evaluate`` must give all of them the same values.
    :raises UserError: For parameters in less than float32, whose arithmetic is all that two values
        so close to each other differ by; a vector that is not finite; no pilot.
    """
    coarse = {str(p.dtype) for p in parameters.values() if p.dtype.itemsize < 4}
    if coarse:
        raise UserError(
            f"central differences of a model in {', '.join(sorted(coarse))} are lost in its "
            "rounding; use method='forward', or load the model in float32"
        )
    moved = {name: parameters[name] for name in directions}
    along, size = agree(norm(directions)), agree(norm(moved))
    if not math.isfinite(along):
        raise UserError("the vector to differentiate along has entries that are not finite")
    if not pilot:
        raise UserError("no pilot to choose the step on; name at least one function")
    with Displacement(moved, directions) as displaced:
        if along == 0:
            return Differences(torch.zeros(count, dtype=torch.float64), 0.0, 0.0)
        unit = START * (size or 1.0) / along

        def slopes(places: Sequence[int], step: float) -> Tensor:
            # Begin at the end where the weights are, if they are there: each move takes its time.
            first = -step if displaced.step == -step else step
            displaced.to(first)
            one = evaluate(places)
            displaced.to(-first)
            return (one - evaluate(places)).double().cpu() / (2 * first)

        tried: dict[int, Tensor] = {}

        def disagreement(halvings: int) -> float:
            for i in (halvings, halvings + 1):
                if i not in tried:
                    tried[i] = slopes(pilot, unit * 2.0**-i)
            return agree(relative_change(tried[halvings], tried[halvings + 1]))

        best, error = search(disagreement, tolerance)
        if not error <= limit:
            return None
        # The shorter of two steps that agree: right whether the longer one still bends or both are
        # at the mercy of rounding.
        step = unit * 2.0 ** -(best + 1)
        result = torch.empty(count, dtype=torch.float64)
        result[list(pilot)] = tried[best + 1]
        known = set(pilot)
        rest = [i for i in range(count) if i not in known]
        if rest:
            result[rest] = slopes(rest, step)
    return Differences(result, step, error)


def search(
    disagreement: Callable[[int], float], tolerance: float, reach: int = _REACH
) -> tuple[int, float]:
    """The number of halvings of the first step (negative: doublings) behind which one more changes
    least, and the change; the first that is within ``tolerance``.
    """
    best, error = 0, disagreement(0)
    for direction in (1, -1):
        while error > tolerance and abs(best) < reach:
            other = disagreement(best + direction)
            if not other < error:
                break
            best, error = best + direction, other
    return best, error


def relative_change(longer: Tensor, shorter: Tensor) -> float:
    """How much the derivatives of one step differ from those of another, as a share of the latter's
    length; infinite where only the latter are zero.
    """
    change, scale = float((longer - shorter).norm()), float(shorter.norm())
    if change == 0:
        return 0.0
    return change / scale if scale > 0 else math.inf
