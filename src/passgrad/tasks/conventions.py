r"""Two conventions: the same sums, written in base 10 (easy for a language model) and in base 9
(hard).

Both families show worked examples under a heading that names the base, so that the same surface
(digits, plus, equals) asks for two different answers. Learning one convention pulls against the
other: prompts that share parameters and interfere. Each answer is one string of digits, so its
probability is exact (LanguageWorld).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match

STOP = "\n"


def digits(number: int, base: int) -> str:
    """The digits of a non-negative integer in a base from 2 to 10."""
    if number < base:
        return str(number)
    return digits(number // base, base) + str(number % base)


def conventions(
    *,
    num_prompts: Sequence[int] = (14, 6),
    num_examples: int = 8,
    bases: Sequence[int] = (10, 9),
    smallest: int = 2,
    largest: int = 8,
    seed: int = 0,
) -> Task:
    """Few-shot sums of two numbers in each base; none of the sums asked is among the examples.

    A sum is asked only where the bases disagree about its digits (a carry in the smaller base and
    none, or another, in base 10), in every family, so that the families differ in the convention
    and in nothing else.

    :param num_prompts: Prompts of each base, in the order of ``bases``.
    :param num_examples: Worked examples in the shared context of each base.
    :param smallest, largest: Range of the operands, as numbers.
    :param seed: Chooses examples and prompts. Every base shows the same sums as examples; a base
        with fewer prompts asks a subset of the sums of one with more.
    :raises UserError: If a base is not in 2..10, the counts do not fit the bases, or the range
        holds too few sums.
    """
    for base in bases:
        if not 2 <= base <= 10:
            raise UserError(
                f"base {base} cannot be written in decimal digits; give bases from 2 to 10"
            )
    if not bases or len(set(bases)) < len(bases):
        raise UserError(f"bases is {tuple(bases)}; give at least one base, each once")
    if len(num_prompts) != len(bases) or min(num_prompts) < 1 or num_examples < 0:
        raise UserError(
            f"num_prompts is {tuple(num_prompts)} for the bases {tuple(bases)} with {num_examples} "
            "examples; give one positive number a base and no negative number of examples"
        )
    if smallest < 0:
        raise UserError(f"smallest is {smallest}; operands are non-negative")
    sums = [
        (x, y)
        for x in range(smallest, largest + 1)
        for y in range(smallest, largest + 1)
        if len({digits(x + y, base) for base in bases}) == len(set(bases))
    ]
    most = max(num_prompts)
    if len(sums) < most + num_examples:
        raise UserError(
            f"operands {smallest} to {largest} give {len(sums)} sums on which the bases "
            f"{tuple(bases)} disagree, and {most} prompts with {num_examples} examples need more; "
            "widen the range"
        )
    chosen = random.Random(seed).sample(sums, num_examples + most)
    examples, asked = chosen[:num_examples], chosen[num_examples:]
    prompts = []
    for base, count in zip(bases, num_prompts, strict=True):
        lines = [f"{_question(x, y, base)}{digits(x + y, base)}{STOP}" for x, y in examples]
        context = f"base {base}{STOP}" + "".join(lines)
        prompts += [
            Prompt(
                context,
                _question(x, y, base),
                digits(x + y, base),
                f"base {base}",
                f"base{base}:{x}+{y}",
            )
            for x, y in sorted(asked[:count])
        ]
    # An answer of two digits ends with the stop: three tokens, with one to spare for a wrong
    # answer.
    longest = max(len(prompt.answer) for prompt in prompts)
    return Task("conventions", tuple(prompts), exact_match, STOP, longest + 2)


def _question(x: int, y: int, base: int) -> str:
    return f"{digits(x, base)}+{digits(y, base)}="
