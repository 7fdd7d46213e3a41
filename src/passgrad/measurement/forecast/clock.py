"""How fast this machine passes over tokens: a few rows of a model, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: seconds that timing may take, about
LIMIT = 10.0
# Rows of so many tokens; forward mode over forward mode takes about so many forward passes.
_TOKENS, _BENDS = 256, 8


@dataclass(frozen=True)
class Pace:
    """Seconds a token: of a gradient (forward and backward), of derivatives along a vector, and of
    second ones.
    """

    gradient: float
    derivative: float
    curvature: float
    tokens: int
    """Of the row that was timed."""


def pace_of(model: PreTrainedModel, completions: Completions, token_budget: int) -> Pace:
    """Time a forward pass, a gradient and the derivatives along it, in :data:`LIMIT` seconds or as
    soon after as a pass is done.

    :param completions: Some of them are passed over.
    """
    begun = time.perf_counter()
    budget = min(token_budget, _TOKENS)
    members = completions.sample(range(len(completions.sequences)), budget)
    row = completions.rows(members, token_budget=budget)[0]
    some = Completions(
        tuple(completions.sequences[i] for i in row.members),
        torch.arange(len(row.members))[None], ("timed",),
    )  # fmt: skip
    passes = CompletionPasses(model, some, torch.zeros(some.shape), token_budget=budget)

    def timed(function: Callable[[], object]) -> float:
        seconds: list[float] = []
        while not seconds or (len(seconds) < 3 and time.perf_counter() - begun < LIMIT / 2):
            start = time.perf_counter()
            function()
            if passes.model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds) / row.num_tokens

    forward = timed(passes.logprobs)
    ones = torch.ones(some.shape, dtype=torch.float64)
    vector = passes.gradient(ones)  # the first one makes what later ones find
    gradient = timed(lambda: passes.gradient(ones))
    if passes.prefers_central():
        derivative = 2 * forward
    else:
        derivative = timed(lambda: passes.directional(vector, "forward"))
    return Pace(gradient, derivative, _BENDS * forward, row.num_tokens)
