"""Word problems: reading them, and judging answers."""

import json
import time
from pathlib import Path

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.tasks.gsm8k import gsm8k, verify

SHARED = Path(__file__).resolve().parents[4] / "shared/data/gsm8k/train-first-600.jsonl"
PROMPT = Prompt("", "How many?", "18")


def problem(number):
    return {
        "question": f"There are {number}\napples and one more. How many?",
        "answer": f"{number}+1 = <<{number}+1={number + 1}>>{number + 1} apples.\n"
        f"#### {number + 1:,}",
    }


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="gsm8k.jsonl"):
        path = tmp_path / name
        texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return path

    return lines


def test_problems_become_prompts(write):
    path = write(*(problem(1200 + i) for i in range(10)))
    task = gsm8k(path, num_prompts=3, num_examples=2, max_new_tokens=77)
    assert task.max_new_tokens == 77
    assert len(task.prompts) == 3
    [context] = {prompt.context for prompt in task.prompts}
    assert context.count("Question:") == 2
    assert "<<" not in context  # annotations for a calculator
    for prompt in task.prompts:
        number = int(prompt.id.removeprefix("gsm8k:")) - 1 + 1200
        assert prompt.question == (
            f"Question: There are {number} apples and one more. How many?\nAnswer:"
        )
        assert prompt.answer == str(number + 1)  # no thousands separator
        assert prompt.question not in context
        assert task.verify(f" so #### {number + 1:,}", prompt)
        assert not task.verify(f" so #### {number}", prompt)
    # A solution ends with the stop and holds none.
    for line in context.splitlines():
        assert line.startswith(("Question: ", "Answer: "))


def test_the_seed_decides(write):
    path = write(*(problem(i) for i in range(30)))
    assert gsm8k(path, seed=1).prompts == gsm8k(path, seed=1).prompts
    assert gsm8k(path, seed=1).prompts != gsm8k(path, seed=2).prompts


def test_a_folder_with_one_file(write, tmp_path):
    write(*(problem(i) for i in range(30)))
    assert len(gsm8k(tmp_path).prompts) == 16
    write(problem(1), name="other.jsonl")
    with pytest.raises(UserError, match="holds 2 .jsonl files; name the one"):
        gsm8k(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 .jsonl files"):
        gsm8k(tmp_path / "empty")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([problem(1), '{"question": '], "line 2: not valid JSON"),
        ([problem(1), "", {"question": "q"}], "line 3: no text under 'answer'"),
        ([{"question": 5, "answer": "#### 5"}], "line 1: no text under 'question'"),
        ([problem(1), {"question": "q", "answer": "five"}], "line 2: the answer lacks '####'"),
        ([["q", "a"]], "line 1: expected a JSON object, found a list"),
        ([], "is empty; give a file of GSM8K rows"),
        ([problem(1), problem(2)], "has 2 rows here, and 16 prompts with 4 examples need more"),
    ],
)
def test_bad_files_are_named(write, rows, message):
    path = write(*rows)
    with pytest.raises(UserError, match=message) as caught:
        gsm8k(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        gsm8k(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("options", [{"num_prompts": 0}, {"num_examples": -1}])
def test_bad_counts(write, options):
    with pytest.raises(UserError, match="give at least 1 and 0"):
        gsm8k(write(problem(1)), **options)


@pytest.mark.parametrize("text", ["18", "18.0", "18.", "$18", " 18 ", "36/2", "\\boxed{18}"])
def test_right_answers(text):
    assert verify(f"He has 2 * 9 of them. #### {text}", PROMPT)


@pytest.mark.parametrize(
    "completion",
    ["", "18", "#### ", "####", "#### 19", "#### -18", "#### x", "#### 18 #### 19", "18 ####"],
)
def test_wrong_answers(completion):
    assert not verify(completion, PROMPT)


@pytest.mark.parametrize(
    "answer",
    [
        "9**9**9**9", "9^{9^{9^{9}}}", "9" * 10**6, "9" * 150, "99999999!", "1e999999999",
        "\\frac{1}{0}", "__import__('os').abort()", "(" * 199, "\x00", "\\sqrt" * 30,
    ],
)  # fmt: skip
def test_hostile_answers_are_wrong_and_quick(answer):
    begun = time.monotonic()
    assert verify(f"#### {answer}", PROMPT) is False
    assert time.monotonic() - begun < 15


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared rows are not here")
def test_the_shared_rows():
    task = gsm8k(SHARED, num_prompts=40)
    assert len(task.prompts) == 40
    for prompt in task.prompts:
        assert task.verify(f" #### {prompt.answer}", prompt)
        assert not task.verify(f" #### {prompt.answer}1", prompt)
