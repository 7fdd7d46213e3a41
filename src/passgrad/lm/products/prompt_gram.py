r"""The matrix of inner products of the policy gradients of many prompts, exact, in stated memory.

With coefficients :math:`c^{(l)}_{xi}` of the completions of prompt x and
:math:`u^{(l)}_x = \sum_i c^{(l)}_{xi} \nabla \log \pi(y_{xi} \mid x)`,

.. math:: K_{l l' x x'} = \langle u^{(l)}_x, u^{(l')}_{x'} \rangle

over all parameters. The product is a sum over parameters, so they are taken in blocks: the part of
every u in a block is computed and kept, multiplied, and dropped. A tied matrix is one parameter,
its gradient the sum over its uses.

Cost. However many l there are, the coefficients of a prompt have a small rank q: at most 2 for
advantages of binary rewards, which know right answers and wrong ones only, and 1 for centred ones.
So R vectors are needed, the sum of q over prompts. With F for a forward pass over the completions
that have coefficients and B blocks it is

.. math:: B \, F + B \, R / M \, (F + \text{the gradients of the weights of the block})

where one block is R / M training passes over the completions (3 F each, less the forward passes
they share). A block that lies in the upper layers stops its backward pass there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.logprobs import packed_logprobs
from passgrad.lm.passes import CompletionPasses
from passgrad.progress import Progress, Silent

_GIB = 2**30
#: of the largest singular value of a prompt's coefficients; what is below counts as rounding
_RANK = 1e-12
# The share of the memory in which gradients are converted to float64 to be multiplied.
_SCRATCH = 1 / 8
#: called with the prompts that are done and with all there are to do


class Keep(Protocol):
    """Reads numbers that are known for these inputs, or computes and stores them."""

    def __call__(self, name: str, *made_from: Tensor, compute: Callable[[], Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class Piece:
    """Entries ``start`` to ``stop`` of a flattened parameter."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class GramPlan:
    """What :func:`prompt_gram` is going to do.

    ``num_vectors``: R. ``blocks``: the pieces of parameters whose gradients are held at once.
    ``forward_passes`` and ``backward_passes`` are counted in prompts (a pass over the completions
    of one prompt is 1). ``peak_bytes``: gradients kept, gradients in the making, and the float64
    copy for the products, at most; model and activations come on top.
    """

    num_vectors: int
    blocks: tuple[tuple[Piece, ...], ...]
    forward_passes: int
    backward_passes: int
    peak_bytes: int
    chunk: int
    """Columns that are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class PromptGram:
    """``kernel``: K, (L, L, M, M) float64. ``parts``: the same by part of the parameters, which add
    up to it; one part without a name where none were asked for.
    """

    kernel: Tensor
    parts: dict[Any, Tensor]
    plan: GramPlan


@dataclass(frozen=True, eq=False)
class PromptVectors:
    """The vectors that all :math:`u^{(l)}_x` of a prompt are combinations of.

    ``prompts``: those with any coefficients. ``bases``: (q, n) coefficients for each. ``mix``:
    (L, M, R), which combination of the R vectors each u is.
    """

    prompts: tuple[int, ...]
    bases: tuple[Tensor, ...]
    mix: Tensor

    @classmethod
    def of(cls, passes: CompletionPasses, coefficients: Any) -> PromptVectors:
        """Those of (L, M, n) coefficients. Raises UserError for another shape."""
        given = torch.as_tensor(coefficients).detach().to("cpu", torch.float64)
        shape = passes.completions.shape
        if given.ndim != 3 or tuple(given.shape[1:]) != shape:
            raise UserError(
                f"coefficients of shape {tuple(given.shape)}; give (L, {shape[0]}, {shape[1]})"
            )
        if not given.isfinite().all():
            raise UserError("a coefficient is not finite; give (L, M, n) numbers")
        alive = [x for x in range(shape[0]) if given[:, x].any()]
        found = [spanning(given[:, x]) for x in alive]
        mix = given.new_zeros(len(given), shape[0], sum(len(basis) for basis, _ in found))
        first = 0
        for x, (basis, mixed) in zip(alive, found, strict=True):
            mix[:, x, first : first + len(basis)] = mixed
            first += len(basis)
        return cls(tuple(alive), tuple(basis for basis, _ in found), mix)

    def expand(self, products: Tensor) -> Tensor:
        """The products (..., R, R) of the vectors as those of all u: (..., L, L, M, M)."""
        count, num_prompts, size = self.mix.shape
        flat = self.mix.reshape(count * num_prompts, size)
        full = flat @ products @ flat.T
        shape = (count, num_prompts, count, num_prompts)
        return full.unflatten(-1, shape[2:]).unflatten(-3, shape[:2]).transpose(-3, -2)


def spanning(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """A basis (q, n) of the rows of (L, n) coefficients, and the (L, q) that makes them from it.

    The rows themselves where their rank is L, so that nothing is rounded.
    """
    columns, place = torch.unique(coefficients, dim=1, return_inverse=True)
    left, values, right = torch.linalg.svd(columns, full_matrices=False)
    rank = int((values > _RANK * values[0]).sum())
    if rank == len(coefficients):
        return coefficients, torch.eye(rank, dtype=coefficients.dtype)
    return right[:rank][:, place], left[:, :rank] * values[:rank]


def plan_gram(passes: CompletionPasses, coefficients: Any, *, memory_gib: float) -> GramPlan:
    """How many blocks, passes and bytes :func:`prompt_gram` would take; nothing is computed.

    Raises UserError where the limit does not even hold the gradient of one parameter, or one column
    of the matrix of gradients.
    """
    return _plan(passes, PromptVectors.of(passes, coefficients), memory_gib)


def prompt_gram(
    passes: CompletionPasses,
    coefficients: Any,
    *,
    memory_gib: float,
    parts: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> PromptGram:
    r""":math:`K_{l l' x x'} = \langle u^{(l)}_x, u^{(l')}_{x'} \rangle`, (L, L, M, M), summed in
    float64.

    :param coefficients: (L, M, n). A prompt without any has zeros and costs nothing.
    :param memory_gib: For all gradients that are held, :class:`GramPlan`; one block if all fit.
    :param parts: The part of each parameter, as :func:`passgrad.lm.groups.layers_of` and
        :func:`~passgrad.lm.groups.groups_of` give it; products by part cost no pass.
    :param keep: ``Kept(folder).tensor`` of :mod:`passgrad.measurement.store`, or the like: the
        products of each block are kept, and a run that was killed goes on at the next. What is kept
        depends on model and completions too: a folder is good for one of each.
    :param progress: Told of one stage, which advances after each prompt of each block.
    :raises UserError: For coefficients that do not fit, a limit that is too low, or a parameter
        without a part.
    """
    vectors = PromptVectors.of(passes, coefficients)
    plan = _plan(passes, vectors, memory_gib)
    of = dict.fromkeys(passes.layout.shapes) if parts is None else dict(parts)
    missing = [name for name in passes.layout.shapes if name not in of]
    if missing:
        raise UserError(f"no part is given for the parameter {missing[0]}; give one for each")
    labels = list(dict.fromkeys(of[name] for name in passes.layout.shapes))
    numbers = {name: number for number, name in enumerate(passes.layout.shapes)}
    given = torch.as_tensor(coefficients).double()
    total = torch.zeros(len(labels), plan.num_vectors, plan.num_vectors, dtype=torch.float64)
    progress = progress or Silent()
    progress.stage("products of the gradients of prompts", plan.forward_passes)
    computed: set[tuple[Piece, ...]] = set()
    for block in plan.blocks:

        def compute(block: tuple[Piece, ...] = block) -> Tensor:
            computed.add(block)
            places = [labels.index(of[piece.name]) for piece in block]
            return _products(passes, vectors, plan, block, places, len(labels), progress)

        if keep is None:
            total += compute()
        else:
            where = torch.tensor(
                [[numbers[p.name], p.start, p.stop, labels.index(of[p.name])] for p in block]
            )
            total += keep("gram", given, where, compute=compute)
            if block not in computed:
                progress.advance(len(vectors.prompts))
    expanded = vectors.expand(total)
    return PromptGram(expanded.sum(0), dict(zip(labels, expanded, strict=True)), plan)


def prompt_backwards(
    passes: CompletionPasses, x: int, basis: Tensor, names: Sequence[str]
) -> Iterator[tuple[int, str, Tensor]]:
    r"""Gradients of :math:`\sum_i b_{ji} \log \pi(y_{xi} | x)` for each row j of a basis (q, n),
    with respect to these parameters: (j, name, gradient), one for each packed row of the prompt,
    to be added up. One forward pass, and q backward passes.
    """
    places = passes.completions.places[x]
    weights = torch.zeros(len(basis), len(passes.completions.sequences), dtype=torch.float64)
    weights.index_add_(1, places, basis)
    leaves, named = {}, {}
    for name, parameter in passes.model.named_parameters():
        named[name] = parameter.detach()
        if name in names:
            leaves[name] = named[name] = parameter.detach().requires_grad_()
    with torch.enable_grad():
        for row in passes.rows(weights.any(0).nonzero()[:, 0].tolist()):
            values = packed_logprobs(passes.model, row, named).double()
            sums = weights[:, list(row.members)].to(values.device) @ values
            for j in range(len(basis)):
                made = torch.autograd.grad(
                    sums[j], list(leaves.values()), retain_graph=j + 1 < len(basis),
                    allow_unused=True,
                )  # fmt: skip
                gradients = list(zip(leaves, made, strict=True))
                del made
                while gradients:  # none is held when the next ones are made
                    name, gradient = gradients.pop()
                    if gradient is not None:
                        yield j, name, gradient
                    del gradient


def _products(
    passes: CompletionPasses,
    vectors: PromptVectors,
    plan: GramPlan,
    block: Sequence[Piece],
    places: Sequence[int],
    num_parts: int,
    progress: Progress,
) -> Tensor:
    """(parts, R, R) over one block."""
    dtype = torch.promote_types(passes.layout.dtype, torch.float32)
    device = passes.model.device
    held = {
        piece: torch.zeros(plan.num_vectors, piece.stop - piece.start, dtype=dtype, device=device)
        for piece in block
    }
    by_name: dict[str, list[Piece]] = {}
    for piece in block:
        by_name.setdefault(piece.name, []).append(piece)
    first = 0
    for x, basis in zip(vectors.prompts, vectors.bases, strict=True):
        for j, name, gradient in prompt_backwards(passes, x, basis, list(by_name)):
            for piece in by_name[name]:
                held[piece][first + j] += gradient.reshape(-1)[piece.start : piece.stop]
            del gradient
        first += len(basis)
        progress.advance()
    result = torch.zeros(num_parts, plan.num_vectors, plan.num_vectors, dtype=torch.float64)
    for piece, place in zip(block, places, strict=True):
        for columns in held.pop(piece).split(plan.chunk, dim=1):
            exact = columns.double()
            result[place] += (exact @ exact.T).cpu()
    return result


def _plan(passes: CompletionPasses, vectors: PromptVectors, memory_gib: float) -> GramPlan:
    if not memory_gib > 0:
        raise UserError(f"memory_gib is {memory_gib}; give a positive number of GiB")
    count = vectors.mix.shape[-1]
    limit = int(min(memory_gib * _GIB, 2**62))
    item = torch.promote_types(passes.layout.dtype, torch.float32).itemsize
    column = max(1, count) * item
    chunk = int(max(1, limit * _SCRATCH // (max(1, count) * 8)))
    chunk = min(chunk, passes.layout.num_parameters)
    scratch = max(1, count) * chunk * 8
    room = limit - scratch
    blocks: list[tuple[Piece, ...]] = []
    block: list[Piece] = []
    used = peak = 0
    for name, shape in passes.layout.shapes.items():
        size, start = math.prod(shape), 0
        # autograd hands over whole gradients of a parameter, whatever is kept of them.
        whole = size * passes.layout.dtype.itemsize
        while start < size:
            fits = (room - used - whole) // column
            if fits < 1:
                if not block:
                    least = (whole + column + max(1, count) * 8) / (1 - _SCRATCH) / _GIB
                    raise UserError(
                        f"memory_gib is {memory_gib:g}, too little for the gradient of {name}: "
                        f"give at least {least:.2g}"
                    )
                blocks.append(tuple(block))
                block, used = [], 0
                continue
            stop = min(size, start + fits)
            block.append(Piece(name, start, stop))
            used += whole + (stop - start) * column
            peak = max(peak, used + scratch)
            start = stop
    blocks.append(tuple(block))
    return GramPlan(
        num_vectors=count,
        blocks=tuple(blocks),
        forward_passes=len(blocks) * len(vectors.prompts),
        backward_passes=len(blocks) * count,
        peak_bytes=peak,
        chunk=chunk,
    )
