r"""Mean scores of the right and of the wrong answers of each prompt, small enough to be kept.

With binary rewards every estimate of a policy gradient here is, prompt by prompt, a combination of
two vectors, the mean score of the right answers and that of the wrong ones,

.. math:: m_x = \frac1c \sum_{i : r_i = 1} \nabla \log \pi(y_i | x), \qquad
          u_x = \frac1{n - c} \sum_{i : r_i = 0} \nabla \log \pi(y_i | x),

with coefficients that depend on counts alone. So the matrix of the inner products of these vectors
holds all that can be asked: weights, filters, baselines, sums and means can be changed afterwards
without another pass over the model. One forward pass for each prompt and one backward pass for each
vector; a gradient is folded to ``size`` numbers as soon as it is there
(:mod:`passgrad.lm.products.prompt_sketch`), so that an inner product over all parameters has a
standard error of about 1 / sqrt(size) of the product of the lengths.

The three readings of "the final hidden layer" (:func:`passgrad.lm.groups.parts_of`) come from the
same backward passes, the first two without a sketch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, Literal

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.groups import parts_of
from passgrad.lm.head import tied_output, watch_head
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.products.prompt_gram import prompt_backwards
from passgrad.lm.products.prompt_sketch import Sketch
from passgrad.progress import Progress, Silent

#: names of the readings: all parameters, and three of "the final hidden layer"
READINGS: Final = ("all parameters", "final norm gain", "final hidden state", "output layer")

# One: what the sketch errs by is seen in the lengths, which are known exactly.
_REPEATS = 1


Law = Literal["printed", "policy"]


@dataclass(frozen=True, eq=False)
class PromptVectors:
    """The matrix of inner products of the mean scores, and which vector is whose.

    ``kernels``: (R, R) for each reading. ``right``, ``wrong``: for each law (M,) the places of the
    vectors among the R, -1 where there is none (no such answers, or they were not computed).
    """

    kernels: Mapping[str, Tensor]
    right: Mapping[Law, Tensor]
    wrong: Mapping[Law, Tensor]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Inner products of R vectors, (R, R) float64 for each reading."""

    kernels: dict[str, Tensor]
    sketch_error: float
    """Relative error of the squared lengths over all parameters, as a root mean square: of the
    sketch against the exact ones."""


def class_scores(
    passes: CompletionPasses,
    bases: Sequence[Tensor],
    *,
    size: int = 2**14,
    seed: int = 0,
    progress: Progress | None = None,
) -> ClassScores:
    r"""The matrix of inner products of :math:`\sum_i b_{ji} \nabla \log \pi(y_{xi} | x)`.

    :param bases: For each prompt (q_x, n) coefficients of its completions; q_x may be 0. The R
        vectors are those of the first prompt, then of the second, and so on.
    :param size: Numbers that a vector over all parameters is folded to.
    :raises UserError: For another number of bases than prompts, coefficients of another shape, and
        a size that is not positive.
    """
    num_prompts, n = passes.completions.shape
    if len(bases) != num_prompts or any(one.shape[1:] != (n,) for one in bases):
        raise UserError(f"give coefficients (q, {n}) for each of the {num_prompts} prompts")
    if size < _REPEATS:
        raise UserError(f"size is {size}; keep at least {_REPEATS} numbers of each vector")
    names = list(passes.layout.shapes)
    tied = tied_output(passes.model)
    final = {
        p.name: p.units for p in parts_of(passes.layout, tied_output=tied) if p.kind == "final"
    }
    gains = final.get("final norm gain", ())
    fold = Sketch(passes.layout, size // _REPEATS, _REPEATS, seed)  # type: ignore[arg-type]
    output = passes.model.get_output_embeddings().weight
    use = SimpleNamespace(shapes={"use": output.shape})
    use_fold = Sketch(use, size // _REPEATS, _REPEATS, seed + 1)  # type: ignore[arg-type]
    rows: dict[str, list[Tensor]] = {name: [] for name in READINGS}
    lengths: list[float] = []
    progress = progress or Silent()
    progress.stage("vectors of prompts", num_prompts)
    for x, basis in enumerate(bases):
        count = len(basis)
        whole = [fold.empty() for _ in range(count)]
        uses = [use_fold.empty() for _ in range(count)]
        hidden = torch.zeros(count, output.shape[1])
        gain: list[dict[str, Tensor]] = [{} for _ in range(count)]
        lengths += [0.0] * count
        with watch_head(passes.model, matrix=True) as head:
            for j, name, gradient in prompt_backwards(passes, x, basis, names) if count else ():
                assert head.matrix is not None
                if head.hidden.any():  # the first piece behind a backward pass: its head is new
                    hidden[j] += head.hidden.cpu()
                    use_fold.add("use", head.matrix, uses[j])
                    head.hidden.zero_()
                    head.matrix.zero_()
                fold.add(name, gradient, whole[j])
                lengths[-count + j] += float(torch.linalg.vector_norm(gradient)) ** 2
                if name in gains:
                    flat = gradient.detach().reshape(-1).cpu()
                    gain[j][name] = gain[j].get(name, torch.zeros_like(flat)) + flat
                del gradient
        for j in range(count):
            rows["all parameters"].append(_flat(fold.finish(whole[j])))
            rows["output layer"].append(_flat(use_fold.finish(uses[j])))
            rows["final hidden state"].append(hidden[j].double())
            mine = [gain[j][name].double() for name in gains if name in gain[j]]
            rows["final norm gain"].append(torch.cat(mine) if mine else torch.zeros(1).double())
        progress.advance()
    kernels = {name: _gram(some) for name, some in rows.items()}
    known = torch.tensor(lengths, dtype=torch.float64)
    found = kernels["all parameters"].diagonal()
    # A prompt of several rows has a length that is no sum of the squares of its pieces.
    error = ((found / known - 1).square().mean().sqrt()) if len(known) else torch.tensor(math.nan)
    return ClassScores(kernels, float(error))


def _flat(folded: Tensor) -> Tensor:
    """Repetitions side by side, scaled so that the product is the mean of theirs."""
    return folded.reshape(-1).double() / len(folded) ** 0.5


def _gram(rows: Sequence[Tensor]) -> Tensor:
    if not rows:
        return torch.zeros(0, 0, dtype=torch.float64)
    stacked = torch.stack(list(rows))
    return stacked @ stacked.T
