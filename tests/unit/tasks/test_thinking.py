"""Where an answer begins behind thoughts."""

import pytest

from passgrad.tasks.thinking import MARKS, answer_of


@pytest.mark.parametrize(
    ("completion", "prompt", "answer"),
    [
        ("<think>it is 7</think>9", "x?", "9"),
        ("<think>it is 7</think>\n\n9 \n", "x?", "9 \n"),
        ("it is 7</think>9", "x?<think>\n", "9"),
        ("<think>a</think>b<think>c</think>d", "x?", "d"),
        ("<think>it is 7", "x?", None),
        ("it is 7", "x?<think>", None),
        ("7", "x?", None),
        ("7", "x?<think>\n\n</think>\n\n", "7"),  # thoughts that the template leaves out
        ("<think>7</think>", "x?", ""),
    ],
)
def test_behind_the_mark(completion, prompt, answer):
    assert answer_of(completion, prompt, "</think>") == answer


@pytest.mark.parametrize(
    ("completion", "prompt", "answer"),
    [
        ("<think>it is 7", "x?", None),
        (" \n<think>it is 7", "x?", None),
        ("it is 7", "x?<think>\n", None),
        ("<think>a</think>b", "x?", "<think>a</think>b"),
        ("write <think> to think", "x?", "write <think> to think"),
        ("7", "x?", "7"),
    ],
)
def test_without_a_mark_all_is_the_answer_unless_thoughts_are_open(completion, prompt, answer):
    assert answer_of(completion, prompt) == answer


@pytest.mark.parametrize("mark", MARKS)
def test_every_way_to_open_thoughts(mark):
    assert answer_of(f"{mark}7", "x?") is None
    assert answer_of("7", f"x?{mark}") is None
    assert answer_of(f"{mark}7{MARKS[mark]}9", "x?") is not None
