"""Prompts and JSON-lines files."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, as_prompts, exact_match, read_jsonl


def test_triples_become_prompts_with_ids():
    made = as_prompts([("c", "q", "a"), Prompt("c", "q", "b", "g", "mine"), ["", "q", "d"]])
    assert [prompt.id for prompt in made] == ["0", "mine", "2"]
    assert made[0] == Prompt("c", "q", "a", "", "0")
    assert made[0].text == "cq"


@pytest.mark.parametrize("item", ["abc", ("a", "b"), ("a", "b", 3), 5, None])
def test_what_is_no_prompt_is_named(item):
    with pytest.raises(
        UserError, match="prompt 1 is .*; give a .context, question, answer. triple"
    ):
        as_prompts([("c", "q", "a"), item])


def test_ids_stand_once():
    with pytest.raises(UserError, match="two prompts have the id '1'; make the ids distinct"):
        as_prompts([Prompt("", "q", "a", id="1"), ("", "r", "b")])
    with pytest.raises(UserError, match="the list of prompts is empty"):
        as_prompts(iter([]))


def test_exact_match_is_exact():
    prompt = Prompt("", "1+1=", "2")
    assert exact_match("2", prompt)
    assert not any(exact_match(text, prompt) for text in ("", " 2", "2 ", "2\n", "02", "12"))


def test_lines_carry_their_numbers(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": "é"}\n', encoding="utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "é"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "x.jsonl, line 2: not valid JSON"),
        (b'{"a": 1}\n\n[1, 2]\n', "x.jsonl, line 3: expected a JSON object, found list"),
        (b"nonsense\n", "x.jsonl, line 1: not valid JSON"),
        (b'{"a": "\xff"}\n', "x.jsonl: not UTF-8 text"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_jsonl(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for place in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"{place}: no such file"):
            list(read_jsonl(place))
