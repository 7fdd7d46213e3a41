"""Prompts from a user's file, and tasks by name."""

import json
import re

import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, exact_match
from passgrad.tasks.prompt_files import COLUMNS, read_prompts, task_by_name
from passgrad.tasks.verifiers import Verifier

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}"
    "{% endif %}#{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}#assistant: {% endif %}"
)
CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1"}]
GOOD = {"prompt": "1+1=", "answer": "2"}


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="mine.jsonl"):
        path = tmp_path / name
        parts = [
            row if isinstance(row, bytes)
            else (row if isinstance(row, str) else json.dumps(row)).encode()
            for row in rows
        ]  # fmt: skip
        path.write_bytes(b"".join(part + b"\n" for part in parts))
        return path

    return lines


@pytest.fixture
def chat_tokenizer(make_tokenizer):
    tokenizer = make_tokenizer("0123456789+=abcdefghijklmnopqrstuvwxyz :#\n")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_rows_become_prompts(write):
    path = write(
        {"prompt": "1+1=", "answer": "2", "id": "a", "group": "sums"},
        "",
        {"prompt": "2*3=", "answer": 6, "group": None},
        {"prompt": "x\ny", "answer": 0.5, "id": 7, "group": 1},
    )
    task = read_prompts(path, stop="\n", max_new_tokens=9)
    assert (task.name, task.stop, task.max_new_tokens) == ("mine", "\n", 9)
    assert task.prompts == (
        Prompt("", "1+1=", "2", "sums", "a"),
        Prompt("", "2*3=", "6", "", "3"),  # the line
        Prompt("", "x\ny", "0.5", "1", "7"),
    )
    assert task.verify(" 2", task.prompts[0])
    assert not task.verify("3", task.prompts[0])


def test_a_byte_order_mark_and_other_line_ends(write):
    path = write(
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r",
        '{"prompt": "a\u2028b", "answer": "ü"}',
    )
    assert [p.answer for p in read_prompts(path).prompts] == ["2", "ü"]


def test_chats_are_rendered(write, chat_tokenizer):
    path = write({"messages": CHAT, "answer": "2"})
    [prompt] = read_prompts(path, tokenizer=chat_tokenizer).prompts
    assert prompt.text == "#system: be brief\n#user: 1+1\n#assistant: "


def test_a_begin_token_stands_once(write, chat_tokenizer):
    from tokenizers.processors import TemplateProcessing

    chat_tokenizer.add_special_tokens({"bos_token": "<begin>"})
    chat_tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    path = write({"messages": CHAT, "answer": "2"})
    [prompt] = read_prompts(path, tokenizer=chat_tokenizer).prompts
    assert prompt.text.startswith("<begin>#system")  # this tokenizer adds none
    chat_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", chat_tokenizer.bos_token_id)]
    )
    [prompt] = read_prompts(path, tokenizer=chat_tokenizer).prompts
    assert prompt.text.startswith("#system")
    assert chat_tokenizer(prompt.text)["input_ids"].count(chat_tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "not valid JSON"),
        ('{"prompt": "a", "answer": "b"} x', "not valid JSON .Extra data."),
        ("[1]", "expected a JSON object, found a list"),
        ("3", "found a number"),
        ("null", "found null"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"prompt": "a", "answer": ' + "9" * 5000 + "}", "too many digits; write it as text"),
        ('{"prompt": "a", "prompt": "b", "answer": "c"}', "'prompt' stands twice"),
        (b'{"prompt": "\xff", "answer": "b"}', "byte 13 is not UTF-8; convert"),
        ('{"prompt": "\\ud800", "answer": "b"}', "half of a surrogate"),
        (GOOD | {"answr": 1, "hint": 2}, "unknown columns 'answr', 'hint'; .*prompt, mess"),
        ({"answer": "2"}, "no prompt; give prompt .text. or messages"),
        ({"prompt": "", "answer": "2"}, "prompt is empty"),
        ({"prompt": 3, "answer": "2"}, "prompt is a number; give text"),
        (GOOD | {"messages": CHAT}, "both prompt and messages"),
        ({"prompt": "a"}, "no answer"),
        ({"prompt": "a", "answer": None}, "no answer"),
        ({"prompt": "a", "answer": " "}, "answer is empty"),
        ({"prompt": "a", "answer": True}, "answer is true or false"),
        ({"prompt": "a", "answer": ["2"]}, "answer is a list"),
        (GOOD | {"id": 1.5}, "id is a number"),
        (GOOD | {"group": []}, "group is an empty list"),
        ({"messages": "hi", "answer": "2"}, "messages is text; give a list"),
        ({"messages": [], "answer": "2"}, "messages is an empty list"),
        ({"messages": [{"role": "user"}], "answer": "2"}, "message 0 lacks text under"),
        ({"messages": ["hi"], "answer": "2"}, "message 0 lacks text under"),
        ({"messages": [*CHAT, {"role": "assistant", "content": "2"}], "answer": "2"}, "last mess"),
        ({"messages": [{"role": "tool", "content": "2"}], "answer": "2"}, "refuses.*no tools"),
    ],
)
def test_faults_name_the_line_and_the_remedy(write, chat_tokenizer, row, says):
    path = write(GOOD, "", row)
    with pytest.raises(UserError, match=says) as caught:
        read_prompts(path, tokenizer=chat_tokenizer)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_ids_are_distinct(write):
    with pytest.raises(UserError, match="line 3: the id 'a' stands on line 1 too"):
        read_prompts(
            write(GOOD | {"id": "a"}, GOOD | {"prompt": "c"}, GOOD | {"prompt": "b", "id": "a"})
        )
    with pytest.raises(UserError, match="line 2: the id '2' stands on line 1 too"):
        read_prompts(write(GOOD | {"id": 2}, GOOD | {"prompt": "c"}))


def test_a_chat_needs_a_template(write, make_tokenizer):
    path = write({"messages": CHAT, "answer": "2"})
    with pytest.raises(UserError, match="line 1: messages need.*no tokenizer was given; pass"):
        read_prompts(path)
    with pytest.raises(UserError, match="line 1: the model's tokenizer has no chat template; wr"):
        read_prompts(path, tokenizer=make_tokenizer("ab"))


def test_files_that_are_none(write, tmp_path):
    for rows in ((), ("", "  ")):
        with pytest.raises(UserError, match="line 1: the file has no prompts; write"):
            read_prompts(write(*rows))
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match="no such file; give"):
            read_prompts(path)
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        read_prompts(write(GOOD), max_new_tokens=0)


def test_the_verifier_may_be_named_or_given(processes, write):
    path = write({"prompt": "1/2=", "answer": "1/2"})
    task = read_prompts(path, verifier="math")
    with task.verify as judge:
        assert judge("0.5", task.prompts[0])
    mine = Verifier("exact")
    assert read_prompts(path, verifier=mine).verify is mine
    with pytest.raises(UserError, match="unknown verifier 'maths'"):
        read_prompts(path, verifier="maths")


def test_tasks_by_name(processes, write):
    task = task_by_name("conventions", num_prompts=(3, 2), seed=1)
    assert (len(task.prompts), task.verify) == (5, exact_match)
    assert len(task_by_name("arithmetic", num_prompts=2).prompts) == 8
    rows = [{"question": f"{i} and 1?", "answer": f"so\n#### {i + 1}"} for i in range(6)]
    path = write(*rows, name="g.jsonl")
    task = task_by_name("gsm8k", path=path, num_prompts=3, num_examples=2)
    with task.verify as judge:
        assert judge(f"#### {task.prompts[0].answer}", task.prompts[0])
        assert not judge("#### 9**9**9", task.prompts[0])


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        (
            "gsm8",
            {},
            "unknown task 'gsm8'; the tasks are conventions, arithmetic, counting, gsm8k and gym",
        ),
        ("arithmetic", {"num": 3}, "no setting 'num'; it has families, num_prompts"),
        ("gym:chainsum", {}, "no data set 'chainsum'.*chain_sum"),
        ("gym:", {}, "no data set ''"),
        ("gym:chain_sum", {"terms": 3}, "cannot make 'chain_sum'.*terms"),
        ("gym:chain_sum", {"min_terms": 9, "max_terms": 3}, "cannot make 'chain_sum'"),
        ("gym:chain_sum", {"num_prompts": 0}, "num_prompts is 0"),
        ("gsm8k", {"path": "none.jsonl"}, "none.jsonl: no such file"),
    ],
)
def test_names_and_settings_that_are_none(name, settings, says):
    with pytest.raises(UserError, match=says) as caught:
        task_by_name(name, **settings)
    assert "\n" not in str(caught.value)


def test_reasoning_gym_tasks(processes):
    task = task_by_name("gym:chain_sum", num_prompts=3, num_examples=2, seed=4, min_terms=2)
    assert [p.id for p in task.prompts] == ["chain_sum:4:2", "chain_sum:4:3", "chain_sum:4:4"]
    assert {p.group for p in task.prompts} == {"chain_sum"}
    for prompt in task.prompts:
        assert prompt.context.count("Question:") == prompt.context.count("Answer: ") == 2
        assert prompt.question.endswith("\nAnswer:")
        terms = re.search(r"problem: (.*) =", prompt.question)[1]
        assert eval(terms) == int(prompt.answer)
    again = task_by_name("gym:chain_sum", num_prompts=3, num_examples=2, seed=4, min_terms=2)
    assert again.prompts == task.prompts
    assert task_by_name("gym:chain_sum", seed=5).prompts[0] != task.prompts[0]
    with task.verify as judge:
        rewards, incidents = judge.judge(
            [task.prompts[0].answer, task.prompts[0].answer, "<answer>x</answer>"], task.prompts
        )
    assert rewards.tolist() == [1, 0, 0]
    assert incidents == []


def test_a_reasoning_gym_task_is_judged_by_its_own_score(processes):
    """Any expression that gives the number counts, which needs the entry and not the answer."""
    task = task_by_name("gym:countdown", num_prompts=2, seed=3)
    [prompt, _] = task.prompts
    turned = prompt.answer.replace(" ", "  ")
    with task.verify as judge:
        assert judge(turned, prompt)
        assert not judge("1+1", prompt)
        rewards, _ = judge.judge([turned, turned], task.prompts)
    assert rewards.tolist() == [1, 0]


def test_reasoning_gym_questions_to_a_chat_model(chat_tokenizer):
    task = task_by_name("gym:chain_sum", num_prompts=1, tokenizer=chat_tokenizer)
    assert task.prompts[0].text.startswith("#user: State the final")
    assert task.prompts[0].text.endswith("\n#assistant: ")
    with pytest.raises(UserError, match="num_examples is 2"):
        task_by_name("gym:chain_sum", num_examples=2, tokenizer=chat_tokenizer)


def test_the_columns_are_documented():
    for name in COLUMNS:
        assert f"``{name}``" in read_prompts.__doc__
