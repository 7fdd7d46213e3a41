r"""Counting: which number comes next, behind a few worked examples.

A small language model mostly knows the answer and names it too seldom when it samples: its most
likely answer is right for more prompts than its pass@1 says. That is soon trained, also for prompts
that are not trained on, and makes this the quickest task to see a training run do something.
"""

from __future__ import annotations

import random

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match

STOP = "\n"


def counting(
    *, num_prompts: int = 80, num_examples: int = 4, smallest: int = 10, largest: int = 98,
    seed: int = 0,
) -> Task:  # fmt: skip
    """``after 41 comes 42``: numbers from ``smallest`` to ``largest``, each asked or shown once.

    :param seed: Chooses the examples, which all prompts share, and the prompts.
    :raises UserError: For no prompts, and more than the range has numbers.
    """
    numbers = range(smallest, largest + 1)
    if num_prompts < 1 or num_examples < 0 or smallest < 0:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples} and smallest {smallest}; "
            "give at least 1, 0 and 0"
        )
    if len(numbers) < num_prompts + num_examples:
        raise UserError(
            f"the numbers from {smallest} to {largest} are {len(numbers)}, and {num_prompts} "
            f"prompts with {num_examples} examples need more; widen the range"
        )
    chosen = random.Random(seed).sample(numbers, num_examples + num_prompts)
    context = "".join(f"{_question(one)}{one + 1}{STOP}" for one in chosen[:num_examples])
    prompts = tuple(
        Prompt(context, _question(one), str(one + 1), f"{one // 10 * 10} to {one // 10 * 10 + 9}",
               str(one))
        for one in sorted(chosen[num_examples:])
    )  # fmt: skip
    # The answer ends with the stop: a token a digit at most, and one to spare.
    return Task("counting", prompts, exact_match, STOP, len(str(largest + 1)) + 2)


def _question(number: int) -> str:
    return f"after {number} comes "
