"""Every causal family of transformers, tiny and random: what passes give in the rows that they
choose, against plain passes over one sequence each. ``python tests/unit/lm/test_architectures.py``
writes the table of the book anew.
"""

import math
from functools import cache
from pathlib import Path

import families
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.rollouts.transformers_engine import _scores

PAGE = Path(__file__).parents[3] / "book" / "architectures.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
HEAD = (
    "| family | type | rows | derivative | log-probability | gradient | derivative, forward mode "
    "| by differences |\n|---|---|---|---|---|---|---|---|\n"
)
#: relative, in float32
CLOSE = 1e-5
#: differences are within so many times of what they say
WITHIN = 4
FAMILIES = list(families.FAMILIES)


def drawn():
    """Prompts of several lengths, two of which begin alike, and completions of several lengths:
    some sequences are within a window of 8, and some are far beyond it.
    """
    generator = torch.Generator().manual_seed(1)

    def tokens(n):
        return torch.randint(1, 90, (n,), generator=generator).tolist()

    shared = tokens(12)
    prompts = [shared + tokens(9), shared + tokens(3), tokens(17), tokens(2)]
    return prompts, [[tokens(n) for n in (7, 1, 14, 3)] for _ in prompts]


def plainly(model, prompts, completions):
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
            rows.append(
                torch.cat([
                    (torch.zeros_like(parameter) if part is None else part).flatten()
                    for parameter, part in zip(parameters, parts, strict=True)
                ])
            )  # fmt: skip
    return torch.stack(values), torch.stack(rows).double()


def apart(found, expected):
    """How far, over the length of what is expected."""
    return float((found.double() - expected).norm() / expected.norm())


@cache
def measured(kind):
    """One row of the table: texts and numbers, which are relative differences."""
    model = families.tiny(kind)
    prompts, completions = drawn()
    values, gradients = plainly(model, prompts, completions)
    given = Completions.from_tokens(prompts, completions)
    shape = given.shape
    passes = CompletionPasses(model, given, torch.zeros(shape))
    assert given.places.flatten().tolist() == list(range(len(values)))
    generator = torch.Generator().manual_seed(2)
    c = torch.randn(shape, generator=generator, dtype=torch.float64)
    truth = c.flatten() @ gradients
    v = (truth / truth.norm()).float()
    found = passes.logprobs().flatten()
    small = CompletionPasses(model, given, torch.zeros(shape), token_budget=40)
    scored = _scores(
        model, [tuple(one) for one in prompts], [[tuple(one) for one in x] for x in completions]
    )
    column = torch.tensor([[table[tuple(ids)] for ids in some]
                           for table, some in zip(scored, completions, strict=True)])  # fmt: skip
    ways = {"budget": small.logprobs(), "column": column}
    for way in ways.values():
        found = torch.stack([found, way.flatten().double()])
        worst = ((found - values).abs() / values.abs()).max(0)
        found = found[worst.indices, range(len(values))]
    slopes = gradients @ v.double()
    try:
        forward = apart(passes.directional(v, "forward").flatten(), slopes)
    except UserError:
        forward = math.nan
    differences = apart(passes.directional(v, "central").flatten(), slopes)
    said = passes.last_error
    chosen = apart(passes.directional(v).flatten(), slopes)
    return {
        "packed": passes.packing.packed,
        "why": str(passes.packing),
        "logprob": float(((found - values).abs() / values.abs()).max()),
        "gradient": max(apart(one.gradient(c), truth) for one in (passes, small)),
        "forward": forward,
        "differences": differences,
        "said": said,
        "chosen": chosen,
    }


def decade(number):
    """The power of ten above it."""
    return "" if math.isnan(number) else f"1e{math.ceil(math.log10(max(number, 1e-9))):03d}"


def cells(kind):
    found = measured(kind)
    return [
        families.FAMILIES[kind][0],
        f"`{kind}`",
        "packed" if found["packed"] else "one sequence each",
        "differences" if math.isnan(found["forward"]) else "forward mode",
        *(decade(found[name]) for name in ("logprob", "gradient", "forward", "differences")),
    ]


def stated():
    """The rows of the book, by type."""
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[1].strip("`"): row for row in rows}


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("kind", FAMILIES)
def test_passes_are_those_of_plain_passes(kind):
    found = measured(kind)
    assert found["logprob"] < CLOSE, found["why"]
    assert found["gradient"] < CLOSE
    assert math.isnan(found["forward"]) or found["forward"] < CLOSE
    # Differences say how good they are, from some of the sequences.
    assert found["said"] < 2e-2
    assert found["differences"] < WITHIN * found["said"]
    assert found["chosen"] < (WITHIN * found["said"] if math.isnan(found["forward"]) else CLOSE)
    row, ours = stated()[kind], cells(kind)
    assert row[:4] == ours[:4], "run this file to write the table of the book anew"
    for here, there in zip(ours[4:], row[4:], strict=True):
        assert bool(here) == bool(there)
        # Another processor sums in another order.
        assert not here or float(here) <= 10 * float(there)


def test_the_table_has_these_families():
    assert list(stated()) == FAMILIES


def write():
    """The table of the book."""
    text = PAGE.read_text()
    table = HEAD + "".join(f"| {' | '.join(cells(kind))} |\n" for kind in FAMILIES)
    PAGE.write_text(text.split(BEGIN)[0] + BEGIN + table + END + text.split(END)[1])


if __name__ == "__main__":
    write()
