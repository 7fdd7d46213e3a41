"""A character-level llama, small enough to train for thousands of exact steps: differences of two
digits, and a letter in front that decides the sign.

Behind ``a`` the answer to ``7-3`` is ``+4``, behind ``b`` it is ``-4``. The digits are the same for
both, so that whatever teaches one family the digits helps the other; the signs are opposite, so
that a model that does not heed the letter can only be right on one family at a time.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.parameters import ParameterLayout
from passgrad.tasks.base import Prompt
from passgrad_book.experiments.life.fixed_length import FixedLengthWorld
from passgrad_book.experiments.small_models.character_llama import (
    character_llama,
    character_tokenizer,
    norms_in_double,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STOP = "\n"
_DIGITS = "0123456789"
_FAMILIES = {"easy": "a", "hard": "b"}


def opposite_signs_world(
    *,
    num_prompts: int = 12,
    hard_fraction: float = 0.38,
    hidden_size: int = 200,
    num_layers: int = 2,
    sign_rate: float = 0.94,
    digit_rate: float = 0.32,
    warm_up_steps: int = 100,
    learning_rate: float = 0.002,
    seed: int = 0,
) -> FixedLengthWorld:
    """The same ``num_prompts`` differences in each family, and a model that has been trained for a
    moment, 1.04 million weights with the default sizes.

    The training is by cross-entropy to a law that does not heed the letter: the sign is that of the
    easy family with probability ``sign_rate``, the digit is right with probability ``digit_rate``
    and otherwise another one, the stop is certain. It ends close to success rates of
    ``sign_rate * digit_rate`` on easy prompts and ``(1 - sign_rate) * digit_rate`` on hard ones:
    0.3 and 0.02. ``seed`` is of the weights and of the choice of differences.

    Raises UserError for a number of prompts outside 1..45, rates outside (0, 1), or a
    ``hidden_size`` that is not a multiple of 8.
    """
    pairs = [(x, y) for x in range(10) for y in range(x)]
    if not 1 <= num_prompts <= len(pairs):
        raise UserError(f"num_prompts must lie between 1 and {len(pairs)}, got {num_prompts}")
    for name, rate in (
        ("hard_fraction", hard_fraction), ("sign_rate", sign_rate), ("digit_rate", digit_rate)
    ):  # fmt: skip
        if not 0 < rate < 1:
            raise UserError(f"{name} must lie between 0 and 1, got {rate}")
    if hidden_size % 8:
        raise UserError(f"hidden_size must be a multiple of 8, got {hidden_size}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(pairs), generator=generator)[:num_prompts].tolist()
    prompts = [
        Prompt("", f"{letter}{x}-{y}=", f"{sign}{x - y}", family, f"{letter}{x}-{y}")
        for (family, letter), sign in zip(_FAMILIES.items(), "+-", strict=True)
        for x, y in (pairs[i] for i in chosen)
    ]
    shares = torch.tensor([1 - hard_fraction, hard_fraction], dtype=torch.float64)
    tokenizer = character_tokenizer([*_DIGITS, *_FAMILIES.values(), *"+-=", STOP])
    model = character_llama(
        len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_heads=4,
        num_layers=num_layers,
        positions=16,
        spread=0.05,
        seed=seed,
    )
    world = FixedLengthWorld(
        model,
        tokenizer,
        prompts,
        stop=STOP,
        masses=shares.repeat_interleave(num_prompts) / num_prompts,
    )
    _warm_up(world, tokenizer, (sign_rate, digit_rate), warm_up_steps, learning_rate)
    return world


def in_double(world: FixedLengthWorld) -> FixedLengthWorld:
    """The same world in float64 throughout: a success rate within 10^-7 of 1 keeps its gradient
    there.
    """
    double = copy.copy(world)
    double.model = norms_in_double(copy.deepcopy(world.model))
    double.layout = ParameterLayout(double.model)
    double.dtype = double.layout.dtype
    return double


def _warm_up(
    world: FixedLengthWorld,
    tokenizer: PreTrainedTokenizerFast,
    rates: tuple[float, float],
    steps: int,
    learning_rate: float,
) -> None:
    """Adam on the cross-entropy, every prompt with either sign in front of the digit."""
    plus, minus, stop = (int(tokenizer.convert_tokens_to_ids(c)) for c in ("+", "-", STOP))
    digits = torch.tensor([int(tokenizer.convert_tokens_to_ids(c)) for c in _DIGITS])
    rows = torch.tensor([[*one.prefix, *one.target] for one in world.tokenized])
    right = (rows[:, -2, None] == digits).float()
    digit_law = rates[1] * right + (1 - rates[1]) / 9 * (1 - right)
    optimiser = torch.optim.Adam(world.model.parameters(), lr=learning_rate)
    for _ in range(steps):
        loss = torch.zeros(())
        for sign, rate in ((plus, rates[0]), (minus, 1 - rates[0])):
            read = rows[:, :-1].clone()
            read[:, -2] = sign
            logits = world.model(input_ids=read, logits_to_keep=3, use_cache=False).logits
            table = logits.log_softmax(-1)
            of_digits = (digit_law * table[:, 1, digits]).sum(dim=1)
            terms: Tensor = rate * table[:, 0, sign] + 0.5 * (of_digits + table[:, 2, stop])
            loss = loss - terms.mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
