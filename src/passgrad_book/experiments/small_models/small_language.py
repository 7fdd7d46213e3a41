"""A language model of a few thousand weights in float64, trained within seconds: two conventions
for sums of two digits, and a stop behind the answer.

It is small enough for every answer to be written down with its probability and its score, so that
a sample of it costs a draw of random numbers (:mod:`passgrad_book.experiments.estimating.answers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.worlds.language import LanguageWorld
from passgrad_book.experiments.small_models.character_llama import (
    character_llama,
    character_tokenizer,
    norms_in_double,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STOP = "\n"
#: The letter before a sum names the convention: plain, or with one added.
CONVENTIONS = ("a", "b")


def small_language_world(
    *,
    base: int = 5,
    steps: int = 50,
    learning_rate: float = 0.01,
    shares: tuple[float, float] = (0.7, 0.3),
    seed: int = 3,
) -> LanguageWorld:
    """The sums of two digits modulo ``base`` under both conventions, 2 base^2 prompts, and a model
    that has learned them in part.

    Training is gradient ascent by Adam on the mean of log p(x) under the prompt law, whole batches:
    the success rates of the rarer convention stay lower. ``shares`` are the masses of the two,
    spread evenly over their prompts; ``seed`` is of the weights at the start. With the defaults
    success rates go from 0.06 to 0.93, and the gradients conflict from k = 6.2 on. Raises UserError
    for a base outside 2..10.
    """
    if not 2 <= base <= 10:
        raise UserError(f"base must lie between 2 and 10, got {base}")
    tokenizer = character_tokenizer("0123456789"[:base] + "".join(CONVENTIONS) + "+=" + STOP)
    model = _model(len(tokenizer), seed)
    prompts = [
        Prompt("", f"{name}{x}+{y}=", str((x + y + shift) % base), name, f"{name}{x}+{y}")
        for shift, name in enumerate(CONVENTIONS)
        for x in range(base)
        for y in range(base)
    ]
    masses = torch.tensor(shares, dtype=torch.float64).repeat_interleave(base**2) / base**2
    world = LanguageWorld(model, tokenizer, prompts, stop=STOP, masses=masses)
    _train(world, steps, learning_rate)
    return world


def _train(world: LanguageWorld, steps: int, learning_rate: float) -> None:
    """All prompts have tokens alike in number, so they make one batch without padding."""
    rows = torch.tensor([[*one.prefix, *one.target] for one in world.tokenized])
    length = len(world.tokenized[0].target)
    optimiser = torch.optim.Adam(world.model.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimiser.zero_grad()
        table = world.model(input_ids=rows[:, :-1]).logits[:, -length:].log_softmax(-1)
        chosen = table.gather(-1, rows[:, -length:, None])[..., 0].sum(dim=1)
        loss: Tensor = -(world.masses @ chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _model(num_tokens: int, seed: int) -> PreTrainedModel:
    model = character_llama(
        num_tokens,
        hidden_size=16,
        intermediate_size=32,
        num_heads=2,
        num_layers=2,
        positions=64,
        spread=0.2,
        seed=seed,
    )
    return norms_in_double(model.eval())
