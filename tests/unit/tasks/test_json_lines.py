"""Files of JSON lines: the rows with their numbers, and faults with theirs."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.json_lines import json_lines, kind_of


def test_lines_carry_their_numbers(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": "é"}\n', encoding="utf-8")
    assert list(json_lines(path)) == [(1, {"a": 1}), (4, {"a": "é"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "x.jsonl, line 2: not valid JSON"),
        (b'{"a": 1}\n\n[1, 2]\n', "x.jsonl, line 3: expected a JSON object, found a list"),
        (b"nonsense\n", "x.jsonl, line 1: not valid JSON"),
        (b'{"a": "\xff"}\n', "x.jsonl, line 1: byte 8 is not UTF-8"),
        (b'{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n', "line 2: the column 'c' stands twice"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(json_lines(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for place in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"{place}: no such file"):
            list(json_lines(place))


def test_the_kinds_of_json_are_told_apart():
    said = [kind_of(x) for x in ({}, [], [1], "a", True, None, 1, 0.5)]
    assert said == [
        "an object", "an empty list", "a list", "text", "true or false", "null", "a number",
        "a number",
    ]  # fmt: skip
