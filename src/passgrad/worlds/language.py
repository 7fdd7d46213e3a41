r"""A causal language model on prompts with one accepted answer: success rates without sampling.

.. math:: p_\theta(x) = \pi_\theta(\text{answer} \cdot \text{stop} \mid \text{context} \cdot
\text{question})

is a product of a few conditional probabilities, so it and its gradient in all weights are exact up
to the arithmetic of the model. That gives every estimate from samples a truth to be held against,
on a real model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.central import central_differences
from passgrad.lm.directional import forward_mode, no_forward_mode, plain_operations
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, alone, pack, packed_logprobs
from passgrad.lm.packing import Packs, choose_packing
from passgrad.lm.parameters import ParameterLayout
from passgrad.lm.passes import prompt_law
from passgrad.lm.products.gram import blockwise_gram
from passgrad.lm.tokens import check_vocabulary, tokenize_prompt
from passgrad.objectives import Objective
from passgrad.tasks.base import Prompt, as_prompts
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_Logprobs = Callable[[dict[str, Tensor] | None], Tensor]


class LanguageWorld(World):
    """All weights of a causal language model, with the exact success rate of each prompt.

    ``theta`` is the flat vector of the model's parameters in the order of
    ``model.named_parameters()`` (a tied matrix stands once); None means the weights that the model
    holds now. The model itself is never changed, except that it is put in evaluation mode, since
    dropout would make the success rates random.

    :param model: Any causal LM of transformers.
    :param prompts: :class:`~passgrad.tasks.base.Prompt` objects or (context, question, answer)
        triples. Prompts with the same context share its computation.
    :param stop: What ends an answer; part of the event.
    :param masses: The prompt law D, (N,); uniform by default.
    :param token_budget: Tokens a packed row; more is fewer rows and more memory.
    :param packed: "auto" packs prompts into rows where that gives what plain passes give, which is
        measured first (``packing`` says what was found), and else scores one prompt at a time; True
        insists, False never packs.
    :param memory_gib: What :meth:`kernel` may hold at once, in GiB.
    :raises UserError: For no prompts, a prompt whose tokens merge at a boundary (named), bad
        masses, and ``packed=True`` for a model that gives other values packed than alone.

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
        packed: Packs = "auto",
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
        size = model.get_input_embeddings().num_embeddings
        check_vocabulary([(*one.prefix, *one.target) for one in self.tokenized], size, "this world")
        self.masses = prompt_law(masses, len(self.prompts))
        self.layout = ParameterLayout(model)
        self.num_parameters = self.layout.num_parameters
        self.dtype = self.layout.dtype
        self.memory_gib = memory_gib
        self._alone = alone(self.tokenized)
        rows = pack(self.tokenized, token_budget=token_budget)
        #: how prompts are laid out, and why
        self.packing = choose_packing(model, self.tokenized, rows, packed)
        self.rows = rows if self.packing.packed else self._alone

    def own_parameters(self) -> Tensor:
        return self.layout.flatten(self.model)

    @torch.no_grad()
    def success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        return self.log_success(theta).exp()

    @torch.no_grad()
    def log_success(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        """Log p(x): (N,), float64; finite where p itself would round to zero."""
        named = None if theta is None else self._named(theta)
        result = torch.empty(self.num_prompts, dtype=torch.float64)
        for members, logprobs in self._batches():
            result[members] = logprobs(named).double().cpu()
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
        """By forward mode; by central differences where the model has an operation without it."""
        named = self._named(theta)
        result = torch.empty(len(directions), self.num_prompts, dtype=torch.float64)
        try:
            for m, direction in enumerate(directions):
                result[m] = self._forward(named, direction)
        except (NotImplementedError, RuntimeError) as error:
            reason = no_forward_mode(self.model, error)
            # The parameters move in place, and they may be those of the caller.
            named = {name: one.clone() for name, one in named.items()}
            for m, direction in enumerate(directions):
                result[m] = self._differences(named, direction, reason)
        return result

    def _forward(self, named: dict[str, Tensor], direction: Tensor) -> Tensor:
        tangents = self.layout.views(self.parameters(direction))
        result = torch.empty(self.num_prompts, dtype=torch.float64)
        with plain_operations(self.model):
            for members, logprobs in self._batches():
                value, slope = forward_mode(logprobs, named, tangents)
                # d p = p d log p; the exponential is taken in float64.
                result[members] = (value.double().exp() * slope.double()).cpu()
        return result

    def _differences(self, named: dict[str, Tensor], direction: Tensor, reason: str) -> Tensor:
        @torch.no_grad()
        def evaluate(places: Sequence[int]) -> Tensor:
            result = torch.empty(self.num_prompts, dtype=torch.float64)
            for members, logprobs in self._batches():
                result[members] = logprobs(named).double().cpu()
            return result[list(places)]

        every = range(self.num_prompts)
        tangents = self.layout.views(self.parameters(direction))
        found = central_differences(evaluate, len(every), named, tangents, pilot=every)
        if found is None:
            raise UserError(f"differences along this vector are not finite, and {reason}")
        return evaluate(every).exp() * found.slopes

    def kernel(self, theta: Tensor | Sequence[float] | None = None) -> Tensor:
        def success(place: int, parameters: dict[str, Tensor]) -> Tensor:
            return packed_logprobs(self.model, self._alone[place], parameters).double().exp()[0]

        named = self._named(theta)
        return blockwise_gram(success, self.num_prompts, named, memory_gib=self.memory_gib)

    def _named(self, theta: Tensor | Sequence[float] | None) -> dict[str, Tensor]:
        """Theta by the names of the parameters; of the model's own no copy is made."""
        if theta is None:
            return {name: own.detach() for name, own in self.layout.parameters(self.model).items()}
        return self.layout.views(self.parameters(theta))

    def _batches(self) -> list[tuple[list[int], _Logprobs]]:
        """Prompts that go through the model together, and log p of these prompts as a function of
        named parameters, None being the model's own.
        """
        return [(list(row.members), partial(packed_logprobs, self.model, row)) for row in self.rows]

    def _backward(
        self,
        theta: Tensor | Sequence[float] | None,
        weigh: Callable[[Tensor, list[int]], Tensor],
        num_rows: int,
    ) -> tuple[Tensor, Tensor]:
        """p, and the rows sum_x weigh(p)[k, x] grad p(x), one forward pass for all of them."""
        # Each is a leaf of its own: a gradient through theta itself would fill one vector of its
        # length for every parameter.
        leaves = {name: one.detach().requires_grad_() for name, one in self._named(theta).items()}
        device = next(iter(leaves.values())).device
        gradients = torch.zeros(num_rows, self.num_parameters, dtype=self.dtype, device=device)
        slots = [self.layout.views(gradient) for gradient in gradients]
        result = torch.empty(self.num_prompts, dtype=torch.float64)
        for members, logprobs in self._batches():
            p = logprobs(leaves).double().exp()
            result[members] = p.detach().cpu()
            weights = weigh(result[members], members).to(p.device)
            for k, slot in enumerate(slots):
                if not weights[k].any():
                    continue
                # Each part is added where it belongs as soon as it is known: together they would
                # be one more vector of the size of theta.
                for name, leaf in leaves.items():
                    leaf.grad = slot[name]
                (weights[k] @ p).backward(retain_graph=k < num_rows - 1)  # type: ignore[no-untyped-call]
        return result, gradients
