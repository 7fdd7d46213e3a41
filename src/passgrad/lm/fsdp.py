r"""Passes with a model that is spread over processes: each holds a share of every parameter.

The share is that of torch's ``fully_shard`` (FSDP2): the whole of a layer exists while it is
computed, in one process as in all, and never the whole model. A vector of parameter space is spread
likewise, and no process has more of it than its share. The derivatives along one are central
differences: each process moves its share of the parameters by the same step along its share of the
vector, and what it takes beyond forward passes is the length of the vector, a sum over processes.

In bfloat16 differences drown in rounding. There the derivatives are those of forward mode: when a
unit has gathered its weights it gathers the vector too, and the two together are the dual numbers
that its forward pass computes with. A gradient is added up in float32, row by row.

Attention to packed rows (:mod:`passgrad.lm.attention`) is the same as in one process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from passgrad.errors import UserError
from passgrad.lm.central import Differences
from passgrad.lm.completions import Completions
from passgrad.lm.directional import has_experts, plain_operations
from passgrad.lm.distributed import Processes
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, Packed, packed_logprobs
from passgrad.lm.models.loading import with_caps
from passgrad.lm.packing import Packs
from passgrad.lm.passes import CompletionPasses, squares

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
    with_caps(model)
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

    A gradient is a :class:`ShardedVector`, in float32 at least. Derivatives along one are central
    differences in float32, and those of forward mode in less. Every process computes some of the
    packed rows; all take the same number of passes, since a layer is gathered from all of them, and
    one that has no row left repeats one for nothing.

    :raises UserError: As :class:`CompletionPasses`.
    """

    nested_forward_mode = False

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
        total = {
            name: torch.zeros_like(share, dtype=torch.promote_types(share.dtype, torch.float32))
            for name, share in self.moved().items()
        }
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
                for name, parameter in named.items():
                    if parameter.grad is not None:
                        total[name] += _local(parameter.grad)
                        parameter.grad = None
        for name, parameter in named.items():
            parameter.grad = before[name]
        return ShardedVector(total, self.group)

    def directions(self, vector: Any) -> dict[str, Tensor]:
        if not isinstance(vector, ShardedVector):
            raise UserError("a sharded model takes sharded vectors, as its gradient is one")
        mine = {name: share.shape for name, share in self.moved().items()}
        if {name: part.shape for name, part in vector.parts.items()} != mine:
            raise UserError("the vector is not one of this model's parameters, or shared otherwise")
        return vector.parts

    def prefers_central(self) -> bool:
        return self._dtype.itemsize >= 4 and not has_experts(self.model)

    def _forward(self, directions: Mapping[str, Tensor], members: Sequence[int]) -> Tensor:
        held = torch.zeros(len(self.completions.sequences), dtype=torch.float64)
        _reshard(self.model)
        with (
            self.group.in_step(), torch.no_grad(), plain_operations(self.model), dual_level(),
            _duals(self.model, self._sharded(), directions),
        ):  # fmt: skip
            for row, counts in self._turns(members):
                slopes = unpack_dual(packed_logprobs(self.model, row)).tangent
                if counts and slopes is not None:
                    held[list(row.members)] = slopes.cpu().double()
        return self._placed(members, self.group.add(held)[list(members)])

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

    def moved(self) -> dict[str, Tensor]:
        return {name: _local(parameter) for name, parameter in self._sharded().items()}

    def _sharded(self) -> dict[str, nn.Parameter]:
        """The parameters with a share here each."""
        _reshard(self.model)
        return self.layout.parameters(self.model)

    def _length(self, shares: Mapping[str, Tensor]) -> float:
        """The length of a vector from the shares of all processes."""
        return math.sqrt(float(self.group.add(torch.tensor(squares(shares), dtype=torch.float64))))

    def _turns(self, members: Sequence[int]) -> list[tuple[Packed, bool]]:
        """The rows of this process, as many as every other has, and whether they count.

        Rows of a turn are of about the same length, since all wait for the longest.
        """
        rows = sorted(self.rows(members), key=lambda row: -row.num_tokens)
        size, rank = self.group.size, self.group.rank
        turns = range(0, len(rows), size)
        return [(rows[min(i + rank, len(rows) - 1)], i + rank < len(rows)) for i in turns]


@contextmanager
def _duals(
    model: nn.Module, named: Mapping[str, nn.Parameter], directions: Mapping[str, Tensor]
) -> Iterator[None]:
    """Within it, each unit of the model computes with dual numbers of its weights along the vector:
    it gathers the vector as it gathers the weights, and drops both.
    """
    along = {id(named[name]): _like(named[name], share) for name, share in directions.items()}
    handles = []
    for unit, modules in _units(model):
        places = tuple(
            (module, name, along[id(parameter)])
            for module in modules
            for name, parameter in module._parameters.items()
            if id(parameter) in along
        )

        # Runs behind the hook that gathers the weights. What drops them puts the shares back.
        def enter(module: nn.Module, inputs: Any, places: Any = places) -> None:
            made: dict[int, Tensor] = {}
            for owner, name, share in places:
                weight = owner._parameters[name]
                if id(share) not in made:
                    tangent = share.to(weight.dtype).full_tensor()
                    made[id(share)] = make_dual(weight.detach(), tangent)
                owner._parameters[name] = made[id(share)]

        handles.append(unit.register_forward_pre_hook(enter))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _reshard(model)


def _units(model: nn.Module) -> Iterator[tuple[Any, list[nn.Module]]]:
    """Each unit with the modules whose parameters it gathers."""
    from torch.distributed.fsdp import FSDPModule

    units = {name: one for name, one in model.named_modules() if isinstance(one, FSDPModule)}
    held: dict[str, list[nn.Module]] = {name: [] for name in units}
    for name, module in model.named_modules():
        parts = name.split(".") if name else []
        above = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
        held[next(place for place in above if place in units)].append(module)
    return ((units[name], modules) for name, modules in held.items())


def _like(parameter: nn.Parameter, share: Tensor) -> Any:
    """The tensor of the parameter's shape of which this is the share of this process."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor):
        raise UserError("a parameter is not spread over the processes: spread the whole model")
    return DTensor.from_local(
        share, parameter.device_mesh, parameter.placements,
        shape=parameter.shape, stride=parameter.stride(), run_check=False,
    )  # fmt: skip


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
