"""Replicated samples of completions of a few tokens from a language world."""

from __future__ import annotations

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.rollouts import Sampling
from passgrad.rollouts.shared_beginnings import SharedBeginnings
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
    drawn = []
    for prompt in world.tokenized:
        beginnings = SharedBeginnings(world.model, prompt.prefix, prompt.target[-1:])
        answers = beginnings.draw(replications * num_samples, max_new_tokens, Sampling(), generator)
        drawn.append([answer.token_ids for answer in answers])
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
