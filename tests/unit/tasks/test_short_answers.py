"""Questions with bare answers: few-shot text, and the same in chat."""

import json

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.tasks.short_answers import gsm8k_answers, in_chat, short_answers

ASKED = [Prompt("", f"What is\n{i} + 1?", str(i + 1), "sums", f"s{i}") for i in range(5)]


def test_examples_come_before_and_are_not_asked():
    task = short_answers("sums", ASKED, num_examples=2, max_new_tokens=4)
    assert [one.id for one in task.prompts] == ["s2", "s3", "s4"]
    one = task.prompts[0]
    assert (
        one.context == "Question: What is 0 + 1?\nAnswer: 1\nQuestion: What is 1 + 1?\nAnswer: 2\n"
    )
    assert one.question == "Question: What is 2 + 1?\nAnswer:"
    assert one.answer == " 3"
    assert task.verify(" 3", one)
    assert not task.verify("3", one)  # one accepted string, so that p is one probability
    assert (task.stop, task.max_new_tokens, one.group) == ("\n", 4, "sums")


@pytest.mark.parametrize("examples", [-1, 5, 6])
def test_something_must_be_left_to_ask(examples):
    with pytest.raises(UserError, match="leave at least one question to ask"):
        short_answers("sums", ASKED, num_examples=examples, max_new_tokens=4)


def test_gsm8k_without_solutions(tmp_path):
    rows = [
        {"question": f"A has {i}.\nB has 1.", "answer": f"{i}+1.\n#### 1,{i + 100}"}
        for i in range(8)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = gsm8k_answers(path, num_prompts=3, num_examples=2, seed=1)
    assert len(task.prompts) == 3
    one = task.prompts[0]
    assert one.context.count("Question: ") == one.context.count("\nAnswer: 1") == 2
    assert "####" not in one.text
    place = int(one.id.removeprefix("gsm8k:")) - 1
    assert one.question == f"Question: A has {place}. B has 1.\nAnswer:"
    assert one.answer == f" 1{place + 100}"


class Chat:
    """What the rendering needs of a tokenizer."""

    chat_template, bos_token = "yes", None

    def apply_chat_template(self, messages, **_):
        return "".join(f"<{one['role']}>{one['content']}" for one in messages) + "<assistant>"


def test_in_chat():
    task = short_answers("sums", ASKED, num_examples=2, max_new_tokens=4)
    chat = in_chat(task, Chat(), verify=lambda y, x: x.answer in y, instruction="Be brief.")
    one = chat.prompts[0]
    assert one.text == "<user>What is 2 + 1? Be brief.<assistant>"
    assert (one.answer, one.id, chat.stop) == ("3", "s2", None)
    assert chat.verify("It is 3.", one)
    bare = Chat()
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        in_chat(task, bare, verify=chat.verify)
