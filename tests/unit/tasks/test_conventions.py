"""The same sums in two bases."""

import re

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import exact_match
from passgrad.tasks.conventions import STOP, conventions, digits

LINE = re.compile(r"(\d+)\+(\d+)=(\d+)")


def shown(context):
    """Heading and examples (left, right, sum) of a context, as numbers in its base."""
    heading, *lines = context.split("\n")[:-1]
    base = int(heading.removeprefix("base "))
    return base, [
        tuple(int(part, base) for part in LINE.fullmatch(line).groups()) for line in lines
    ]


def operands(prompt, base):
    return tuple(int(part, base) for part in prompt.question.removesuffix("=").split("+"))


@pytest.mark.parametrize("base", range(2, 11))
def test_digits_are_read_back_by_python(base):
    for number in [*range(300), 10**12 + 7]:
        written = digits(number, base)
        assert int(written, base) == number
        assert written == "0" or not written.startswith("0")


@pytest.mark.parametrize("seed", range(5))
def test_every_sum_is_right_in_its_base(seed):
    task = conventions(seed=seed)
    assert [prompt.group for prompt in task.prompts] == ["base 10"] * 14 + ["base 9"] * 6
    for prompt in task.prompts:
        base, examples = shown(prompt.context)
        assert prompt.group == f"base {base}"
        assert len(examples) == 8
        for x, y, total in examples:
            assert x + y == total
        x, y = operands(prompt, base)
        assert int(prompt.answer, base) == x + y
        assert task.verify(prompt.answer, prompt)
        # The other convention gives another answer, so none is right by both.
        assert prompt.answer != digits(x + y, 19 - base)
        assert len(prompt.answer) < task.max_new_tokens
    assert task.stop == STOP == "\n"
    assert task.verify is exact_match


@pytest.mark.parametrize("seed", range(5))
def test_no_example_is_asked(seed):
    for prompt in conventions(num_prompts=(10, 10), seed=seed).prompts:
        base, examples = shown(prompt.context)
        assert operands(prompt, base) not in {(x, y) for x, y, _ in examples}


@pytest.mark.parametrize("seed", range(5))
def test_both_bases_ask_and_show_the_same_sums(seed):
    task = conventions(num_prompts=(12, 5), seed=seed)
    asked = {10: set(), 9: set()}
    contexts = {}
    for prompt in task.prompts:
        base, examples = shown(prompt.context)
        contexts.setdefault(base, examples)
        assert contexts[base] == examples  # one context a base
        asked[base].add(operands(prompt, base))
    assert contexts[9] == contexts[10]
    assert asked[9] < asked[10]
    assert (len(asked[10]), len(asked[9])) == (12, 5)


def test_the_seed_decides():
    assert conventions(seed=3) == conventions(seed=3)
    assert conventions(seed=3).prompts != conventions(seed=4).prompts
    ids = [prompt.id for prompt in conventions().prompts]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bases": (10, 11)}, "base 11 cannot be written in decimal digits"),
        ({"bases": (1, 9)}, "base 1 cannot be written"),
        ({"bases": (), "num_prompts": ()}, "give at least one base, each once"),
        ({"bases": (9, 9)}, "give at least one base, each once"),
        ({"num_prompts": (3,)}, "give one positive number a base"),
        ({"num_prompts": (3, 0)}, "give one positive number a base"),
        ({"num_examples": -1}, "no negative number of examples"),
        ({"num_prompts": (500, 1)}, "operands 2 to 8 give .* widen the range"),
        ({"smallest": 8, "largest": 2}, "give 0 sums"),
        ({"smallest": -3}, "smallest is -3; operands are non-negative"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message) as caught:
        conventions(**options)
    assert "\n" not in str(caught.value)
