import pytest

from passgrad import UserError
from passgrad.tasks.counting import counting
from passgrad.tasks.prompt_files import task_by_name


def test_the_next_number_is_asked_behind_examples_that_are_not_asked():
    task = counting(num_prompts=5, num_examples=2, smallest=7, largest=13)
    shown = task.prompts[0].context.splitlines()
    assert len({prompt.context for prompt in task.prompts}) == 1
    numbers = [int(line.split()[1]) for line in shown]
    assert [int(line.split()[-1]) for line in shown] == [number + 1 for number in numbers]
    asked = [int(prompt.id) for prompt in task.prompts]
    assert sorted([*asked, *numbers]) == list(range(7, 14))
    for prompt, number in zip(task.prompts, asked, strict=True):
        assert prompt.question == f"after {number} comes "
        assert task.verify(str(number + 1), prompt)
        assert not task.verify(str(number), prompt)
    assert {prompt.group for prompt in task.prompts} <= {"0 to 9", "10 to 19"}
    assert task.max_new_tokens == 4


def test_the_seed_chooses_and_the_name_is_known():
    assert counting().prompts == task_by_name("counting").prompts
    assert counting(seed=1).prompts != counting().prompts


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_prompts": 0}, "num_prompts is 0"),
        ({"num_prompts": 86}, "are 89, and 86 prompts with 4 examples need more"),
        ({"smallest": -1}, "smallest -1"),
        ({"num_examples": -1}, "num_examples -1"),
    ],
)
def test_what_cannot_be_is_refused(settings, match):
    with pytest.raises(UserError, match=match):
        counting(**settings)
