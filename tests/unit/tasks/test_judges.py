"""Functions of users in the forms of verl and TRL, and what is kept of their messages."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.tasks.verifiers import Verifier

pytestmark = pytest.mark.usefixtures("processes")  # every judge is one

FILE = """
import sys

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0 if ground_truth in solution_str and data_source == "sums" else 0.0

def graded(solution_str, ground_truth, method="strict", **kwargs):
    right = ground_truth in solution_str
    return {"score": 1.0 if right else -1.0, "acc": right, "pred": solution_str}

def dict_of_two(completion, answer):
    return {"score": 1 if answer in completion else -1}

def reward(completions, **kwargs):
    assert len(completions) == 1
    return [1.0 if kwargs["answer"][0] in completions[0] else 0.0]

def accuracy_reward(completions: list[list[dict[str, str]]], solution: list[str], **kwargs):
    texts = [completion[0]["content"] for completion in completions]
    return [float(right in text) for text, right in zip(texts, solution)]

def with_prompts(prompts, completions, ground_truth):
    return [float(p in c and g in c) for p, c, g in zip(prompts, completions, ground_truth)]

async def later(prompts, completions, answer, trainer_state, log_metric):
    log_metric("x", 1)
    return [float(answer[0] in completions[0])]

def fails(completion, answer):
    print("looking at", completion)
    sys.stderr.write("twice")
    raise KeyError("no such column")

def half(completions, **kwargs):
    return [0.5]

def none(completion, answer):
    return None

def lacks(completion, answer):
    return missing_name(completion)

def not_always(completion, answer):
    return 1 / len(completion.split("####")[1:])

def three(a, b, c):
    return 1

def unknown(completions, rubric):
    return [1]

def one(completion):
    return 1
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / "many_judges.py"
    path.write_text(FILE)
    return path


PROMPT = Prompt("", "x?", "7", "sums", "a")


@pytest.mark.parametrize(
    "name",
    [
        "compute_score",
        "graded",
        "dict_of_two",
        "reward",
        "accuracy_reward",
        "with_prompts",
        "later",
    ],
)
def test_the_forms_of_others(file, name):
    with Verifier(f"{file}:{name}") as verifier:
        verifier.check([PROMPT])
        rewards, incidents = verifier.judge(["x? is 7", "x? is 8"] * 2, [PROMPT] * 4)
    assert rewards.tolist() == [1, 0, 1, 0]
    assert incidents == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fails", "raised KeyError: 'no such column'; it printed 'looking at x twice'"),
        ("half", "returned [0.5], which is neither 0 nor 1"),
        ("none", "returned None, which is neither 0 nor 1"),
    ],
)
def test_messages_are_kept(file, name, says):
    with Verifier(f"{file}:{name}") as verifier:
        rewards, [incident] = verifier.verify_all(["x"], ["7"])
    assert rewards.tolist() == [0]
    assert says in incident.reason


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("three", r"\(a, b, c\) are none of the forms: give f\(completion, answer\)"),
        ("one", "none of the forms"),
        ("unknown", "argument 'rubric' is not known"),
    ],
)
def test_other_parameters_are_refused_before_anything_is_judged(file, name, says):
    with pytest.raises(UserError, match=says) as caught:
        Verifier(f"{file}:{name}").check([PROMPT])
    assert "verl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_function_gets_a_hint(file):
    with pytest.raises(UserError, match=r"no function 'rewards'; did you mean 'reward'\?"):
        Verifier(f"{file}:rewards").check([PROMPT])


def test_a_misspelt_file_of_a_judge_gets_a_hint(file):
    with pytest.raises(UserError, match="did you mean '.*many_judges.py'"):
        Verifier(f"{file.with_name('many_judge.py')}:f")


def test_a_function_that_lacks_something_is_refused_and_one_that_may_fail_is_not(file):
    with Verifier(f"{file}:lacks") as verifier, pytest.raises(UserError, match="'missing_name'"):
        verifier.check([PROMPT])
    with Verifier(f"{file}:not_always") as verifier:
        verifier.check([PROMPT])
        assert verifier.judge(["so #### 7", "7"], [PROMPT] * 2)[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("spec", "says"), [("maths", "did you mean 'math'"), ("my_judge.py", "my_judge.py:judge")]
)
def test_a_misspelt_verifier_gets_a_hint(spec, says):
    with pytest.raises(UserError, match=says):
        Verifier(spec)
