"""What passes give in the rows that they choose, against plain passes over one sequence each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.rollouts.transformers_engine import scores
from passgrad_book.architectures import experts
from passgrad_book.architectures.families import FAMILIES, tiny
from passgrad_book.build import paths

HEAD = (
    "| family | type | rows | derivative | log-probability | gradient | derivative, forward mode "
    "| by differences |\n|---|---|---|---|---|---|---|---|\n"
)


def drawn() -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts of several lengths, two of which begin alike, and completions of several lengths:
    some sequences are within a window of 8, and some are far beyond it.
    """
    generator = torch.Generator().manual_seed(1)

    def tokens(n: int) -> list[int]:
        return torch.randint(1, 90, (n,), generator=generator).tolist()

    shared = tokens(12)
    prompts = [shared + tokens(9), shared + tokens(3), tokens(5)]
    return prompts, [[tokens(n) for n in (1, 14, 4)] for _ in prompts]


def plain_passes(
    model: Any, prompts: list[list[int]], completions: list[list[list[int]]]
) -> tuple[Tensor, Tensor]:
    """(S,) log-probabilities and (S, d) gradients, one plain pass for each sequence."""
    parameters = [one for _, one in model.named_parameters() if one.requires_grad]
    values, rows = [], []
    for prompt, some in zip(prompts, completions, strict=True):
        for target in some:
            ids = torch.tensor([[*prompt, *target]])
            table = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(target) - 1)
            value = table[list(places), target].double().sum()
            parts = torch.autograd.grad(value, parameters, allow_unused=True)
            values.append(value.detach())
            whole = [
                (torch.zeros_like(parameter) if part is None else part).flatten()
                for parameter, part in zip(parameters, parts, strict=True)
            ]
            rows.append(torch.cat(whole))
    return torch.stack(values), torch.stack(rows).double()


def apart(found: Tensor, expected: Tensor) -> float:
    """How far, over the length of what is expected."""
    return float((found.double() - expected).norm() / expected.norm())


@dataclass(frozen=True)
class Agreement:
    """Relative differences from plain passes; ``forward`` is nan without forward mode. ``said`` is
    what differences say of their error, ``chosen`` is the derivative that is taken by itself.
    """

    packing: str
    packed: bool
    logprob: float
    gradient: float
    forward: float
    differences: float
    said: float
    chosen: float


@cache
def agreement(kind: str) -> Agreement:
    """Of the tiny model of this type, for two token budgets and the column ``logprob``."""
    model = tiny(kind)
    prompts, completions = drawn()
    values, gradients = plain_passes(model, prompts, completions)
    given = Completions.from_tokens(prompts, completions)
    shape = given.shape
    assert given.places.flatten().tolist() == list(range(len(values)))
    whole, small = (
        CompletionPasses(model, given, torch.zeros(shape), token_budget=budget)
        for budget in (1024, 40)
    )
    generator = torch.Generator().manual_seed(2)
    c = torch.randn(shape, generator=generator, dtype=torch.float64)
    truth = c.flatten() @ gradients
    v = (truth / truth.norm()).float()
    slopes = gradients @ v.double()
    columns = scores(model, [tuple(one) for one in prompts],
                     [[tuple(one) for one in some] for some in completions])  # fmt: skip
    column = [
        column[tuple(one)]
        for column, some in zip(columns, completions, strict=True)
        for one in some
    ]
    ways = [whole.logprobs().flatten(), small.logprobs().flatten(), torch.tensor(column)]
    try:
        forward = apart(whole.directional(v, "forward").flatten(), slopes)
    except UserError:
        forward = math.nan
    differences = apart(whole.directional(v, "central").flatten(), slopes)
    said = whole.last_error
    assert said is not None
    return Agreement(
        str(whole.packing),
        whole.packing.packed,
        max(float(((way - values) / values).abs().max()) for way in ways),
        max(apart(one.gradient(c), truth) for one in (whole, small)),
        forward,
        differences,
        said,
        apart(whole.directional(v).flatten(), slopes),
    )


def decade(number: float) -> str:
    """The power of ten above it; empty for nan."""
    if math.isnan(number):
        return ""
    return f"1e{math.ceil(math.log10(max(number, 1e-9))):03d}"


def cells(kind: str) -> list[str]:
    """The row of the table."""
    found = agreement(kind)
    numbers = (found.logprob, found.gradient, found.forward, found.differences)
    return [
        FAMILIES[kind][0],
        f"`{kind}`",
        "packed" if found.packed else "one sequence each",
        "differences" if math.isnan(found.forward) else "forward mode",
        *map(decade, numbers),
    ]


def stated(name: str = "families") -> list[list[str]]:
    """The rows of a table of the page."""
    table = _around(name)[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def write() -> None:
    """The tables of the page, anew."""
    families = HEAD + "".join(f"| {' | '.join(cells(kind))} |\n" for kind in FAMILIES)
    for name, table in {"families": families, "experts": experts.table()}.items():
        before, _, behind = _around(name)
        _page().write_text(before + table + behind)


def _around(name: str) -> tuple[str, str, str]:
    """The page up to a table, the table, and what is behind it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, rest = _page().read_text().split(begin)
    table, behind = rest.split(end)
    return before + begin, table, end + behind


def _page() -> Path:
    return paths.root() / "book" / "architectures.md"
