"""The parameters of a model as one flat vector, and back, without copies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from passgrad.errors import UserError


class ParameterLayout:
    """Where each named parameter of a model lies in the flat vector theta of length d.

    The order is that of ``model.named_parameters()``, which lists a tied matrix once: its
    derivative is then the sum over all its uses, as it should be.

    :raises UserError: If the model has no parameters or mixes dtypes.
    """

    def __init__(self, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        if not named:
            raise UserError("the model has no parameters; give a causal language model")
        dtypes = {parameter.dtype for parameter in named.values()}
        if len(dtypes) != 1:
            raise UserError(
                f"the model's parameters have dtypes {sorted(map(str, dtypes))}; "
                "load it in one dtype"
            )
        self.dtype: torch.dtype = dtypes.pop()
        self.shapes = {name: parameter.shape for name, parameter in named.items()}
        self.num_parameters = sum(math.prod(shape) for shape in self.shapes.values())

    @torch.no_grad()
    def flatten(self, model: nn.Module) -> Tensor:
        """A copy of the model's parameters: (d,)."""
        return torch.cat(
            [parameter.detach().reshape(-1) for _, parameter in model.named_parameters()]
        )

    def views(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views into theta: writing to one writes to theta."""
        pieces = theta.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views that record gradients. Each is a leaf of its own: a gradient through
        ``theta`` itself would fill one vector of length d for every parameter.
        """
        return {name: view.detach().requires_grad_() for name, view in self.views(theta).items()}

    @torch.no_grad()
    def load(self, model: nn.Module, theta: Tensor) -> None:
        """Write theta into the model."""
        for (_, parameter), view in zip(
            model.named_parameters(), self.views(theta).values(), strict=True
        ):
            parameter.copy_(view)
