r"""Passes with a model that is spread over processes: each holds a share of every parameter.

The share is that of torch's ``fully_shard`` (FSDP2): the whole of a layer exists while it is
computed, in one process as in all, and never the whole model. A vector of parameter space is spread
likewise, and no process has more of it than its share. The derivatives along one are central
differences: each process moves its share of the parameters by the same step along its share of the
vector, and what it takes beyond forward passes is the length of the vector, a sum over processes.

Attention to packed rows (:mod:`passgrad.lm.attention`) is the same as in one process. Forward mode
and :func:`torch.func.functional_call` are not to be had: layers gather their weights in hooks that
know nothing of either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from passgrad.errors import UserError
from passgrad.lm.central import Differences
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, Packed, packed_logprobs
from passgrad.lm.packing import Packs
from passgrad.lm.passes import CompletionPasses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class ShardedVector:
    """A vector of parameter space of which this process has a share of every parameter.

    ``parts``: by name, the rows of the parameter's gradient that lie here, float32 or float64.
    """

    parts: dict[str, Tensor]
    group: Processes

    def inner(self, other: ShardedVector) -> float:
        """The inner product, summed in float64; the same in every process."""
        if self.parts.keys() != other.parts.keys():
            raise UserError("two vectors of different parameters have no inner product")
        total = torch.zeros((), dtype=torch.float64)
        for name, part in self.parts.items():
            there = other.parts[name]
            total += torch.dot(part.flatten().double(), there.flatten().double()).cpu()
        return float(self.group.add(total))


def shard(model: PreTrainedModel, group: Processes) -> PreTrainedModel:
    """Spread the parameters of a model over the processes, in place: a unit for every block, and
    one for the rest, whose parameters exist in whole while they are used only.

    :raises UserError: If the process is alone.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if group.size == 1:
        raise UserError("one process has nobody to share a model with: start several with torchrun")
    mesh = init_device_mesh(group.device.type, (group.size,))
    names = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # The parameters of the root would stay whole, at the values before the next step, unless asked.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def load_sharded(
    place: str | Path, group: Processes, *, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A causal LM from the safetensors of a local folder, spread over the processes as it is read:
    each reads the rows that it keeps.

    :raises UserError: For a folder that lacks some of the weights, or names them otherwise than the
        model does.
    """
    from accelerate import init_empty_weights
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load
    from torch.distributed.checkpoint.api import CheckpointException
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    # Buffers are no part of the files: they are computed here.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # Tied matrices come apart whenever parameters are made anew. They stand once in the files.
    model.tie_weights()
    shard(model, group).to_empty(device=group.device)
    model.tie_weights()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with group.in_step():
        try:
            load(state, storage_reader=HuggingFaceStorageReader(str(place)))
        except (CheckpointException, OSError, ValueError) as error:
            line = str(error).strip().splitlines()[-1][:160]
            raise UserError(
                f"the weights in {place} cannot be read a share at a time ({line}); "
                "save them as safetensors under the names of the model's parameters"
            ) from error
    return model.eval()


class ShardedPasses(CompletionPasses):
    """:class:`CompletionPasses` of a model that :func:`shard` has spread over the processes.

    A gradient is a :class:`ShardedVector`, in float32 at least, and derivatives along one are
    central differences. Every process computes some of the packed rows; all take the same number of
    forward passes, since a layer is gathered from all of them, and one that has no row left repeats
    one for nothing.

    :raises UserError: As :class:`CompletionPasses`, and for parameters in less than float32.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        completions: Completions,
        rewards: Any,
        masses: Any = None,
        *,
        group: Processes,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        packed: Packs = "auto",
    ) -> None:
        self.group = group
        coarse = {str(p.dtype) for p in model.parameters() if p.dtype.itemsize < 4}
        if coarse:
            raise UserError(
                f"central differences cannot move weights in {', '.join(sorted(coarse))}: "
                "load the sharded model in float32"
            )
        if not any(p.requires_grad for p in model.parameters()):
            # Gathered parameters are made with the first forward pass, and stay as they are then.
            model.requires_grad_(True)
        with group.in_step():
            super().__init__(
                model, completions, rewards, masses, token_budget=token_budget, packed=packed
            )

    def gradient(self, coefficients: Any) -> ShardedVector:  # type: ignore[override]
        """sum_i c_i grad log pi(y_i | x) for (M, n) coefficients."""
        weights = self.completions.gather(torch.as_tensor(coefficients))
        if not weights.isfinite().all():
            raise UserError("a coefficient is not finite; give (M, n) numbers")
        named = self._sharded()
        # What a caller has there stays.
        before = {name: parameter.grad for name, parameter in named.items()}
        for parameter in named.values():
            parameter.grad = None
        with self.group.in_step(), torch.enable_grad():
            for row, counts in self._turns(weights.nonzero()[:, 0].tolist()):
                values = packed_logprobs(self.model, row).double()
                own = weights[list(row.members)].to(values.device)
                # Gradients are averaged over the processes. A row that is repeated counts nothing.
                (self.group.size * counts * (own @ values)).backward()
        parts = {}
        for name, parameter in named.items():
            grad, parameter.grad = parameter.grad, before[name]
            parts[name] = torch.zeros_like(_local(parameter)) if grad is None else _local(grad)
        return ShardedVector(parts, self.group)

    def _named(self, vector: Any) -> dict[str, Tensor]:
        if not isinstance(vector, ShardedVector):
            raise UserError("a sharded model takes sharded vectors, as its gradient is one")
        mine = {name: share.shape for name, share in self._moved().items()}
        if {name: part.shape for name, part in vector.parts.items()} != mine:
            raise UserError("the vector is not one of this model's parameters, or shared otherwise")
        return vector.parts

    def _prefers_central(self) -> bool:
        return True

    def _forward(self, directions: Mapping[str, Tensor], members: Sequence[int]) -> Tensor:
        if not members:
            return self._placed([], torch.empty(0))
        raise UserError(
            "a sharded model has derivatives by central differences only, and along this vector "
            "they do not settle: use method='central', or a model that fits one device"
        )

    def _scores(self, members: Sequence[int]) -> Tensor:
        held = torch.zeros(len(self.completions.sequences), dtype=torch.float64)
        _reshard(self.model)
        with self.group.in_step():
            for row, counts in self._turns(members):
                values = packed_logprobs(self.model, row).double().cpu()
                if counts:
                    held[list(row.members)] = values
        return self._placed(members, self.group.add(held)[list(members)])

    def _differences(self, *given: Any, **options: Any) -> Differences | None:
        try:
            return super()._differences(
                *given, norm=self._length, agree=self.group.agree, **options
            )
        finally:
            _reshard(self.model)

    def _moved(self) -> dict[str, Tensor]:
        return {name: _local(parameter) for name, parameter in self._sharded().items()}

    def _sharded(self) -> dict[str, nn.Parameter]:
        """The parameters with a share here each."""
        _reshard(self.model)
        return self.layout.parameters(self.model)

    def _length(self, shares: Mapping[str, Tensor]) -> float:
        """The length of a vector from the shares of all processes."""
        here = sum(float(torch.linalg.vector_norm(one)) ** 2 for one in shares.values())
        return math.sqrt(float(self.group.add(torch.tensor(here, dtype=torch.float64))))

    def _turns(self, members: Sequence[int]) -> list[tuple[Packed, bool]]:
        """The rows of this process, as many as every other has, and whether they count.

        Rows of a turn are of about the same length, since all wait for the longest.
        """
        rows = sorted(self.rows(members), key=lambda row: -row.num_tokens)
        size, rank = self.group.size, self.group.rank
        turns = range(0, len(rows), size)
        return [(rows[min(i + rank, len(rows) - 1)], i + rank < len(rows)) for i in turns]


def _reshard(model: nn.Module) -> None:
    """Drop whole parameters; the next pass gathers them anew.

    The outermost unit keeps its own behind a forward pass unless told otherwise, and they would not
    move with the shares.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _local(tensor: Tensor) -> Tensor:
    """What of a parameter lies in this process, sharing its memory."""
    from torch.distributed.tensor import DTensor

    plain = tensor.detach()
    return plain.to_local() if isinstance(plain, DTensor) else plain


def parameter_bytes(model: nn.Module) -> int:
    """How much of the model's parameters this process holds, in bytes."""
    return sum(_local(p).numel() * p.element_size() for p in model.parameters())
