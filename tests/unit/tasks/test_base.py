"""Prompts and what an answer is held against."""

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, as_prompts, exact_match


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
