r"""A causal language model on prompts with one accepted answer: success rates without sampling.

.. math:: p_\theta(x) = \pi_\theta(\text{answer} \cdot \text{stop} \mid \text{context} \cdot
\text{question})

is a product of a few conditional probabilities, so it and its gradient in all weights are exact up
to the arithmetic of the model. That gives every estimate from samples a truth to be held against,
on a real model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.directional import forward_mode, plain_attention
from passgrad.lm.gram import blockwise_gram
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, pack, packed_logprobs
from passgrad.lm.parameters import ParameterLayout
from passgrad.lm.tokens import tokenize_prompt
from passgrad.objectives import Objective
from passgrad.tasks.base import Prompt, as_prompts
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LanguageWorld(World):
    """All weights of a causal language model, with the exact success rate of each prompt.

    ``theta`` is the flat vector of the model's parameters in the order of
    ``model.named_parameters()`` (a tied matrix stands once); None means the weights that the model
    holds now. The model itself is never changed, except that it is put in evaluation mode, since
    dropout would make the success rates random.

    :param model: Any causal LM of transformers; to pack, it must take its attention by name from
        transformers or a four-dimensional attention mask.
    :param prompts: :class:`~passgrad.tasks.base.Prompt` objects or (context, question, answer)
        triples. Prompts with the same context share its computation.
    :param stop: What ends an answer; part of the event.
    :param masses: The prompt law D, (N,); uniform by default.
    :param token_budget: Tokens a packed row; more is fewer rows and more memory.
    :param packed: False scores one prompt at a time, for architectures that do not honour it.
    :param memory_gib: What :meth:`kernel` may hold at once, in GiB.
    :raises UserError: For no prompts, a prompt whose tokens merge at a boundary (named), bad
        masses, or a model that gives other values packed than alone.

    >>> import passgrad as pg
    >>> model, tokenizer = pg.load_model("smollm2-135m")  # doctest: +SKIP
    >>> prompts = [("", "The capital of France is", " Paris"), ("", "2 + 2 =", " 4")]
    >>> pg.LanguageWorld(model, tokenizer, prompts).success()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Iterable[Prompt | Sequence[str]],
        *,
        stop: str = "\n",
        masses: Sequence[float] | Tensor | None = None,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        packed: bool = True,
        memory_gib: float = 6.0,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.prompts = as_prompts(prompts)
        self.groups = tuple(prompt.group for prompt in self.prompts)
        self.tokenized = [
            tokenize_prompt(
                tokenizer, x.context, x.question, x.answer, stop=stop, name=f"prompt {x.id!r}"
            )
            for x in self.prompts
        ]
        self.masses = _prompt_law(masses, len(self.prompts))
        self.layout = ParameterLayout(model)
        self.num_parameters = self.layout.num_parameters
        self.dtype = self.layout.dtype
        self.memory_gib = memory_gib
        self._alone = [pack([one])[0] for one in self.tokenized]
        self.rows = (
            pack(self.tokenized, token_budget=token_budget)
            if packed
            else [replace(row, members=(place,)) for place, row in enumerate(self._alone)]
        )
        if packed:
            self._check_packing()

    def own_parameters(self) -> Tensor:
        return self.layout.flatten(self.model)

    @torch.no_grad()
    def success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        return self.log_success(theta).exp()

    @torch.no_grad()
    def log_success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """Log p(x): (N,), float64; finite where p itself would round to zero."""
        named = None if theta is None else self.layout.views(self.parameters(theta))
        result = torch.empty(self.num_prompts, dtype=torch.float64)
        for row in self.rows:
            result[list(row.members)] = packed_logprobs(self.model, row, named).double().cpu()
        return result

    def vjp(self, theta: Tensor | Sequence[float] | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.as_tensor(weights, dtype=torch.float64)
        return self._backward(theta, lambda p, members: weights[:, members], len(weights))

    def objective_gradient(
        self, theta: Tensor | Sequence[float] | None, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        # A prompt's weight depends on its own success rate only, so one pass over the rows is
        # enough.
        def weigh(p: Tensor, members: list[int]) -> Tensor:
            return (self.masses[members] * objective.weight(p))[None]

        p, rows = self._backward(theta, weigh, 1)
        return p, rows[0]

    def jvp(self, theta: Tensor | Sequence[float] | None, directions: Tensor) -> Tensor:
        named = self.layout.views(self.parameters(theta))
        result = torch.empty(len(directions), self.num_prompts, dtype=torch.float64)
        with plain_attention(self.model):
            for m, direction in enumerate(directions):
                tangents = self.layout.views(self.parameters(direction))
                for row in self.rows:
                    value, slope = forward_mode(
                        partial(packed_logprobs, self.model, row), named, tangents
                    )
                    # d p = p d log p; the exponential is taken in float64.
                    result[m, list(row.members)] = (value.double().exp() * slope.double()).cpu()
        return result

    def kernel(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        def success(place: int, parameters: dict[str, Tensor]) -> Tensor:
            return packed_logprobs(self.model, self._alone[place], parameters).double().exp()[0]

        named = self.layout.views(self.parameters(theta))
        return blockwise_gram(success, self.num_prompts, named, memory_gib=self.memory_gib)

    def _backward(
        self,
        theta: Tensor | Sequence[float] | None,
        weigh: Callable[[Tensor, list[int]], Tensor],
        num_rows: int,
    ) -> tuple[Tensor, Tensor]:
        """p, and the rows sum_x weigh(p)[k, x] grad p(x), one forward pass for all of them."""
        theta = self.parameters(theta)
        leaves = self.layout.leaves(theta)
        gradients = torch.zeros(
            num_rows, self.num_parameters, dtype=self.dtype, device=theta.device
        )
        slots = [self.layout.views(gradient) for gradient in gradients]
        result = torch.empty(self.num_prompts, dtype=torch.float64)
        for row in self.rows:
            members = list(row.members)
            p = packed_logprobs(self.model, row, leaves).double().exp()
            result[members] = p.detach().cpu()
            weights = weigh(result[members], members).to(p.device)
            for k, slot in enumerate(slots):
                if not weights[k].any():
                    continue
                parts = torch.autograd.grad(
                    weights[k] @ p, list(leaves.values()), retain_graph=k < num_rows - 1
                )
                for place, part in zip(slot.values(), parts, strict=True):
                    place += part
        return result, gradients

    @torch.no_grad()
    def _check_packing(self) -> None:
        """Some architectures ignore a mask or position ids; their packed values are wrong,
        silently.
        """
        shared = [row for row in self.rows if len(row.members) > 1]
        if not shared:
            return
        name, tolerance = type(self.model).__name__, 1e-3 if self.dtype.itemsize >= 4 else 5e-2
        # The last member of the fullest row could see most that it must not; the longest sequence
        # is the one that would meet a sliding window.
        fullest = max(shared, key=lambda row: len(row.members))
        longest = max(shared, key=lambda row: max(map(self._length, row.members)))
        for row, member in {
            (fullest, fullest.members[-1]),
            (longest, max(longest.members, key=self._length)),
        }:
            try:
                packed = packed_logprobs(self.model, row)[row.members.index(member)]
            except (TypeError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"{name} does not take a block mask with position ids "
                    f"({' '.join(str(error).split())[:120]}); pass packed=False"
                ) from error
            alone = packed_logprobs(self.model, self._alone[member])[0]
            if not torch.isclose(packed, alone, atol=tolerance, rtol=0):
                raise UserError(
                    f"{name} gives log p = {packed:.4f} packed and {alone:.4f} alone: "
                    "it does not honour a block mask; pass packed=False"
                )

    def _length(self, member: int) -> int:
        return self._alone[member].num_tokens


def _prompt_law(masses: Sequence[float] | Tensor | None, num_prompts: int) -> Tensor:
    if masses is None:
        return torch.full((num_prompts,), 1 / num_prompts, dtype=torch.float64)
    law = torch.as_tensor(masses, dtype=torch.float64)
    if (
        law.shape != (num_prompts,)
        or not (law >= 0).all()
        or not torch.isclose(law.sum(), law.new_tensor(1.0))
    ):
        raise UserError(f"masses must be {num_prompts} non-negative numbers that sum to one")
    return law
