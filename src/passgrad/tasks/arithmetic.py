"""Plain arithmetic in few-shot form: families of sums, products and remainders, easy and hard.

The families ask different questions in one notation and agree about what the symbols mean, unlike
those of :mod:`passgrad.tasks.conventions`. They are the natural case to hold the two conventions
against.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match

STOP = "\n"


@dataclass(frozen=True)
class Family:
    """Questions ``x <symbol> y =`` with operands in two ranges (both ends included)."""

    symbol: str
    apply: Callable[[int, int], int]
    left: tuple[int, int]
    right: tuple[int, int]


FAMILIES = {
    "1-digit sums": Family("+", operator.add, (1, 9), (1, 9)),
    "2-digit sums": Family("+", operator.add, (10, 49), (10, 49)),
    "products": Family("*", operator.mul, (2, 9), (2, 9)),
    "remainders": Family("%", operator.mod, (10, 49), (2, 9)),
}


def arithmetic(
    *,
    families: Sequence[str] = tuple(FAMILIES),
    num_prompts: int = 8,
    num_examples: int = 8,
    seed: int = 0,
) -> Task:
    """``num_prompts`` prompts of each family behind one shared context of ``num_examples`` mixed
    examples.

    :param families: Names out of ``FAMILIES``.
    :param seed: Chooses examples and prompts; no example is asked.
    :raises UserError: For an unknown family or one named twice, no prompts, or more than there are.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown:
        raise UserError(f"unknown families {unknown}; choose among {', '.join(FAMILIES)}")
    if not families or len(set(families)) < len(families):
        raise UserError(
            f"families is {tuple(families)}; name each once, among {', '.join(FAMILIES)}"
        )
    if num_prompts < 1 or num_examples < 0:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples}; give at least 1 and 0"
        )
    generator = random.Random(seed)
    examples: list[Prompt] = []
    asked: list[Prompt] = []
    for place, name in enumerate(families):
        # The examples go round the families, so that each has about as many as any other.
        shown = len(range(place, num_examples, len(families)))
        chosen = _choose(name, shown + num_prompts, generator)
        examples += chosen[:shown]
        asked += chosen[shown:]
    generator.shuffle(examples)
    context = "".join(f"{one.question}{one.answer}{STOP}" for one in examples)
    prompts = tuple(Prompt(context, one.question, one.answer, one.group, one.id) for one in asked)
    longest = max(len(prompt.answer) for prompt in prompts)
    return Task("arithmetic", prompts, exact_match, STOP, longest + 2)


def _choose(name: str, count: int, generator: random.Random) -> list[Prompt]:
    family = FAMILIES[name]
    pairs = [
        (x, y)
        for x in range(family.left[0], family.left[1] + 1)
        for y in range(family.right[0], family.right[1] + 1)
    ]
    if count > len(pairs):
        raise UserError(
            f"the family {name!r} has {len(pairs)} questions, and {count} were asked for; "
            "lower num_prompts"
        )
    return [
        Prompt(
            "", f"{x}{family.symbol}{y}=", str(family.apply(x, y)), name, f"{x}{family.symbol}{y}"
        )
        for x, y in generator.sample(pairs, count)
    ]
