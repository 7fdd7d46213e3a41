"""A language world whose prompts have tokens alike in number: all of them are one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.directional import forward_mode, padding_counts, plain_attention
from passgrad.tasks.base import Prompt
from passgrad.worlds.base import GradientProducts, inner_product
from passgrad.worlds.language import LanguageWorld

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FixedLengthWorld(LanguageWorld):
    """The :class:`~passgrad.worlds.language.LanguageWorld` of prompts with as many tokens each, and
    of answers with as many tokens each: every pass is one plain batch, without a mask.

    For models of a million weights and prompts of a few tokens, of which thousands of exact steps
    are taken. It gives the numbers of a ``LanguageWorld`` on the same prompts, to rounding.

    :param stop: What ends an answer; part of the event.
    :param masses: The prompt law D, (N,); uniform by default.
    :param memory_gib: What :meth:`kernel` may hold at once, in GiB.
    :raises UserError: As ``LanguageWorld`` does, and for the first prompt whose tokens differ in
        number from those of the prompt before.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Iterable[Prompt | Sequence[str]],
        *,
        stop: str = "\n",
        masses: Sequence[float] | Tensor | None = None,
        memory_gib: float = 2.0,
    ) -> None:
        super().__init__(
            model, tokenizer, prompts, stop=stop, masses=masses, packed=False, memory_gib=memory_gib
        )
        first = self.tokenized[0]
        sizes = (len(first.prefix), len(first.target))
        for prompt, one in zip(self.prompts, self.tokenized, strict=True):
            if (len(one.prefix), len(one.target)) != sizes:
                raise UserError(
                    f"prompt {prompt.id!r} has {len(one.prefix)} + {len(one.target)} tokens, the "
                    f"first one {sizes[0]} + {sizes[1]}: make them equal, or use LanguageWorld"
                )
        tokens = torch.tensor([[*one.prefix, *one.target] for one in self.tokenized])
        # The last target token is predicted but never read.
        self._read, self._targets = tokens[:, :-1], tokens[:, sizes[0] :]

    def logprobs(self, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Log p(x): (N,), in the model's dtype, differentiable in the named ``parameters``."""
        inputs = {
            "input_ids": self._read.to(self.model.device),
            "logits_to_keep": self._targets.shape[1],
            "use_cache": False,
        }
        with padding_counts(self.model):
            if parameters is None:
                logits = self.model(**inputs).logits
            else:
                logits = torch.func.functional_call(self.model, parameters, (), inputs).logits
        targets = self._targets.to(logits.device)[..., None]
        return logits.log_softmax(-1).gather(-1, targets)[..., 0].sum(dim=1)

    @torch.no_grad()
    def log_success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        named = None if theta is None else self.layout.views(self.parameters(theta))
        return self.logprobs(named).double().cpu()

    def jvp(self, theta: Tensor | Sequence[float] | None, directions: Tensor) -> Tensor:
        named = self.layout.views(self.parameters(theta))
        result = torch.empty(len(directions), self.num_prompts, dtype=torch.float64)
        with plain_attention(self.model):
            for m, direction in enumerate(directions):
                tangents = self.layout.views(self.parameters(direction))
                value, slope = forward_mode(self.logprobs, named, tangents)
                result[m] = (value.double().exp() * slope.double()).cpu()
        return result

    def gradient_products(
        self, theta: Tensor | Sequence[float] | None, reference: Tensor, weights: Tensor
    ) -> GradientProducts:
        """One forward pass for all of them; K + 1 gradients are held at once."""
        gradient, *rows = self.vjp(theta, torch.cat([reference[None], weights]))[1]
        return GradientProducts(
            gradient,
            torch.tensor([inner_product(row, gradient) for row in rows], dtype=torch.float64),
            torch.tensor([inner_product(row, row) for row in rows], dtype=torch.float64),
            math.sqrt(inner_product(gradient, gradient)),
        )

    def _backward(
        self,
        theta: Tensor | Sequence[float] | None,
        weigh: Callable[[Tensor, list[int]], Tensor],
        num_rows: int,
    ) -> tuple[Tensor, Tensor]:
        theta = self.parameters(theta)
        leaves = self.layout.leaves(theta)
        p = self.logprobs(leaves).double().exp()
        success = p.detach().cpu()
        weights = weigh(success, list(range(self.num_prompts))).to(p.device)
        rows = [
            torch.autograd.grad(row @ p, list(leaves.values()), retain_graph=k < num_rows - 1)
            for k, row in enumerate(weights)
        ]
        return success, torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
