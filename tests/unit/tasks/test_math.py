"""MATH: reading it, what stands in the text, and judging answers."""

import json
import time
from pathlib import Path

import pytest

from passgrad.errors import UserError
from passgrad.tasks.math import math_problems

SHARED = Path(__file__).resolve().parents[4] / "shared/data/math500"
OWN = Path(__file__).resolve().parents[3] / "data/math_problems.jsonl"


def problem(number, **more):
    return {"problem": f"What is\n${number}/2$?", "answer": f"\\frac{{{number}}}{{2}}"} | more


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="math.jsonl"):
        path = tmp_path / name
        texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return path

    return lines


def test_problems_become_prompts(write):
    path = write(*(problem(i, level=1 + i % 5, unique_id=f"u{i}") for i in range(3, 13)))
    task = math_problems(path, num_prompts=3, num_examples=2, max_new_tokens=9)
    assert len(task.prompts) == 3
    assert (task.stop, task.max_new_tokens) == ("\n", 9)
    one = task.prompts[0]
    number = int(one.id.removeprefix("u"))
    assert one.question == f"Problem: What is ${number}/2$?\nAnswer:"
    assert one.answer == f" $\\frac{{{number}}}{{2}}$"
    assert one.group == f"level {1 + number % 5}"
    assert one.context.count("Problem: ") == 2
    assert one.question not in one.context


def test_answers_are_judged_by_their_value(processes, write):
    path = write(*(problem(2 * i + 1) for i in range(1, 5)))
    task = math_problems(path, num_prompts=4, num_examples=0)
    one = task.prompts[0]
    number = int(one.answer.split("{")[1].split("}")[0])
    with task.verify as judge:
        assert judge(one.answer, one)
        assert judge(f" ${number / 2}$", one)
        assert judge(f" It is $\\dfrac{{{2 * number}}}{{4}}$.", one)
        assert not judge(f" ${number}$", one)
        assert not judge("", one)


def test_a_judge_without_end_is_stopped(processes, write):
    path = write(problem(3), problem(5))
    task = math_problems(path, num_prompts=1, num_examples=0, seconds=1.0)
    with task.verify as judge:
        begun = time.monotonic()
        assert not judge(" $9^{9^{9^{9^{9}}}}$", task.prompts[0])
        assert time.monotonic() - begun < 20


def test_short_problems_alone(write):
    long = problem(4) | {"problem": "x" * 200}
    drawn = problem(5) | {"problem": "See [asy] draw; [/asy]."}
    wide = problem(6) | {"answer": "1" * 20}
    path = write(long, drawn, wide, problem(7), problem(8))
    task = math_problems(
        path, num_prompts=2, num_examples=0, longest_problem=100, longest_answer=15
    )
    assert sorted(one.answer for one in task.prompts) == [" $\\frac{7}{2}$", " $\\frac{8}{2}$"]
    assert len(math_problems(path, num_prompts=5, num_examples=0).prompts) == 5
    with pytest.raises(UserError, match="MATH has 2 such rows here, and 3 prompts"):
        math_problems(path, num_prompts=3, num_examples=0, longest_problem=100, longest_answer=15)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([problem(1), {"problem": "q"}], "line 2: no text under 'answer'.*nothing can be judged"),
        ([problem(1), problem(2) | {"answer": " "}], "line 2: no text under 'answer'"),
        ([{"question": "q", "answer": "1"}], "line 1: no text under 'problem'"),
        (["{"], "line 1: not valid JSON"),
        ([], "is empty; give a file of MATH rows"),
    ],
)
def test_a_data_set_without_answers_is_named_with_its_line(write, rows, message):
    with pytest.raises(UserError, match=message) as caught:
        math_problems(write(*rows), num_prompts=1, num_examples=0)
    assert "\n" not in str(caught.value)


def test_no_file_and_too_many(tmp_path, write):
    with pytest.raises(UserError, match="no such file"):
        math_problems(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 .jsonl files; name the one that holds MATH"):
        math_problems(tmp_path / "empty")
    with pytest.raises(UserError, match="num_prompts is 0"):
        math_problems(write(problem(1)), num_prompts=0)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    import datasets

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match="without a network give the path") as caught:
        math_problems()
    assert "ConnectionError" in str(caught.value)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [problem(1), problem(2)])
    assert len(math_problems(num_prompts=1, num_examples=1).prompts) == 1


@pytest.mark.parametrize("path", [OWN, SHARED])
def test_files_that_are_there(path):
    if not path.exists():
        pytest.skip("the file is not here")
    assert len(math_problems(path, num_prompts=4, num_examples=2).prompts) == 4
