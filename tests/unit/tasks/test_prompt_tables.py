"""Files of prompts in the forms that people have: tables, compressed files, data sets to train on,
and the same prompt many times.
"""

import datetime
import gzip
import json
import warnings
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from passgrad.errors import UserError
from passgrad.measurement.options import Drawing, Judging
from passgrad.measurement.prompts import as_task
from passgrad.tasks.base import Prompt
from passgrad.tasks.prompt_files import read_prompts
from passgrad.tasks.repeats import RepeatedPromptsWarning

ROWS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(1, 5)]
TEMPLATE = "{% for m in messages %}#{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def chat(make_tokenizer):
    tokenizer = make_tokenizer("0123456789+=abcdefghijklmnopqrstuvwxyz :#\n")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(lines(*ROWS).encode()))),
        (
            "a.jsonl",
            lambda path: path.write_text("\ufeff" + lines(*ROWS).replace("\n", "\r\n\r\n")),
        ),
        ("a.json", lambda path: path.write_text(json.dumps(ROWS, indent=2))),
        ("a.csv", lambda path: pd.DataFrame(ROWS).to_csv(path, index=False)),
        ("a.csv.gz", lambda path: pd.DataFrame(ROWS).to_csv(path)),
        ("a.parquet", lambda path: pd.DataFrame(ROWS, index=[3, 1, 2, 0]).to_parquet(path)),
    ],
)
def test_prompts_in_other_forms(tmp_path, name, write):
    write(tmp_path / name)
    task = read_prompts(tmp_path / name)
    assert [(one.text, one.answer) for one in task.prompts] == [(*row.values(),) for row in ROWS]
    assert len({one.id for one in task.prompts}) == 4


def test_a_data_set_as_training_programs_have_it(tmp_path, chat):
    rows = [
        {
            "data_source": "math", "prompt": [{"role": "user", "content": row["prompt"]}],
            "ability": "math", "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": {"index": 0, "split": "train"},
        }
        for row in ROWS
    ]  # fmt: skip
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    task = read_prompts(path, tokenizer=chat)
    assert task.prompts[0] == Prompt("", "#user: 1+1=\n", "2", "math", "1")
    path = tmp_path / "trl.jsonl"
    path.write_text(lines(*({"prompt": r["prompt"], "ground_truth": r["answer"]} for r in ROWS)))
    assert read_prompts(path).prompts[3].answer == "8"
    path.write_text(lines({"prompt": "a", "ground_truth": "1", "answer": "1"}))
    with pytest.raises(UserError, match="line 1: both answer and ground_truth; keep one"):
        read_prompts(path)


def test_what_a_table_fills_up_with_nulls(tmp_path, chat):
    messages = [
        {"role": "system", "content": "be brief", "name": None, "tool_calls": None},
        {"role": "user", "content": "1+1=", "name": "me", "tool_calls": None},
    ]
    rows = [
        {"prompt": None, "messages": messages, "answer": "2", "id": None, "group": None},
        {"prompt": "3+4=", "messages": None, "answer": "7", "id": "x", "group": "sums"},
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    first, second = read_prompts(path, tokenizer=chat).prompts
    assert first.text == "#system: be brief\n#user: 1+1=\n"
    assert (first.id, first.group, second.id, second.group) == ("1", "", "x", "sums")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ([{"type": "text", "text": "hi"}], "#user: hi\n"),
        ([{"text": "hi"}], "#user: hi\n"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "has 2 parts of text"),
        ([{"type": "image_url", "image_url": {}}], "has a part of the type 'image_url'"),
        ([], "lacks text"),
        ({"text": "hi"}, "lacks text"),
    ],
)
def test_content_in_parts(tmp_path, chat, content, wanted):
    path = tmp_path / "a.jsonl"
    path.write_text(lines({"messages": [{"role": "user", "content": content}], "answer": "2"}))
    if wanted.startswith("#"):
        assert read_prompts(path, tokenizer=chat).prompts[0].text == wanted
        return
    with pytest.raises(UserError, match=f"line 1: message 0 {wanted}"):
        read_prompts(path, tokenizer=chat)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (42.0, "42"), (0.5, "0.5"), (1e-7, "0.0000001"), (1e16, "10000000000000000"),
        (-0.0, "0"), (10**30, "1" + "0" * 30), (Decimal("1.50"), "1.50"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2), "2026-01-02"), ("010", "010"), ("1e3", "1e3"),
    ],
)  # fmt: skip
def test_answers_of_other_types(tmp_path, answer, wanted):
    path = tmp_path / "a.parquet"
    if isinstance(answer, int):
        path = tmp_path / "a.jsonl"
        path.write_text(lines({"prompt": "a", "answer": answer}))
    else:
        pq.write_table(pa.table({"prompt": ["a"], "answer": pa.array([answer])}), path)
    assert read_prompts(path).prompts[0].answer == wanted


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), None, True, b"2", [1]])
def test_answers_that_are_none(tmp_path, answer):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "answer": pa.array([answer])}), path)
    with pytest.raises(UserError, match=r"a.parquet, row 1: (no answer|answer is)"):
        read_prompts(path)


def test_a_column_of_labels_with_a_gap(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame(ROWS).assign(group=[0, 1, None, 2], id=[10.0, 20.0, 30.0, None])
    frame.to_parquet(path)
    prompts = read_prompts(path).prompts
    assert [one.group for one in prompts] == ["0", "1", "", "2"]
    assert [one.id for one in prompts] == ["10", "20", "30", "4"]


def test_the_same_prompt_many_times_is_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*ROWS * 4, *ROWS[:1]))
    with pytest.warns(
        RepeatedPromptsWarning, match="17 rows hold 4 distinct prompts, 4 to 5 times"
    ):
        task = read_prompts(path)
    assert [one.text for one in task.prompts] == [row["prompt"] for row in ROWS]
    path.write_text(lines(*ROWS, {"prompt": "1+1=", "answer": "3"}))
    with pytest.raises(
        UserError, match="line 5: the same prompt stands on line 1 with another answ"
    ):
        read_prompts(path)
    with pytest.warns(RepeatedPromptsWarning, match="2 rows hold 1 distinct"):
        task = as_task([("", "1+1=", "2")] * 2, "no-model", Judging(), Drawing())
    assert len(task.prompts) == 1


def test_distinct_prompts_say_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*ROWS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_prompts(path)
