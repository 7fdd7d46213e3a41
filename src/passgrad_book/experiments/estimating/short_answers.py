"""Many completions of a few tokens from a language model, drawn token by token with nothing
computed twice: the law of the next token is the same for all completions that begin alike.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.worlds.language import LanguageWorld


def sample_language_world(
    world: LanguageWorld,
    num_samples: int,
    *,
    max_new_tokens: int,
    replications: int = 1,
    seed: int = 0,
) -> list[tuple[Completions, Tensor]]:
    """``replications`` independent samples: completions of each prompt, and their rewards (M, n).

    They come from the weights that the model of ``world`` holds now, at temperature 1 without
    truncation. A completion ends with the stop or after ``max_new_tokens``; it is right if it is
    the accepted answer with its stop. One pass over each prompt, and one short pass for each
    further token over the distinct beginnings. Raises UserError for counts below 1.
    """
    for name, count in (
        ("num_samples", num_samples),
        ("max_new_tokens", max_new_tokens),
        ("replications", replications),
    ):
        if count < 1:
            raise UserError(f"{name} must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        _draw(world, x, replications * num_samples, max_new_tokens, generator)
        for x in range(world.num_prompts)
    ]
    result = []
    for turn in range(replications):
        part = slice(turn * num_samples, (turn + 1) * num_samples)
        some = [mine[part] for mine in drawn]
        completions = Completions.from_tokens(
            [one.prefix for one in world.tokenized], some, [x.id for x in world.prompts]
        )
        right = [
            [float(y == one.target) for y in mine]
            for one, mine in zip(world.tokenized, some, strict=True)
        ]
        result.append((completions, torch.tensor(right, dtype=torch.float64)))
    return result


@torch.no_grad()
def _draw(
    world: LanguageWorld, x: int, count: int, longest: int, generator: torch.Generator
) -> list[tuple[int, ...]]:
    """Completions of one prompt, independent, in the order in which they were drawn."""
    model, one = world.model, world.tokenized[x]
    stop = one.target[-1]
    device = model.device
    start = model(input_ids=torch.tensor([one.prefix], device=device), use_cache=True)
    answers: list[tuple[int, ...]] = [()] * count
    laws: dict[tuple[int, ...], Tensor] = {(): start.logits[0, -1]}
    for length in range(longest):
        by_beginning: dict[tuple[int, ...], list[int]] = {}
        for i, answer in enumerate(answers):
            if len(answer) == length and (not answer or answer[-1] != stop):
                by_beginning.setdefault(answer, []).append(i)
        if length and by_beginning:
            # The cache of the prompt is never written to: each token has a copy of its own.
            cache = copy.deepcopy(start.past_key_values)
            cache.batch_repeat_interleave(len(by_beginning))
            ids = torch.tensor(list(by_beginning), device=device)
            rows = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
            laws = dict(zip(by_beginning, rows, strict=True))
        for beginning, members in by_beginning.items():
            law = laws[beginning].double().softmax(-1).cpu()
            tokens = torch.multinomial(law, len(members), replacement=True, generator=generator)
            for i, token in zip(members, tokens.tolist(), strict=True):
                answers[i] = (*beginning, token)
    return answers
