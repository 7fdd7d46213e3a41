"""How often a step changes which experts a token is sent to, and what a difference makes of it.

In double precision, so that little is left between a difference and the derivative but the bend of
the landscape and the jumps between its pieces. Norms and the choice of experts are in float32,
which is what is seen at the shortest steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from passgrad.lm.central import Displacement, length
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad_book.architectures.families import tiny

KIND = "mixtral"
#: the displacement over the length of the parameters; SmolLM2 and the tiny models take about 1e-6
STEPS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_LENGTH = 12  # tokens of a completion
HEAD = (
    "| step | choices that change | completions with such a choice | gap of those | gap of the "
    "others |\n|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Routing:
    """``step``: the displacement over the length of the parameters. ``choices``: the share of
    (token, layer) whose experts are others at one of the two ends. ``completions``: the share with
    any such token. ``jumped`` and ``smooth``: the distance of differences from forward mode over
    the length of the latter, for these and for the others; nan without any.
    """

    step: float
    choices: float
    completions: float
    jumped: float
    smooth: float


def measure_routing(kind: str = KIND) -> list[Routing]:
    """At each of the steps, along the gradient of a random sum of log-probabilities."""
    model = tiny(kind).double()
    model.set_experts_implementation("eager")  # fused ones have no double precision
    generator = torch.Generator().manual_seed(4)
    prompts = torch.randint(1, 90, (8, 10), generator=generator).tolist()
    drawn = torch.randint(1, 90, (8, 12, _LENGTH), generator=generator).tolist()
    given = Completions.from_tokens(prompts, drawn)
    passes = CompletionPasses(model, given, torch.zeros(given.shape))
    c = torch.randn(given.shape, generator=generator, dtype=torch.float64)
    vector = passes.gradient(c)
    exact = passes.directional(vector, "forward").flatten()
    moved = passes.layout.parameters(model)
    views = passes.layout.views(vector)
    unit = length(moved) / length(views)
    # One batch, for all are of one length.
    ids = torch.tensor([[*one.prefix, *one.target] for one in given.sequences])
    _, before = _pass(model, ids)
    rows = []
    for step in STEPS:
        h = step * unit
        with Displacement(moved, views) as displaced:
            displaced.to(h)
            up, ahead = _pass(model, ids)
            displaced.to(-h)
            down, behind = _pass(model, ids)
        slopes = (up - down) / (2 * h)
        changed = (ahead != before).any(-1) | (behind != before).any(-1)
        jumped = changed.any(0).any(-1)
        rows.append(
            Routing(
                step,
                float(changed.double().mean()),
                float(jumped.double().mean()),
                _gap(slopes, exact, jumped),
                _gap(slopes, exact, ~jumped),
            )
        )
    return rows


def _gap(found: Tensor, exact: Tensor, where: Tensor) -> float:
    if not where.any():
        return float("nan")
    return float((found - exact)[where].norm() / exact[where].norm())


@torch.no_grad()
def _pass(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(S,) log-probabilities of the completions, and the experts of every token in every layer,
    (layers, S, tokens, k).
    """
    with _watched(model) as seen:
        table = model(input_ids=ids[:, :-1], use_cache=False).logits.log_softmax(-1)
    values = table.gather(-1, ids[:, 1:, None])[:, -_LENGTH:, 0].sum(-1)
    routes = torch.stack(seen)
    return values, routes.unflatten(1, (len(ids), -1))


@contextmanager
def _watched(model: Any) -> Iterator[list[Tensor]]:
    """Within it, the experts that each layer chooses, in ascending order."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda *given: seen.append(given[-1][-1].sort(-1).values))
        for module in model.modules()
        if type(module).__name__.endswith("TopKRouter")
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def table() -> str:
    """The table of the book."""
    rows = [" | ".join(_cell(value) for value in astuple(row)) for row in measure_routing()]
    return HEAD + "".join(f"| {row} |\n" for row in rows)


def _cell(value: float) -> str:
    return "" if value != value else "0" if value == 0 else f"{value:.1e}"
