"""Questions of reasoning-gym with short answers."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.gym import gym_answers


@pytest.mark.parametrize("name", ["gsm_symbolic", "chain_sum", "gcd", "products"])
def test_questions_by_name(name):
    task = gym_answers(name, num_prompts=3, num_examples=2, seed=1)
    assert len({one.question for one in task.prompts}) == len(task.prompts) == 3
    one = task.prompts[0]
    assert one.context.count("Question: ") == 2
    assert one.question.endswith("\nAnswer:")
    assert (one.answer[0], one.group) == (" ", name)
    assert task.verify(one.answer, one)
    assert not task.verify(one.answer + "0", one)
    assert gym_answers(name, num_prompts=3, num_examples=2, seed=1).prompts == task.prompts
    assert gym_answers(name, num_prompts=3, num_examples=2, seed=2).prompts != task.prompts


def test_its_own_scorer(processes):
    task = gym_answers("gcd", num_prompts=2, num_examples=0, judge="scorer")
    one = task.prompts[0]
    with task.verify as judge:
        assert judge(one.answer, one)
        assert not judge(f" The answer is{one.answer}.", one)  # a part of the score is no success
        assert judge(f"<answer>{one.answer.strip()}</answer>", one)


def test_settings_reach_the_data_set():
    task = gym_answers("gcd", num_prompts=4, num_examples=0, min_value=2, max_value=6)
    numbers = task.prompts[0].question.partition("numbers: ")[2].partition(".")[0].split(", ")
    assert all(2 <= int(one) <= 6 for one in numbers)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gdc", {}, "no data set 'gdc'"),
        ("gcd", {"size_of_it": 3}, "cannot make 'gcd' with these settings"),
        ("gcd", {"min_value": 9, "max_value": 2}, "cannot make 'gcd' with these settings"),
        ("gcd", {"judge": "me"}, 'give "exact" or "scorer"'),
        ("gcd", {"num_prompts": 0}, "give at least 1 and 0"),
        ("gcd", {"min_value": 2, "max_value": 3, "num_prompts": 3}, "gave 4 different questions"),
    ],
)
def test_what_cannot_be(name, settings, message):
    with pytest.raises(UserError, match=message):
        gym_answers(name, **settings)


def test_a_data_set_without_answers(monkeypatch):
    import reasoning_gym

    class Silent:
        def __getitem__(self, place):
            return {"question": f"q{place}", "answer": None, "metadata": {}}

    monkeypatch.setattr(reasoning_gym, "create_dataset", lambda *_, **__: Silent())
    with pytest.raises(UserError, match="no reference answer at item 0"):
        gym_answers("gcd", num_prompts=1, num_examples=1)
