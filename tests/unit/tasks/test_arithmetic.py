"""Families of plain arithmetic."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.arithmetic import FAMILIES, arithmetic

# Not the operators of the module: what a reader takes the signs to mean.
MEANING = {
    "+": lambda x, y: sum([x, y]),
    "*": lambda x, y: sum([x] * y),
    "%": lambda x, y: x - y * (x // y),
}


def right(line):
    question, answer = line.split("=")
    [sign] = [sign for sign in MEANING if sign in question]
    x, y = map(int, question.split(sign))
    return str(MEANING[sign](x, y)) == answer


@pytest.mark.parametrize("seed", range(5))
def test_questions_and_examples_are_right(seed):
    task = arithmetic(seed=seed)
    assert len({prompt.context for prompt in task.prompts}) == 1
    for prompt in task.prompts:
        assert right(prompt.question + prompt.answer)
        assert task.verify(prompt.answer, prompt)
        assert len(prompt.answer) < task.max_new_tokens
    lines = task.prompts[0].context.splitlines()
    assert len(lines) == 8
    assert all(map(right, lines))
    questions = {prompt.question for prompt in task.prompts}
    assert not questions & {line.split("=")[0] + "=" for line in lines}
    assert len(questions) == len(task.prompts) == 8 * len(FAMILIES)


@pytest.mark.parametrize("num_examples", [0, 1, 2, 3, 5])
def test_examples_go_round_the_families(num_examples):
    task = arithmetic(families=("products", "remainders"), num_prompts=3, num_examples=num_examples)
    context = task.prompts[0].context
    assert context.count("*") == (num_examples + 1) // 2
    assert context.count("%") == num_examples // 2
    assert [prompt.group for prompt in task.prompts] == ["products"] * 3 + ["remainders"] * 3


def test_the_seed_decides():
    assert arithmetic(seed=1) == arithmetic(seed=1)
    assert arithmetic(seed=1).prompts != arithmetic(seed=2).prompts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ("sums",)}, r"unknown families \['sums'\]; choose among 1-digit sums"),
        ({"families": ()}, "name each once"),
        ({"families": ("products", "products")}, "name each once"),
        ({"num_prompts": 0}, "num_prompts is 0"),
        ({"num_examples": -1}, "num_examples -1"),
        ({"num_prompts": 100}, "has 81 questions, and 102 were asked for; lower num_prompts"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        arithmetic(**options)
