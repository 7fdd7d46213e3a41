"""The parameters of a model as one flat vector, and back, without copies: all of them, or those
that are trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from passgrad.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ParameterLayout:
    """Where each named parameter of a model lies in the flat vector theta of length d.

    The order is that of ``model.named_parameters()``, which lists a tied matrix once: its
    derivative is then the sum over all its uses, as it should be.

    :param names: The parameters that make up theta. By default those that require a gradient where
        only some do, as beside a LoRA adapter, and all of them otherwise.
    :raises UserError: If there are no parameters, one of these names is none, or they mix dtypes.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] | None = None) -> None:
        every = dict(model.named_parameters())
        if not every:
            raise UserError("the model has no parameters; give a causal language model")
        chosen = trained(model) if names is None else set(names)
        unknown = sorted(chosen - set(every))
        if unknown or not chosen:
            raise UserError(
                f"the model has no parameter {unknown[0]!r}"
                if unknown
                else "no parameters are chosen; name at least one"
            )
        named = {name: parameter for name, parameter in every.items() if name in chosen}
        dtypes = {parameter.dtype for parameter in named.values()}
        if len(dtypes) != 1:
            raise UserError(
                f"the model's parameters have dtypes {sorted(map(str, dtypes))}; "
                "load it in one dtype"
            )
        self.dtype: torch.dtype = dtypes.pop()
        self.shapes = {name: parameter.shape for name, parameter in named.items()}
        self.num_parameters = sum(math.prod(shape) for shape in self.shapes.values())
        #: whether theta is all of the model
        self.whole = len(named) == len(every)

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The model's own parameters that make up theta, in its order."""
        every = dict(model.named_parameters())
        return {name: every[name] for name in self.shapes}

    @torch.no_grad()
    def flatten(self, model: nn.Module) -> Tensor:
        """A copy of the model's parameters: (d,)."""
        return torch.cat([one.detach().reshape(-1) for one in self.parameters(model).values()])

    def views(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views into theta: writing to one writes to theta."""
        pieces = theta.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    @torch.no_grad()
    def load(self, model: nn.Module, theta: Tensor) -> None:
        """Write theta into the model."""
        named = self.parameters(model)
        for name, view in self.views(theta).items():
            named[name].copy_(view)


def trained(model: nn.Module) -> set[str]:
    """The names of the parameters that require a gradient; all of them where none does, which is
    how a model looks that is not to be trained.
    """
    every = dict(model.named_parameters())
    return {name for name, one in every.items() if one.requires_grad} or set(every)


def without_wrapper(model: Any) -> PreTrainedModel:
    """The language model inside of a ``PeftModel``, whose layers hold the adapter; any other model
    as it is.

    :raises UserError: For an adapter that is frozen or merged into the weights, so that nothing is
        left to differentiate along, and one that is not within the layers, as of prompt tuning.
    """
    if not hasattr(model, "peft_config"):
        return model  # type: ignore[no-any-return]
    configs = model.peft_config.values()
    if any(getattr(config, "is_prompt_learning", False) for config in configs):
        raise UserError("an adapter of learned prompts has no place in the layers; give a LoRA one")
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise UserError("the adapter is merged into the weights; call unmerge_adapter() first")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("the adapter is frozen; load it with is_trainable=True")
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner
