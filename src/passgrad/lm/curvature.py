r"""Second derivatives of log-probabilities along one vector of parameter space.

.. math:: v^\top \nabla^2 \log \pi(y_i \mid x_i) \, v
          = \frac{d^2}{d\eta^2} \log \pi_{\theta + \eta v}(y_i \mid x_i) \Big|_{\eta = 0}

for every completion, without a second derivative in any other direction. Exactly, by forward mode
over forward mode, or from three log-probabilities,

.. math:: \frac{f_i(\theta + h v) - 2 f_i(\theta) + f_i(\theta - h v)}{h^2} + O(h^2).

Rounding enters over h^2 here, and over h in a first derivative (:mod:`passgrad.lm.central`): the
step has to be longer. The scale to begin with is known, since the slopes are: h such that a
log-probability changes by a tenth. From there h is halved or doubled until two steps that differ by
a factor of two agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from passgrad.errors import UserError
from passgrad.lm.central import Displacement, relative_change, search
from passgrad.lm.directional import no_forward_mode, plain_operations
from passgrad.lm.logprobs import packed_logprobs
from passgrad.lm.passes import CompletionPasses

CurvatureMethod = Literal["auto", "forward", "central"]

#: the change of a log-probability at the step that is tried first, root mean square
START: Final = 0.1
#: two steps agree when their derivatives differ by this share of their length
TOLERANCE: Final = 1e-2
#: "auto" leaves forward mode where differences on a few completions differ by more than this share
LIMIT: Final = 0.1
_REACH = 8  # halvings or doublings of the first step
_PILOT, _CHECKED = 1024, 256  # tokens on which the step is chosen, and forward mode checked


@dataclass(frozen=True, eq=False)
class Curvatures:
    """(M, n) second derivatives, nan where none was asked for, and how they were found.

    ``step`` and ``error`` are of central differences: h, and how much the derivatives of the pilot
    change from 2 h to h, as a share of their length. 0 in forward mode.
    """

    values: Tensor
    method: Literal["forward", "central"]
    step: float
    error: float


def curvatures(
    passes: CompletionPasses,
    vector: Any,
    slopes: Tensor,
    where: Tensor | None = None,
    method: CurvatureMethod = "auto",
) -> Curvatures:
    """The second derivative of each log-probability along the vector.

    :param vector: v, as of :meth:`CompletionPasses.gradient`.
    :param slopes: (M, n), the first derivatives along it, as of
        :meth:`CompletionPasses.directional`: they set the scale of a step.
    :param where: (M, n) bool; the other completions are nan.
    :param method: "forward" is exact up to the arithmetic of the model, and needs forward
        derivatives of forward derivatives of all its operations. "central" takes three evaluations
        and the choice of a step, in float32 or better. "auto" is "forward" where the model can and
        differences on a few completions agree with it.
    :raises UserError: For an unknown method, a vector of another length or not finite, and
        differences that do not settle.
    """
    if method not in get_args(CurvatureMethod):
        known = ", ".join(get_args(CurvatureMethod))
        raise UserError(f"unknown method {method!r}; the methods are {known}")
    passes.directions(vector)  # raises if it is none of this model
    if not passes.completions.chosen(where):
        return Curvatures(torch.full(passes.completions.shape, torch.nan).double(), "forward", 0, 0)
    if method == "central" or (method == "auto" and not passes.nested_forward_mode):
        return _central(passes, vector, slopes, where)
    try:
        exact = Curvatures(_forward(passes, vector, where), "forward", 0.0, 0.0)
    except (NotImplementedError, RuntimeError) as error:
        if method == "forward":
            raise
        no_forward_mode(passes.model, error)
        return _central(passes, vector, slopes, where)
    if method == "auto" and passes.layout.dtype.itemsize >= 4:
        pilot = _pilot(passes, where, _CHECKED)
        near = _central(passes, vector, slopes, pilot).values[pilot]
        away = float((exact.values[pilot] - near).norm())
        if not away <= LIMIT * float(near.norm()):
            return _central(passes, vector, slopes, where)
    return exact


def _forward(passes: CompletionPasses, vector: Tensor, where: Tensor | None) -> Tensor:
    model, layout = passes.model, passes.layout
    named = {name: one.detach() for name, one in layout.parameters(model).items()}
    v = {name: one.to(named[name]) for name, one in layout.views(vector.detach()).items()}
    bends = torch.full((len(passes.completions.sequences),), torch.nan, dtype=torch.float64)
    with torch.no_grad(), plain_operations(model), Composed():
        for row in passes.rows(passes.completions.chosen(where)):
            function = partial(packed_logprobs, model, row)

            def slope(at: dict[str, Tensor], function: Callable = function) -> Tensor:
                return torch.func.jvp(function, (at,), (v,))[1]

            bend = torch.func.jvp(slope, (named,), (v,))[1]
            bends[list(row.members)] = bend.double().cpu()
    return passes.spread(bends, where)


class Composed(TorchFunctionMode):
    """Within it, some operations are written out: their fused derivatives have no forward
    derivative, or (layer_norm in torch 2.13) a wrong one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.silu:
            return _silu(*args, **kwargs)
        if func is nn.functional.gelu:
            return _gelu(*args, **kwargs)
        if func is nn.functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    return x * torch.sigmoid(x)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _pilot(passes: CompletionPasses, where: Tensor | None, num_tokens: int) -> Tensor:
    """Some of the completions of ``where``, (M, n) bool, of about so many tokens."""
    some = passes.completions.sample(passes.completions.chosen(where), num_tokens)
    pilot = torch.isin(passes.completions.places, torch.tensor(some))
    return pilot if where is None else pilot & where


def _central(
    passes: CompletionPasses, vector: Any, slopes: Tensor, where: Tensor | None
) -> Curvatures:
    if passes.layout.dtype.itemsize < 4:
        raise UserError(
            f"second differences of a model in {passes.layout.dtype} are lost in its rounding; "
            "load the model in float32"
        )
    every = torch.ones(passes.completions.shape, dtype=torch.bool) if where is None else where
    size = float(slopes[every].square().mean().sqrt())
    if not size > 0:
        return Curvatures(torch.where(every, 0.0, torch.nan).double(), "central", 0.0, 0.0)
    pilot = _pilot(passes, every, _PILOT)
    with Displacement(passes.moved(), passes.directions(vector)) as moved:

        def at(step: float, some: Tensor) -> Tensor:
            moved.to(step)
            return passes.logprobs(some)[some]

        def second(halvings: int, some: Tensor, middle: Tensor) -> Tensor:
            step = START / size * 2.0**-halvings
            return ((at(step, some) - middle) - (middle - at(-step, some))) / step**2

        middle = at(0.0, pilot)
        tried: dict[int, Tensor] = {}

        def disagreement(halvings: int) -> float:
            for i in (halvings, halvings + 1):
                if i not in tried:
                    tried[i] = second(i, pilot, middle)
            return relative_change(tried[halvings], tried[halvings + 1])

        best, error = search(disagreement, TOLERANCE, _REACH)
        if not math.isfinite(error):
            raise UserError(
                "second differences along this vector are not finite; use method='forward'"
            )
        # The shorter step of the two bends four times less; where rounding is what is left, the
        # search ended at steps where both are small.
        values = torch.full(every.shape, torch.nan, dtype=torch.float64)
        values[every] = second(best + 1, every, at(0.0, every))
        step = START / size * 2.0 ** -(best + 1)
    return Curvatures(values, "central", step, error)
