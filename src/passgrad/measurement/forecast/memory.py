"""What a measurement holds on a device, by stage, for a model that need not be there.

Weights, vectors and copies follow from the number of parameters; what a packed row makes on its way
forward and backward is counted with fake tensors (:mod:`passgrad.measurement.forecast.live`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.attention import carries_state
from passgrad.lm.completions import Completions
from passgrad.lm.curvature import Composed
from passgrad.lm.directional import forward_mode, plain_operations
from passgrad.lm.head import tied_output
from passgrad.lm.logprobs import Packed, join, packed_logprobs
from passgrad.lm.passes import SMALL
from passgrad.measurement.forecast.live import fake_model, most_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Bytes of the vectors of gradients: they are in float32 whatever the weights are in.
_VECTOR = 4
# Rows of fewer tokens save hardly any memory more.
_SMALL_BUDGET = 256


@dataclass(frozen=True)
class Setting:
    """What memory depends on."""

    dtype: str
    token_budget: int
    shards: int
    parts: bool
    step: bool

    def __str__(self) -> str:
        """As options of the command."""
        made = [f"--dtype {self.dtype}", f"--token-budget {self.token_budget}"]
        if self.shards > 1:
            made.append(f"--shard under torchrun with {self.shards} processes")
        if not self.parts and self.shards == 1:
            made.append("--no-parts")
        if not self.step:
            made.append("--no-step")
        return " ".join(made)


class Sizes:
    """The bytes that a model of a configuration takes on each device.

    :param completions: Those that it passes over, or some that are as long.
    :raises UserError: For a model whose passes depend on numbers, which fake tensors lack.
    """

    def __init__(self, config: Any, completions: Completions) -> None:
        self.config, self.completions = config, completions
        self._model = cache(partial(fake_model, config))
        self._rows = cache(self._longest)
        self._counted = cache(self._count)
        model = self._model(torch.float32)[1]
        self.parameters = sum(one.numel() for one in model.parameters())
        blocks, self._root = _units(model)
        self._block = max(blocks, default=0)
        tied = tied_output(model)
        self._use = dict(model.named_parameters())[tied].numel() if tied else 0

    @property
    def model(self) -> PreTrainedModel:
        """The model without numbers."""
        return self._model(torch.float32)[1]

    def rows(self, members: Sequence[int], budget: int) -> list[Packed]:
        """The rows of these sequences, as the passes will have them."""
        if carries_state(self.model):
            return self.completions.rows(members, packed=False)
        return join(self.model, self.completions.rows(members, token_budget=budget), budget)

    def stages(self, setting: Setting) -> dict[str, int]:
        """The most bytes on a device in each stage of the passes."""
        dtype: torch.dtype = getattr(torch, setting.dtype)
        size, shards = dtype.itemsize, setting.shards
        weights = self.parameters * size // shards
        vector = self.parameters * _VECTOR // shards
        count = partial(self._counted, dtype, setting.token_budget)
        # Gathered: the unit of the rest and two blocks; backward, their gradients and a buffer.
        whole = (self._root + 2 * self._block) * size if shards > 1 else 0
        central = dtype == torch.float32 and (self.parameters > SMALL or shards > 1)
        if central:
            along = weights + count("forward")
        else:
            tangents = self.parameters * size if size < _VECTOR and shards == 1 else 0
            along = tangents + whole + count("along")
        made = {
            "gradient": weights + vector + whole + 2 * whole + count("gradient"),
            "derivatives": weights + vector + whole + along,
        }
        if setting.parts and shards == 1:
            # Beside a gradient that of the output layer's use of a tied matrix, as it is added up.
            vectors = _VECTOR * (self.parameters + 2 * self._use)
            made["parts"] = weights + vectors + count("gradient")
        if setting.step:
            bend = weights + count("forward")
            if shards == 1:
                bend = max(bend if size >= _VECTOR else 0, count("bend"))
            made["step"] = weights + vector + whole + bend
        return made

    def peak(self, setting: Setting) -> int:
        """The most of all stages."""
        return max(self.stages(setting).values())

    def least_budget(self) -> int:
        """The tokens of the longest sequence, below which no budget goes."""
        return max(len(one.prefix) + len(one.target) - 1 for one in self.completions.sequences)

    def alternative(self, setting: Setting, room: int, most: int = 64) -> Setting | None:
        """A setting that fits into so many bytes, as near as possible to this one."""
        least = min(setting.token_budget, max(self.least_budget(), _SMALL_BUDGET))
        plain = replace(setting, parts=False)
        small = replace(plain, token_budget=least)
        tried = [replace(setting, token_budget=least), plain, small]
        for dtype in ("float32", "bfloat16"):
            tried += [replace(small, dtype=dtype), replace(small, dtype=dtype, step=False)]
        shards = 2 * setting.shards
        while shards <= most:
            for dtype in (setting.dtype, "bfloat16"):
                some = replace(small, shards=shards, dtype=dtype)
                tried += [some, replace(some, step=False)]
            shards *= 2
        return next(
            (
                one for one in dict.fromkeys(tried)
                if one != setting and self.least(one) <= room and self.peak(one) <= room
            ),
            None,
        )  # fmt: skip

    def least(self, setting: Setting) -> int:
        """Below the peak, and known at once: weights and a vector."""
        size = getattr(torch, setting.dtype).itemsize
        return self.parameters * (size + _VECTOR) // setting.shards

    def _longest(self, budget: int) -> list[Packed]:
        """The rows that take most: of tokens, and of tokens with logits."""
        rows = self.rows(range(len(self.completions.sequences)), budget)
        longest = max(rows, key=lambda one: one.num_tokens)
        most = max(rows, key=lambda one: len(one.targets))
        return [longest] if longest is most else [longest, most]

    def _count(self, dtype: torch.dtype, budget: int, what: str) -> int:
        mode, model = self._model(dtype)
        work = {"gradient": _gradient, "forward": _scored, "along": _along, "bend": _bent}[what]
        try:
            return max(most_bytes(mode, partial(work, model, row)) for row in self._rows(budget))
        except (RuntimeError, NotImplementedError) as error:
            line = " ".join(str(error).split())[:120] or type(error).__name__
            if what == "bend":  # it is done by differences then
                return 0
            raise UserError(
                f"{type(model).__name__} cannot be forecast, since what it computes depends on "
                f"numbers ({line}): measure a few prompts, and see what they take"
            ) from error


def _named(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: one.detach() for name, one in model.named_parameters()}


def _gradient(model: PreTrainedModel, row: Packed) -> None:
    """Forward and backward; a gradient is added to a vector that is there, and dropped."""
    leaves = {name: one.requires_grad_() for name, one in _named(model).items()}
    for leaf in leaves.values():
        leaf.register_post_accumulate_grad_hook(_drop)
    packed_logprobs(model, row, leaves).double().sum().backward()


def _drop(leaf: Tensor) -> None:
    leaf.grad = None


def _scored(model: PreTrainedModel, row: Packed) -> None:
    with torch.no_grad():
        packed_logprobs(model, row)


def _along(model: PreTrainedModel, row: Packed) -> None:
    named = _named(model)
    with plain_operations(model):
        forward_mode(partial(packed_logprobs, model, row), named, named)


def _bent(model: PreTrainedModel, row: Packed) -> None:
    named = _named(model)

    def slope(at: dict[str, Tensor]) -> Tensor:
        return torch.func.jvp(partial(packed_logprobs, model, row), (at,), (named,))[1]

    with torch.no_grad(), plain_operations(model), Composed():
        torch.func.jvp(slope, (named,), (named,))


def _units(model: PreTrainedModel) -> tuple[Sequence[int], int]:
    """Parameters of each block, and those outside of them."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [
        sum(one.numel() for one in module.parameters())
        for module in model.modules()
        if type(module).__name__ in names
    ]
    return blocks, sum(one.numel() for one in model.parameters()) - sum(blocks)
