"""Samples drawn elsewhere: four layouts, missing tokens, and the law they were drawn from."""

import json
import re
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from passgrad.errors import UserError
from passgrad.lm.rollouts import SCHEMA, Rollouts
from passgrad.rollouts.foreign_logs import PLAIN, RetokenisedWarning, SamplingLawWarning
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.rollouts.foreign_tokens import retokenise
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.verifiers import Verifier

LAW = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "quantization": "none"}
KNOWN = {"settings": {**LAW, "seed": 3}}
TASK = Task(
    "sums",
    (Prompt("", "1+1=", "2", "easy", "a"), Prompt("", "3+4=", "7", "hard", "b")),
    exact_match,
    None,
    4,
)


def row(tokenizer, prompt="1+1=", completion="2", reward=1, **changes):
    ids = [*tokenizer(completion or "")["input_ids"], tokenizer.eos_token_id]
    return {
        "prompt": prompt, "completion": completion, "completion_ids": ids, "reward": reward,
    } | LAW | changes  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def rows(*rows, name="log.jsonl"):
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return rows


@pytest.fixture
def read(tiny_tokenizer):
    """(rollouts, the warnings' texts by class)"""

    def reader(path, **settings):
        settings = {"tokenizer": tiny_tokenizer} | settings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = read_foreign(path, **settings)
        assert all(one.filename == __file__ for one in caught)
        return made, [(one.category, str(one.message)) for one in caught]

    return reader


def texts(caught, kind):
    return [text for category, text in caught if category is kind]


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_a_plain_table(write, read, tiny_tokenizer, name):
    path = write(
        row(tiny_tokenizer, logprob=-0.5, group="g", id="x", max_new_tokens=5, seed=8),
        row(tiny_tokenizer, "3+4=", "70", 0, id="y", group="h"),
        row(tiny_tokenizer, "1+1=", "3", 0, id="x", group="g"),
        row(tiny_tokenizer, "3+4=", "7", 1, id="y", group="h"),
        name=name,
    )
    made, caught = read(path)
    assert caught == []
    assert made.table.schema == SCHEMA
    assert made.prompt_ids == ["x", "y"]
    assert made.rewards.tolist() == [[1, 0], [0, 1]]
    first, second = made.table.to_pylist()[:2]
    assert first == {
        "prompt_id": "x", "group": "g", "prompt": "1+1=", "sample": 0,
        "completion_ids": row(tiny_tokenizer)["completion_ids"], "completion": "2", "reward": 1.0,
        "logprob": -0.5, "finish_reason": "stop", "engine": "plain", "seed": 8, "temperature": 1.0,
        "top_p": 1.0, "top_k": 0, "max_new_tokens": 5, "stop": None,
    }  # fmt: skip
    assert (second["prompt_id"], second["sample"], second["logprob"]) == ("x", 1, None)
    again = Rollouts.read(made.write(path.with_name("made.parquet")))
    assert again.table.equals(made.table)


def test_rollouts_of_the_package_pass_through(write, read, tiny_tokenizer):
    made, _ = read(write(row(tiny_tokenizer)))
    path = made.write(write(row(tiny_tokenizer)).with_name("own.parquet"))
    again, caught = read(path)
    assert again.table.equals(made.table)
    assert caught == []
    hot, _ = read(write(row(tiny_tokenizer, temperature=0.5)))
    [warning] = texts(read(hot.write(path))[1], SamplingLawWarning)
    assert "temperature 0.5" in warning


def test_verl(write, read, tiny_tokenizer):
    path = write(
        {"input": "1+1=", "output": "2", "gts": "2", "score": 1.0, "step": 3, "acc": True},
        {"input": "1+1=", "output": "22", "gts": "2", "score": 0.0, "step": 3, "acc": True},
        {"input": "3+4=", "output": "", "gts": "7", "score": 0.0, "step": 3, "acc": False},
        {"input": "3+4=", "output": "7", "gts": "7", "score": 1.0, "step": 3, "acc": True},
    )
    made, caught = read(path, max_new_tokens=2, **KNOWN)
    end = tiny_tokenizer.eos_token_id
    two = tiny_tokenizer("2")["input_ids"]
    assert made.rewards.tolist() == [[1, 0], [0, 1]]
    assert made.prompt_ids == ["0", "1"]
    rows = made.table.to_pylist()
    assert [one["completion_ids"] for one in rows[:3]] == [[*two, end], two * 2, [end]]
    assert [one["finish_reason"] for one in rows] == ["stop", "length", "stop", "stop"]
    assert {(one["engine"], one["seed"]) for one in rows} == {("verl", 3)}
    [warning] = texts(caught, RetokenisedWarning)
    assert "4 of 4 completions have no token ids" in warning
    assert "ambiguous" not in warning
    assert "why they ended" not in warning
    made, _ = read(path, task=TASK, **KNOWN)
    assert made.prompt_ids == ["a", "b"]
    assert made.table["group"].to_pylist() == ["easy", "easy", "hard", "hard"]
    made, _ = read(path, reward="acc", **KNOWN)
    assert made.rewards.tolist() == [[1, 1], [0, 1]]


def test_verl_loses_the_marks_of_a_chat(write, read, make_tokenizer):
    tokenizer = make_tokenizer("0123456789+= \n")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<model>"]})
    tokenizer.chat_template = "{% for m in messages %}<user>{{ m['content'] }}<model>{% endfor %}"
    path = write({"input": "1+1=", "output": "2", "score": 1, "step": 0})
    _, caught = read(path, tokenizer=tokenizer, **KNOWN)
    assert "without special tokens" in texts(caught, RetokenisedWarning)[0]
    task = Task("t", (Prompt("", "<user>1+1=<model>", "2", "", "q"),), exact_match, None, 3)
    made, caught = read(path, tokenizer=tokenizer, task=task, **KNOWN)
    assert made.table["prompt"].to_pylist() == ["<user>1+1=<model>"]
    assert made.prompt_ids == ["q"]
    assert not any("without special" in text for _, text in caught)


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl"])
def test_trl(write, read, name):
    base = {"step": 10, "prompt": "1+1=", "completion": "2", "advantage": 0.7}
    path = write(base | {"correct": 1.0}, base | {"completion": "3", "correct": 0.0}, name=name)
    made, caught = read(path, **KNOWN)
    assert made.rewards.tolist() == [[1, 0]]
    assert made.table["engine"].to_pylist() == ["trl"] * 2
    [warning] = texts(caught, RetokenisedWarning)
    assert "2 do not say why they ended" in warning
    two = write(base | {"correct": 1.0, "format": 0.0}, name=name)
    with pytest.raises(UserError, match=r"2 columns may be the reward \(correct, format\)"):
        read(two)
    assert read(two, reward="format")[0].rewards.tolist() == [[0]]
    assert read(write(base | {"reward": 1.0, "x": 2.0}, name=name))[0].rewards.tolist() == [[1]]
    with pytest.raises(UserError, match=r"0 columns may be the reward \(none\)"):
        read(write(base, name=name))
    assert read(write(base, name=name), task=TASK)[0].rewards.tolist() == [[1]]
    with pytest.raises(UserError, match="row 1: the reward is nan|line 1: the reward is nan"):
        read(write(base | {"correct": float("nan")}, name=name))


def test_trl_conversations(write, read, make_tokenizer):
    tokenizer = make_tokenizer("0123456789+= #")
    tokenizer.chat_template = "{% for m in messages %}#{{ m['content'] }}#{% endfor %}"
    says = [{"role": "assistant", "content": "2"}]
    base = {
        "step": 1, "prompt": [{"role": "user", "content": "1+1"}], "completion": says,
        "correct": 1.0, "advantage": 0.0,
    }  # fmt: skip
    made, _ = read(write(base, name="c.parquet"), tokenizer=tokenizer, **KNOWN)
    assert made.table["prompt"].to_pylist() == ["#1+1#"]
    assert made.table["completion"].to_pylist() == ["2"]
    with pytest.raises(UserError, match="2 messages; give samples of a single turn"):
        read(write(base | {"completion": says * 2}), tokenizer=tokenizer)
    with pytest.raises(UserError, match="no chat template"):
        read(write(base))


def test_samples_of_several_steps(write, read):
    base = {"prompt": "1+1=", "completion": "2", "advantage": 0.7, "reward": 1.0}
    path = write(*(base | {"step": step} for step in (5, 6, 6)))
    assert "2 training steps (5 to 6)" in texts(read(path, **KNOWN)[1], SamplingLawWarning)[0]
    made, caught = read(path, rollout_step=6, **KNOWN)
    assert made.num_samples == 2
    assert texts(caught, SamplingLawWarning) == []
    with pytest.raises(UserError, match=r"no samples of step 7; it has the steps \[5, 6\]"):
        read(path, rollout_step=7)


def vllm_row(key, *choices, **changes):
    body = {"model": "m", "choices": list(choices)}
    return {
        "id": "vllm-1", "custom_id": key, "error": None,
        "response": {"status_code": 200, "request_id": "r", "body": body},
    } | changes  # fmt: skip


def test_vllm(write, read, tiny_tokenizer):
    end = tiny_tokenizer.eos_token_id
    two, three, seven, four = (tiny_tokenizer(d)["input_ids"][0] for d in "2374")
    path = write(
        vllm_row(
            "b",
            {
                "index": 0, "text": "7", "finish_reason": "stop", "token_ids": [seven, end],
                "logprobs": {"token_logprobs": [-0.5, -0.25]},
            },
            {"index": 1, "text": "7", "finish_reason": "length", "token_ids": [seven]},
        ),
        vllm_row(
            "a",
            {
                "index": 0, "message": {"role": "assistant", "content": "2"},
                "finish_reason": "stop", "token_ids": [two, end],
                "logprobs": {"content": [{"logprob": -1.0}, {"logprob": -2.0}]},
            },
            {"index": 1, "message": {"content": None}, "token_ids": [three, end]},
        ),
    )  # fmt: skip
    made, caught = read(path, task=TASK, **KNOWN)
    assert caught == []
    assert made.prompt_ids == ["b", "a"]
    assert made.rewards.tolist() == [[1, 1], [1, 0]]  # ends with the model's token: no stop
    rows = made.table.to_pylist()
    assert [one["logprob"] for one in rows] == [-0.75, None, -3.0, None]
    assert rows[3]["completion"] == "3"
    assert rows[3]["finish_reason"] == "stop"
    assert four not in rows[0]["completion_ids"]
    with pytest.raises(
        UserError, match="the prompt of the request 'b' is not in the batch's output"
    ):
        read(path)
    requests = write(
        {"custom_id": "a", "url": "/v1/completions", "body": {
            "prompt": "1+1=", "temperature": 0.7, "top_p": 1, "top_k": 5, "min_p": 0.1,
            "max_tokens": 4, "seed": 2}},
        {"custom_id": "b", "body": {"prompt": "3+4=", "temperature": 1, "top_p": 1, "top_k": 0}},
        name="in.jsonl",
    )  # fmt: skip
    made, caught = read(path, task=TASK, requests=requests)
    known, unknown = texts(caught, SamplingLawWarning)
    assert "(temperature 0.7, top_k 5, min_p 0.1)" in known
    assert "does not say the engine's precision;" in unknown
    assert made.table["top_k"].to_pylist() == [0, 0, 5, 5]
    assert made.table["max_new_tokens"].to_pylist() == [None, None, 4, 4]
    with pytest.raises(UserError, match="line 1: no reward; name a column of rewards"):
        read(path, requests=requests)


def test_vllm_requests_that_failed_and_other_prompts(write, read, tiny_tokenizer):
    good = {"text": "2", "token_ids": [5, 0], "prompt_token_ids": [1, 2]}
    _, caught = read(write(vllm_row("a", good)), task=TASK, **KNOWN)
    assert "prompts of 1 were other tokens" in texts(caught, RetokenisedWarning)[0]
    for bad in (
        vllm_row("a", error={"message": "x"}), vllm_row("a"), vllm_row("a", good, response=None)
    ):  # fmt: skip
        with pytest.raises(UserError, match="line 1: the request 'a' failed"):
            read(write(bad), task=TASK)
    with pytest.raises(UserError, match=r"in.jsonl, line 1: no custom_id or no body"):
        read(write(vllm_row("a", good)), task=TASK, requests=write({"a": 1}, name="in.jsonl"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 0.7}, "temperature 0.7"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"top_p": 0.9}, "top_p 0.9"),
        ({"top_k": 20}, "top_k 20"),
        ({"quantization": "fp8"}, "a quantised engine"),
        ({"quantization": None, "engine": "vllm, model-AWQ"}, "a quantised engine"),
        ({"temperature": 0.6, "top_p": 0.95}, r"temperature 0.6, top_p 0.95"),
    ],
)
def test_another_law_is_named(write, read, tiny_tokenizer, changes, says):
    _, caught = read(write(row(tiny_tokenizer), row(tiny_tokenizer, **changes)))
    [warning] = texts(caught, SamplingLawWarning)
    assert f"({says})" in warning
    assert "not from the policy" in warning


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "quantization"])
def test_an_unknown_law_is_named(write, read, tiny_tokenizer, name):
    one = row(tiny_tokenizer)
    del one[name]
    _, caught = read(write(one))
    [warning] = texts(caught, SamplingLawWarning)
    wanted = "the engine's precision" if name == "quantization" else name
    assert f"does not say {wanted};" in warning
    assert read(write(one), **KNOWN)[1] == []
    hot = {"settings": {"temperature": 2.0, "top_p": 0.5, "top_k": 3, "quantised": True}}
    hot["settings"] = {key: hot["settings"][key] for key in hot["settings"] if key not in one}
    if name == "quantization":
        hot = {"settings": {"quantised": True}}
    [warning] = texts(read(write(one), **hot)[1], SamplingLawWarning)
    assert "not from the policy" in warning  # what is said is believed, and warned of


def test_retokenising(tiny_tokenizer):
    def plain(text):
        return [tiny_tokenizer.convert_tokens_to_ids(one) for one in text]

    assert retokenise(tiny_tokenizer, "1+1=", "2") == (plain("2"), True)
    assert retokenise(tiny_tokenizer, "1+1=", "12") == (plain(["12"]), True)
    # "=9" is one token: behind the prompt's "=" the completion is read alone.
    assert retokenise(tiny_tokenizer, "1+1=", "9") == (plain("9"), False)
    assert retokenise(tiny_tokenizer, "1+1", "2") == (plain("2"), False)
    # A special token's spelling may be that token or its letters.
    _, clear = retokenise(tiny_tokenizer, "1+1=", "2<end>3")
    assert not clear
    # A sign that the tokenizer does not know is lost.
    assert not retokenise(tiny_tokenizer, "1+1=", "2Ω")[1]


def test_ambiguous_tokens_are_warned_of(write, read, tiny_tokenizer):
    first = row(tiny_tokenizer, completion="9", reward=0)
    second = row(tiny_tokenizer)
    del first["completion_ids"]
    made, caught = read(write(second, first), max_new_tokens=9)
    [warning] = texts(caught, RetokenisedWarning)
    assert "1 of 2 completions have no token ids" in warning
    assert "1 are ambiguous" in warning
    assert "line 2" in warning
    nine = tiny_tokenizer.convert_tokens_to_ids("9")
    assert made.table["completion_ids"].to_pylist()[1] == [nine, tiny_tokenizer.eos_token_id]


def test_a_stop_string_ends_a_completion(write, read, tiny_tokenizer):
    one = row(tiny_tokenizer)
    del one["completion_ids"]
    stop = tiny_tokenizer.convert_tokens_to_ids("\n")
    path = write(one, one | {"finish_reason": "length"})
    made, _ = read(path, stop="\n", max_new_tokens=9)
    assert [ids[-1] == stop for ids in made.table["completion_ids"].to_pylist()] == [True, False]
    assert made.table["stop"].to_pylist() == ["\n"] * 2


def test_rewards_by_the_task(write, read, tiny_tokenizer):
    rows = [row(tiny_tokenizer), row(tiny_tokenizer, completion="3")]
    for one in rows:
        del one["reward"]
    path = write(*rows)
    assert read(path, task=TASK)[0].rewards.tolist() == [[1, 0]]
    with Verifier("exact") as judge:
        task = Task("t", TASK.prompts, judge, None, 4)
        assert read(path, task=task)[0].rewards.tolist() == [[1, 0]]
    # Cut off before its stop, an answer is none, as where the package samples itself.
    task = Task("t", TASK.prompts, exact_match, "\n", 4)
    cut = [one | {"finish_reason": why} for one in rows[:1] for why in ("stop", "length")]
    assert read(write(*cut), task=task)[0].rewards.tolist() == [[1, 0]]
    with pytest.raises(UserError, match="the prompt is not among those of the task sums"):
        read(write(rows[0] | {"prompt": "9+9="}), task=TASK)
    by_id = {k: v for k, v in rows[0].items() if k != "prompt"} | {"id": "a"}
    assert read(write(by_id), task=TASK)[0].table["prompt"].to_pylist() == ["1+1="]
    with pytest.raises(UserError, match="line 1: no prompt; give prompt or messages"):
        read(write(by_id | {"id": "zz"}), task=TASK)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rewrad": 1}, "unknown columns 'rewrad'; the columns are prompt, messages"),
        (
            {"reward": 0.5},
            "line 1: the reward is 0.5, and pass@k needs 0 or 1; say by --threshold (threshold=)",
        ),
        ({"reward": "yes"}, "line 1: reward is 'yes'; give a number"),
        ({"reward": None}, "line 1: no reward; name a column"),
        ({"prompt": 3}, "line 1: prompt is a number; give text or messages"),
        ({"completion_ids": ["a"]}, "line 1: the token ids are no list of whole numbers"),
        ({"completion_ids": [10**6]}, "line 1: a token id is outside the tokenizer's"),
        ({"completion_ids": []}, "line 1: a completion without tokens"),
        ({"completion": None, "completion_ids": None}, "line 1: no completion; give its text"),
        ({"temperature": "hot"}, "line 1: temperature is 'hot'"),
    ],
)
def test_faults_name_the_line_and_the_remedy(write, read, tiny_tokenizer, changes, says):
    path = write(row(tiny_tokenizer, **changes))
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["prompt", "completion"])
def test_missing_columns(write, read, tiny_tokenizer, name):
    one = row(tiny_tokenizer)
    del one[name], one["completion_ids"]
    with pytest.raises(UserError, match=f"no column {name}; the columns are"):
        read(write(one))


def test_files_that_are_none(write, read, tmp_path, tiny_tokenizer):
    for name in ("no.jsonl", "no.parquet"):
        with pytest.raises(UserError, match="no such file"):
            read(tmp_path / name)
        (tmp_path / name).write_text("PAR1 nonsense" if name.endswith("parquet") else "\n")
        with pytest.raises(UserError, match="cannot be read as parquet|has no samples"):
            read(tmp_path / name)
    path = write(row(tiny_tokenizer))
    for layout, says in [
        ("hdf", "unknown layout 'hdf'; the layouts are auto, passgrad, plain, verl"),
        ("verl", "no column input and no output"),
        ("passgrad", "lack the columns"),
    ]:
        with pytest.raises(UserError, match=says):
            read(path, layout=layout)
    two = write(*[row(tiny_tokenizer)] * 2, row(tiny_tokenizer, "3+4="))
    with pytest.raises(UserError, match=f"^{re.escape(str(two))}: prompts have between 1 and 2"):
        read(two)
    with pytest.raises(UserError, match="line 2: the id '1' has another prompt than in .* line 1"):
        read(write(row(tiny_tokenizer, id=1), row(tiny_tokenizer, "3+4=", id=1)))


def test_the_columns_are_documented():
    from passgrad.rollouts import foreign_logs

    for name in (*PLAIN, "input", "output", "score", "advantage", "custom_id", "token_ids"):
        assert f"``{name}``" in foreign_logs.__doc__, name


def test_rewards_may_be_true_and_false(write, read, tiny_tokenizer):
    rows = [row(tiny_tokenizer, reward=one) for one in (True, False)]
    for name in ("log.jsonl", "log.parquet"):
        assert read(write(*rows, name=name))[0].rewards.tolist() == [[1, 0]]
