r"""A world: the success rates of a policy on its prompts, and their gradients.

All that the theory of pass@k needs from a policy is the map

.. math:: \theta \in \mathbb{R}^d \mapsto p_\theta \in [0, 1]^N,

one success rate a prompt, with the masses of the prompt law :math:`D`.
Whatever supplies it together with its derivative is a :class:`World`, from a bandit with two
parameters to a language model with 10^8 of them, and serves every function of the package.

Quantities per prompt (``masses``, success rates, weights) are float64 tensors on the CPU.
Quantities per parameter (``theta``, gradients) have the world's ``dtype`` and device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.objectives import Objective

_CHUNK = 1 << 22


def inner_product(u: Tensor, v: Tensor) -> float:
    """<u, v> of two (d,) vectors, added up in float64 whatever their dtype.

    It goes through the vectors in pieces, so that no float64 copy of a whole model is made.
    """
    pieces = zip(torch.split(u, _CHUNK), torch.split(v, _CHUNK), strict=True)
    return sum(float(torch.dot(a.double(), b.double())) for a, b in pieces)


def first_not_finite(values: Tensor) -> int | None:
    """The place of the first entry of a (d,) vector that is not finite, None where all are.

    It goes through the vector in pieces: the test by itself would make copies of a whole model.
    """
    for number, piece in enumerate(torch.split(values, _CHUNK)):
        finite = torch.isfinite(piece)
        if not finite.all():
            return number * _CHUNK + int((~finite).nonzero()[0, 0])
    return None


@dataclass(frozen=True)
class GradientProducts:
    """Products of g_k = sum_x weights[k, x] grad p(x) with g = sum_x reference[x] grad p(x)."""

    gradient: Tensor
    """g, of shape (d,)."""
    inner_products: Tensor
    """<g_k, g>, of shape (K,), float64."""
    squared_norms: Tensor
    """||g_k||^2, of shape (K,), float64."""
    reference_norm: float
    """||g||."""


class World(ABC):
    r"""The map theta -> p in [0, 1]^N with the masses of the prompt law.

    A subclass sets the four attributes and gives :meth:`success`, :meth:`vjp` and :meth:`jvp`.
    The other methods are written in terms of these three and never hold more than two vectors of
    the size of theta beside theta itself; a world that can do better overrides them.
    ``theta=None`` stands for the world's own parameters, where it has some.
    """

    masses: Tensor
    """D(x), of shape (N,), float64; they sum to one."""
    groups: tuple[str, ...]
    """One label a prompt, such as "easy" or "hard"."""
    dtype: torch.dtype
    """The dtype of theta."""
    num_parameters: int
    """d, the length of theta."""

    @property
    def num_prompts(self) -> int:
        """N, the number of prompts."""
        return len(self.masses)

    def own_parameters(self) -> Tensor | None:
        """The theta that ``None`` stands for, or None in a world that has no theta of its own."""
        return None

    def parameters(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """Theta as a detached (d,) tensor of the world's dtype; no copy is made if it is one.

        Raises UserError for a wrong length, an entry that is not finite, or None in a world
        without parameters of its own.
        """
        given = self.own_parameters() if theta is None else theta
        name = type(self).__name__
        if given is None:
            raise UserError(f"{name} has no parameters of its own: pass theta")
        try:
            theta = torch.as_tensor(given, dtype=self.dtype).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"theta must be a vector of numbers, got {given!r}") from error
        if theta.shape != (self.num_parameters,):
            raise UserError(
                f"theta has shape {tuple(theta.shape)}, but {name} takes ({self.num_parameters},)"
            )
        index = first_not_finite(theta)
        if index is not None:
            raise UserError(f"theta[{index}] is {theta[index].item()}: every entry must be finite")
        return theta

    @abstractmethod
    def success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """p(x) for every prompt: (N,), float64, without a graph."""

    @abstractmethod
    def vjp(self, theta: Tensor | Sequence[float] | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        """p: (N,), and the rows sum_x weights[k, x] grad p(x): (K, d), for (K, N) weights.

        The masses are not applied: for grad J_k the weights are ``masses * w_k(p)``.
        """

    @abstractmethod
    def jvp(self, theta: Tensor | Sequence[float] | None, directions: Tensor) -> Tensor:
        """<grad p(x), directions[m]>: (M, N), float64, for (M, d) directions."""

    def kernel(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """kappa(x, x') = <grad p(x), grad p(x')>: (N, N), float64 (paper, eq. 5)."""
        theta = self.parameters(theta)
        identity = torch.eye(self.num_prompts, dtype=torch.float64)
        rows = [self.jvp(theta, self.vjp(theta, one[None])[1])[0] for one in identity]
        kernel = torch.stack(rows)
        # The two halves agree but for rounding, and users of a Gram matrix rely on symmetry.
        return (kernel + kernel.T) / 2

    def gradient_products(
        self, theta: Tensor | Sequence[float] | None, reference: Tensor, weights: Tensor
    ) -> GradientProducts:
        """The products of the K weighted gradients with the reference one, and their norms.

        ``reference`` is (N,), ``weights`` (K, N), both as in :meth:`vjp`.
        This default costs one vjp a row and holds two gradients at a time. A world with a cheap
        kernel can use <g_k, g> = weights[k] K reference and ||g_k||^2 = weights[k] K weights[k].
        """
        gradient = self.vjp(theta, reference[None])[1][0]
        inner, squares = [], []
        for row in weights:
            g = gradient if torch.equal(row, reference) else self.vjp(theta, row[None])[1][0]
            inner.append(inner_product(g, gradient))
            squares.append(inner_product(g, g))
            del g  # else it would live beside its successor
        return GradientProducts(
            gradient,
            torch.tensor(inner, dtype=torch.float64),
            torch.tensor(squares, dtype=torch.float64),
            math.sqrt(inner_product(gradient, gradient)),
        )

    def objective_value(
        self, theta: Tensor | Sequence[float] | None, objective: Objective
    ) -> float:
        """J = E_x[f(p(x))]."""
        return float(self.masses @ objective.value(self.success(theta)))

    def objective_gradient(
        self, theta: Tensor | Sequence[float] | None, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """p: (N,), and grad J = E_x[f'(p(x)) grad p(x)]: (d,) (paper, eq. 2).

        The weights depend on p, hence two passes here; a world that can weight within one pass
        overrides this.
        """
        theta = self.parameters(theta)
        p = self.success(theta)
        _, rows = self.vjp(theta, (self.masses * objective.weight(p))[None])
        return p, rows[0]


class AnalyticWorld(World):
    """A world small enough to write down its jacobian: everything follows from it, in float64."""

    dtype = torch.float64

    @abstractmethod
    def success_and_jacobian(
        self, theta: Tensor | Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """p: (N,), and its jacobian, the rows grad p(x): (N, d)."""

    def success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """p(x) for every prompt: (N,)."""
        return self.success_and_jacobian(theta)[0]

    def vjp(self, theta: Tensor | Sequence[float] | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        """p: (N,), and weights @ jacobian: (K, d)."""
        p, jacobian = self.success_and_jacobian(theta)
        return p, weights @ jacobian

    def jvp(self, theta: Tensor | Sequence[float] | None, directions: Tensor) -> Tensor:
        """The directional derivatives directions @ jacobian^T: (M, N)."""
        return directions @ self.success_and_jacobian(theta)[1].T

    def kernel(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """The Gram matrix of the jacobian's rows: (N, N)."""
        jacobian = self.success_and_jacobian(theta)[1]
        return jacobian @ jacobian.T

    def gradient_products(
        self, theta: Tensor | Sequence[float] | None, reference: Tensor, weights: Tensor
    ) -> GradientProducts:
        """The products for all k at once."""
        jacobian = self.success_and_jacobian(theta)[1]
        gradient, rows = reference @ jacobian, weights @ jacobian
        return GradientProducts(
            gradient, rows @ gradient, rows.square().sum(dim=1), float(gradient.norm())
        )

    def objective_gradient(
        self, theta: Tensor | Sequence[float] | None, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """p: (N,), and grad J: (d,), from one jacobian."""
        p, jacobian = self.success_and_jacobian(theta)
        return p, (self.masses * objective.weight(p)) @ jacobian
