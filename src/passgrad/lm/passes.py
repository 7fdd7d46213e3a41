r"""Passes over completions of a causal language model: what the gradients of log-probabilities are
used for, without ever holding more than one of them.

With c_i for the coefficients and v for a vector of parameter space (all weights of the model, or
those that are trained, as of a LoRA adapter):

.. math:: \sum_i c_i \nabla \log \pi(y_i \mid x_i) \qquad \text{(one backward pass),}
          \qquad \langle \nabla \log \pi(y_i \mid x_i), v \rangle \text{ for every } i
          \qquad \text{(two forward passes).}

Any number of linear statistics of the scores, for instance one for each k of pass@k, follow from
the second as sums over (M, n) numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.central import TOLERANCE, Differences, central_differences
from passgrad.lm.completions import Completions
from passgrad.lm.directional import (
    forward_mode,
    has_experts,
    no_forward_mode,
    plain_operations,
)
from passgrad.lm.groups import groups_of
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, Packed, join, packed_logprobs
from passgrad.lm.packing import Packing, Packs, choose_packing
from passgrad.lm.parameters import ParameterLayout, without_wrapper

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Literal["auto", "forward", "central"]

#: up to so many parameters "auto" takes the exact form: its time does not matter there
SMALL: Final = 20_000_000
#: "auto" leaves central differences when two steps disagree by more than this share
LIMIT: Final = 5e-3
# The step is chosen on this share of the tokens, but on no fewer and no more than so many.
_PILOT_SHARE, _PILOT_LEAST, _PILOT_MOST = 1 / 32, 128, 512


class CompletionPasses:
    r"""Log-probabilities of the completions of M prompts, n each, and their gradients in use.

    The vectors of parameter space are flat, (d,), in the order of ``model.named_parameters()``; a
    tied matrix stands once and its gradient is the sum over its uses. Where only some parameters
    require a gradient, as beside a LoRA adapter, these are the parameters, and nothing is computed
    for the others. The model keeps its weights, except that it is put in evaluation mode: dropout
    would make log-probabilities random.

    Memory beside one packed row of activations: :meth:`gradient` holds the model and the result;
    forward mode the model and the vector; central differences the model, the vector and a copy of
    the weights. Logits exist at the tokens of completions only, one row at a time.

    :param model: A causal language model, or a ``PeftModel`` around one.
    :param rewards: (M, n), kept for those who weigh the completions.
    :param masses: The prompt law, (M,); uniform by default. Kept likewise.
    :param token_budget: Tokens a packed row; more is fewer rows and more memory.
    :param packed: "auto" packs rows where that gives what plain passes give, which is measured
        before anything else (:mod:`passgrad.lm.packing`), and else scores each sequence in a row of
        its own; True insists, False never packs.
    :param parameters: The names of the parameters, instead of those that require a gradient.
    :raises UserError: For rewards or masses of another shape, and ``packed=True`` for a model that
        gives other values packed than alone.
    """

    #: whether forward mode over forward mode is to be had
    nested_forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        model: PreTrainedModel,
        completions: Completions,
        rewards: Any,
        masses: Any = None,
        *,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        packed: Packs = "auto",
        parameters: Iterable[str] | None = None,
    ) -> None:
        self.model = without_wrapper(model.eval())
        self.completions = completions
        self.rewards = _rewards(rewards, completions.shape)
        self.masses = prompt_law(masses, completions.shape[0])
        self.layout = ParameterLayout(self.model, parameters)
        every = [one for one in self.model.parameters() if one.is_floating_point()]
        # What log-probabilities are computed in is the coarsest of them.
        self._dtype = min((one.dtype for one in every), key=lambda dtype: dtype.itemsize)
        self._size = sum(one.numel() for one in every)
        self.token_budget = token_budget
        #: how sequences are laid out, and why
        self.packing = self._choose_packing(packed)
        # Why there is no forward mode, once that is known.
        self._lacks_forward = ""
        #: how much the last central differences changed with half the step; None without any
        self.last_error: float | None = None

    @torch.no_grad()
    def logprobs(self, where: Tensor | None = None) -> Tensor:
        """Log-probabilities log pi(y_i | x): (M, n), float64.

        :param where: (M, n) bool; only these completions are scored, the others are nan.
        """
        return self.spread(self._scores(self.completions.chosen(where)), where)

    def gradient(self, coefficients: Any) -> Tensor:
        """sum_i c_i grad log pi(y_i | x) for (M, n) coefficients: (d,), in float32 at least.

        One forward and backward pass over the completions whose coefficients are not zero.
        """
        weights = self.completions.gather(torch.as_tensor(coefficients))
        if not weights.isfinite().all():
            raise UserError("a coefficient is not finite; give (M, n) numbers")
        total = torch.zeros(
            self.layout.num_parameters,
            dtype=torch.promote_types(self.layout.dtype, torch.float32),
            device=self.model.device,
        )
        # Those that are not asked for go in detached, lest a gradient is computed for them.
        leaves = {
            name: parameter.detach().requires_grad_(name in self.layout.shapes)
            for name, parameter in self.model.named_parameters()
        }
        for name, slot in self.layout.views(total).items():
            # Each gradient goes where it belongs as soon as it is whole, so that no second vector
            # of length d builds up.
            leaves[name].register_post_accumulate_grad_hook(partial(_move_gradient, slot))
        with torch.enable_grad():
            for row in self.rows(weights.nonzero()[:, 0].tolist()):
                values = packed_logprobs(self.model, row, leaves).double()
                (weights[list(row.members)].to(values.device) @ values).backward()
        return total

    def directional(
        self, vector: Tensor, method: Method = "auto", where: Tensor | None = None
    ) -> Tensor:
        r""":math:`\langle \nabla \log \pi(y_i \mid x), v \rangle` for every completion: (M, n),
        float64.

        - "forward": forward mode, exact up to the arithmetic of the model, about three forward
          passes. It takes plain attention, and every operation of the model must have a forward
          derivative.
        - "central": differences (:mod:`passgrad.lm.central`), two forward passes and a choice of
          step, with any attention. The weights are moved in place and put back bit for bit. Only in
          float32 or better.
        - "auto": "central" for models in float32 of more than :data:`SMALL` parameters and without
          experts, unless two steps disagree by more than :data:`LIMIT`; otherwise "forward", and
          "central" again for a model with an operation that has no forward derivative.

        Where a mixture of experts sends a token to the k experts of the largest scores, a
        derivative is that of the piece that these experts make: routing is held, and the jumps
        between pieces, which no gradient of a trainer sees either, are not counted. A difference
        whose step moves a token to another expert has the jump in it, divided by 2 h.

        :param where: (M, n) bool; only these completions are differentiated, the others are nan.
        :raises UserError: For a vector of another length or not finite, an unknown method,
            differences in less than float32, or none that settle.
        """
        return self._directional(self.directions(vector), method, where)

    def directional_by_group(
        self, vector: Tensor, method: Method = "auto", groups: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """:meth:`directional` with the vector restricted to each group of parameters: the values
        add up to those of the whole vector. As many passes as groups.

        :param groups: The group of each parameter; :func:`passgrad.lm.groups.groups_of` by default.
        """
        named = self.directions(vector)
        chosen = groups_of(self.layout) if groups is None else groups
        return {
            group: self._directional(
                {name: v for name, v in named.items() if chosen[name] == group}, method, None
            )
            for group in dict.fromkeys(chosen[name] for name in named)
        }

    def lengths(self, vector: Any) -> tuple[float, float]:
        """||v|| of a vector of parameter space, and ||theta||, summed in float64."""
        return self._length(self.directions(vector)), self._length(self.moved())

    def _length(self, tensors: Mapping[str, Tensor]) -> float:
        return squares(tensors) ** 0.5

    def directions(self, vector: Tensor) -> dict[str, Tensor]:
        """The vector as what each parameter moves by.

        :raises UserError: For another length, and entries that are not finite.
        """
        if tuple(vector.shape) != (self.layout.num_parameters,):
            raise UserError(
                f"a vector of shape {tuple(vector.shape)}; the model has "
                f"{self.layout.num_parameters} parameters"
            )
        if not torch.isfinite(vector.sum()):
            raise UserError("the vector to differentiate along has entries that are not finite")
        return self.layout.views(vector.detach().to(self.model.device))

    def _directional(
        self, directions: Mapping[str, Tensor], method: str, where: Tensor | None
    ) -> Tensor:
        if method not in get_args(Method):
            raise UserError(
                f"unknown method {method!r}; the methods are {', '.join(get_args(Method))}"
            )
        members = self.completions.chosen(where)
        if not members:
            return self.spread(self._placed([], torch.empty(0)), where)
        if method == "auto" and not self._lacks_forward:
            slopes = self._central(directions, members, LIMIT) if self.prefers_central() else None
            if slopes is None:
                try:
                    slopes = self._forward(directions, members)
                except (NotImplementedError, RuntimeError) as error:
                    self._lacks_forward = no_forward_mode(self.model, error)
            if slopes is not None:
                return self.spread(slopes, where)
        elif method == "forward":
            try:
                return self.spread(self._forward(directions, members), where)
            except (NotImplementedError, RuntimeError) as error:
                reason = no_forward_mode(self.model, error)
                raise UserError(f"{reason}; use method='central'") from error
        slopes = self._central(directions, members, float("inf"))
        if slopes is None:
            remedy = f"and {self._lacks_forward}" if self._lacks_forward else "use method='forward'"
            raise UserError(f"central differences along this vector are not finite; {remedy}")
        return self.spread(slopes, where)

    def prefers_central(self) -> bool:
        """Whether "auto" begins with central differences."""
        return self._dtype == torch.float32 and self._size > SMALL and not has_experts(self.model)

    def _central(
        self, directions: Mapping[str, Tensor], members: Sequence[int], limit: float
    ) -> Tensor | None:
        number = {member: place for place, member in enumerate(members)}
        tokens = sum(row.num_tokens for row in self.rows(members))
        size = min(max(int(tokens * _PILOT_SHARE), _PILOT_LEAST), _PILOT_MOST)
        pilot = self.completions.sample(members, size)

        @torch.no_grad()
        def evaluate(places: Sequence[int]) -> Tensor:
            some = [members[place] for place in places]
            return self._scores(some)[some]

        found = self._differences(
            evaluate,
            len(members),
            directions,
            pilot=[number[member] for member in pilot],
            tolerance=TOLERANCE,
            limit=limit,
        )
        if found is None:
            return None
        self.last_error = found.error
        return self._placed(members, found.slopes)

    def _differences(
        self,
        evaluate: Callable[[Sequence[int]], Tensor],
        count: int,
        directions: Mapping[str, Tensor],
        **options: Any,
    ) -> Differences | None:
        """Central differences of what is moved here; several processes agree on the step."""
        return central_differences(evaluate, count, self.moved(), directions, **options)

    def moved(self) -> Mapping[str, Tensor]:
        """The parameters, or the shares of them, that this process moves along a vector."""
        return self.layout.parameters(self.model)

    def _forward(self, directions: Mapping[str, Tensor], members: Sequence[int]) -> Tensor:
        model = self.model
        named = {
            name: parameter.detach()
            for name, parameter in self.layout.parameters(model).items()
            if name in directions
        }
        tangents = {name: directions[name].to(p.dtype) for name, p in named.items()}
        result = self._placed([], torch.empty(0))
        with plain_operations(model):
            for row in self.rows(members):
                _, slope = forward_mode(partial(packed_logprobs, model, row), named, tangents)
                result[list(row.members)] = slope.double().cpu()
        return result

    def _scores(self, members: Sequence[int]) -> Tensor:
        """(S,) float64 log-probabilities of these sequences, nan for the others."""
        result = self._placed([], torch.empty(0))
        for row in self.rows(members):
            result[list(row.members)] = packed_logprobs(self.model, row).double().cpu()
        return result

    def _placed(self, members: Sequence[int], values: Tensor) -> Tensor:
        result = torch.full((len(self.completions.sequences),), torch.nan, dtype=torch.float64)
        result[list(members)] = values.double()
        return result

    def spread(self, values: Tensor, where: Tensor | None) -> Tensor:
        """(S,) values of the sequences as (M, n) of the completions, nan outside of ``where``."""
        spread = self.completions.spread(values)
        # A completion that was not asked for may be equal to one that was.
        return spread if where is None else spread.masked_fill(~torch.as_tensor(where), torch.nan)

    def rows(self, members: Sequence[int]) -> list[Packed]:
        """The rows of these sequences, packed or not."""
        return self._rows(members, self.packing.packed)

    def _rows(self, members: Sequence[int], packed: bool) -> list[Packed]:
        if not packed:
            return self.completions.rows(members, packed=False)
        rows = self.completions.rows(members, token_budget=self.token_budget)
        return join(self.model, rows, self.token_budget)

    def _choose_packing(self, wanted: Packs) -> Packing:
        """One way for all of them."""
        rows = self._rows(self.completions.chosen(), wanted is not False)
        return choose_packing(self.model, self.completions.sequences, rows, wanted)


@torch.no_grad()
def squares(tensors: Mapping[str, Tensor]) -> float:
    """The sum of the squares of all entries, in float64 and in pieces."""
    pieces = (piece for one in tensors.values() for piece in one.reshape(-1).split(1 << 22))
    return sum(float(piece.double().square().sum()) for piece in pieces)


@torch.no_grad()
def _move_gradient(slot: Tensor, leaf: Tensor) -> None:
    assert leaf.grad is not None
    slot += leaf.grad.to(slot.device)
    leaf.grad = None


def _rewards(rewards: Any, shape: tuple[int, int]) -> Tensor:
    made = torch.as_tensor(rewards, dtype=torch.float64)
    if tuple(made.shape) != shape:
        raise UserError(f"rewards of shape {tuple(made.shape)}; give one a completion, {shape}")
    if not made.isfinite().all():
        raise UserError("a reward is not finite; give (M, n) numbers")
    return made


def prompt_law(masses: Sequence[float] | Tensor | None, num_prompts: int) -> Tensor:
    """The prompt law D, (N,), float64; uniform without ``masses``.

    :raises UserError: For another number of masses, a negative one, or a sum other than one.
    """
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
