r"""The matrix of inner products of the policy gradients of many prompts, sketched in one pass.

Each vector u of the d parameters is folded to a few numbers: cut into chunks of length s, with
random signs :math:`\sigma_j`, each chunk rotated by a random amount, and all of them added up,

.. math:: (S u)_b = \sum_{j : h(j) = b} \sigma_j u_j, \qquad
          h(j) = (j + r_{\lfloor j / s \rfloor}) \bmod s .

The signs make :math:`E \langle S u, S v \rangle = \langle u, v \rangle`. Two entries of one chunk
never meet, two of different chunks in one place of s, so that over signs and rotations

.. math:: \mathrm{Var} \langle S u, S v \rangle \le
          \frac{\|u\|^2 \|v\|^2 + \langle u, v \rangle^2}{s},

as for the count sketch (Charikar, Chen and Farach-Colton, 2002; as a transform, Clarkson and
Woodruff, 2013), at the price of a sum in place of a hash for each entry. R repetitions of length s
have the signs in common and rotations of their own: their errors are sums over different pairs of
entries and have a correlation of 1 / s. So the mean of the R products has a standard error that
is read off their spread.

``scipy.linalg.clarkson_woodruff_transform`` takes the (d, M) matrix of all gradients at once, which
is what must not be held, and draws its hash anew, d times 16 bytes, for each matrix it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.parameters import ParameterLayout
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.products.prompt_gram import Keep, PromptGram, PromptVectors, prompt_backwards
from passgrad.progress import Progress, Silent


class Sketch:
    """The random fold of vectors of parameter space: ``repeats`` sketches of length ``length``.

    Holds one byte a parameter, its sign. The same seed gives the same fold.
    """

    def __init__(self, layout: ParameterLayout, length: int, repeats: int, seed: int) -> None:
        self.length, self.repeats = length, repeats
        self.signs: dict[str, Tensor] = {}
        self.rotations: dict[str, list[list[int]]] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, shape in layout.shapes.items():
            size = math.prod(shape)
            signs = torch.randint(2, (size,), dtype=torch.int8, generator=generator)
            self.signs[name] = signs.mul_(2).sub_(1)
            chunks = -(-size // length)
            self.rotations[name] = torch.randint(
                length, (chunks, repeats), generator=generator
            ).tolist()

    def empty(self) -> Tensor:
        """What :meth:`add` adds to."""
        return torch.zeros(self.repeats, 2 * self.length)

    def add(self, name: str, gradient: Tensor, into: Tensor) -> None:
        """Add the fold of the part of a vector that belongs to one parameter."""
        signed = gradient.reshape(-1).cpu().to(into.dtype) * self.signs[name]
        for chunk, starts in zip(signed.split(self.length), self.rotations[name], strict=True):
            for row, start in enumerate(starts):
                into[row, start : start + len(chunk)] += chunk

    def finish(self, into: Tensor) -> Tensor:
        """The sketches (repeats, length): what ran over the end comes in at the start."""
        return into[:, : self.length] + into[:, self.length :]


@dataclass(frozen=True, eq=False)
class SketchedGram:
    """``kernel``: unbiased for K, (L, L, M, M) float64. ``standard_error``: of each entry, from
    ``repeats`` independent sketches.
    """

    kernel: Tensor
    standard_error: Tensor
    length: int
    repeats: int

    @property
    def relative_error(self) -> float:
        """The standard error of a product over the lengths of its two vectors, as a root mean
        square over all pairs of different prompts; nan without any.
        """
        return _rms(self.standard_error, _scale(self.kernel))


def sketched_gram(
    passes: CompletionPasses,
    coefficients: Any,
    *,
    size: int = 2**18,
    repeats: int = 8,
    seed: int = 0,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> SketchedGram:
    """:func:`~passgrad.lm.products.prompt_gram.prompt_gram` within an error, in one pass a prompt.

    Memory: one gradient, a byte a parameter, and 4 ``size`` bytes for each of the R vectors.

    :param coefficients: (L, M, n).
    :param size: Numbers kept of each vector, over all repetitions. The error of a product is about
        1 / sqrt(size) of the product of the lengths.
    :param repeats: Sketches of size / repeats each; their spread is the error, so at least 2.
    :param keep: As for ``prompt_gram``; the sketches of a prompt are kept.
    :param progress: Told of one stage, which advances after each prompt.
    """
    if repeats < 2 or size < repeats:
        raise UserError(
            f"size {size} and repeats {repeats}: take at least 2 repeats, to see the error, and "
            "at least as many numbers"
        )
    vectors = PromptVectors.of(passes, coefficients)
    length = size // repeats
    sketch = Sketch(passes.layout, length, repeats, seed)
    law = torch.tensor([length, repeats, seed])
    names = list(passes.layout.shapes)
    made: list[Tensor] = []
    progress = progress or Silent()
    progress.stage("sketches of the gradients of prompts", len(vectors.prompts))
    for x, basis in zip(vectors.prompts, vectors.bases, strict=True):

        def compute(x: int = x, basis: Tensor = basis) -> Tensor:
            sums = [sketch.empty() for _ in basis]
            for j, name, gradient in prompt_backwards(passes, x, basis, names):
                sketch.add(name, gradient, sums[j])
                del gradient
            return torch.stack([sketch.finish(one) for one in sums])

        made.append(
            compute()
            if keep is None
            else keep("sketch", basis, torch.tensor([x]), law, compute=compute)
        )
        progress.advance()
    folded = torch.cat([*made, torch.zeros(0, repeats, length)])
    products = torch.stack([_square(folded[:, r]) for r in range(repeats)])
    kernels = vectors.expand(products)
    error = kernels.std(dim=0) / repeats**0.5
    return SketchedGram(kernels.mean(dim=0), error, length, repeats)


def sketch_error(
    sketched: SketchedGram, exact: PromptGram, prompts: Sequence[int] | None = None
) -> tuple[float, float]:
    """How wrong a sketched kernel is, measured: its distance from the exact one over the lengths of
    the two vectors, as a root mean square over pairs of different prompts, and the same of what
    the sketch says of itself. The two should agree.

    :param prompts: The prompts of the exact kernel, where it has only some of them, in its order.
    """
    some = list(range(sketched.kernel.shape[-1])) if prompts is None else list(prompts)
    scale = _scale(exact.kernel)
    found = sketched.kernel[..., some, :][..., some]
    if found.shape != exact.kernel.shape:
        raise UserError(
            f"the exact kernel has shape {tuple(exact.kernel.shape)}, the sketched one on these "
            f"prompts {tuple(found.shape)}: name the prompts of the exact one"
        )
    said = sketched.standard_error[..., some, :][..., some]
    return _rms(found - exact.kernel, scale), _rms(said, scale)


def _square(rows: Tensor) -> Tensor:
    """Products of all pairs of rows, (R, R), summed in float64."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for columns in rows.split(2**12, dim=1):
        total += columns.double() @ columns.double().T
    return total


def _scale(kernel: Tensor) -> Tensor:
    """|u_x| |u_x'|, (L, L, M, M)."""
    lengths = torch.einsum("llxx->lx", kernel).clamp(min=0).sqrt()
    return lengths[:, None, :, None] * lengths[None, :, None, :]


def _rms(values: Tensor, scale: Tensor) -> float:
    apart = ~torch.eye(values.shape[-1], dtype=torch.bool) & (scale > 0)
    return float((values[apart] / scale[apart]).square().mean().sqrt())
