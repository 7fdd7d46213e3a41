"""The frontier of the two conventions in a language model, over all of its weights, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.lm.models import load_model
from passgrad.objectives import PassAtK
from passgrad.tasks.conventions import STOP, conventions
from passgrad.training.directions import Euclidean
from passgrad.training.frontier import frontier
from passgrad.worlds.base import World
from passgrad.worlds.language import LanguageWorld

if TYPE_CHECKING:
    from pandas import DataFrame

_PASS_AT_1 = torch.tensor([1.0, 0.0], dtype=torch.float64)


def two_conventions_frontier(
    *,
    model: str,
    seed: int,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    warmup_cosine: float,
    methods: Sequence[str],
    k: float,
    steps: int,
    length: float | None = None,
    step_size: float | None = None,
    progress: Callable[[str], Any] | None = None,
) -> dict[str, DataFrame]:
    """:func:`~passgrad.training.frontier.frontier` in the world of two conventions, from a point
    of :func:`until_conflict`.

    ``num_prompts`` sums are asked in base 10, which have the mass ``1 - hard_fraction`` together,
    and in base 9; ``seed`` draws them and the worked examples. The tables are those of
    ``frontier`` and ``"warmup"``. All arguments but ``progress`` are plain values, and the same
    ones give the same tables on one machine: they can be the parameters of a stored result.
    """
    network, tokenizer = load_model(model)
    counts = (num_prompts, num_prompts)
    task = conventions(num_prompts=counts, num_examples=num_examples, seed=seed)
    shares = torch.tensor([1 - hard_fraction, hard_fraction], dtype=torch.float64) / num_prompts
    masses = shares.repeat_interleave(num_prompts)
    world = LanguageWorld(network, tokenizer, task.prompts, stop=STOP, masses=masses)
    theta, warmup = until_conflict(
        world, k=k, step_size=warmup_step_size, steps=warmup_steps, cosine=warmup_cosine
    )
    tables = frontier(
        world, theta, methods, k=k, steps=steps, length=length, step_size=step_size,
        progress=progress,
    )  # fmt: skip
    return tables | {"warmup": warmup}


def until_conflict(
    world: World,
    theta: Tensor | Sequence[float] | None = None,
    *,
    k: float,
    step_size: float,
    steps: int,
    cosine: float,
) -> tuple[Tensor, DataFrame]:
    """Ascent on pass@1 until the cosine of the gradients of J_1 and J_k is first below ``cosine``,
    and no longer than ``steps`` steps.

    Returns theta there and one row a point: step, J_1, J_k and the cosine.
    """
    import pandas as pd

    theta = world.parameters(theta).clone()
    rows = []
    for step in range(steps + 1):
        success = world.success(theta)
        weights = torch.stack([world.masses * PassAtK(one).weight(success) for one in (1, k)])
        gram, combine = Euclidean()(world, theta, success, weights)
        values = [float(world.masses @ PassAtK(one).value(success)) for one in (1, k)]
        measured = float(gram[0, 1] / gram.diagonal().prod().sqrt())
        rows.append((step, *values, measured))
        if measured < cosine:
            break
        if step < steps:
            theta.add_(combine(_PASS_AT_1), alpha=step_size)
        del combine  # else its gradients would live beside their successors
    return theta, pd.DataFrame(rows, columns=["step", "pass_at_1", "pass_at_k", "cosine"])
