"""Logs of engines and harnesses: batches with their requests, lm-evaluation-harness, EvalPlus."""

import json
import warnings

import pytest

from passgrad.errors import UserError
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.verifiers import Verifier

TASK = Task(
    "sums",
    (Prompt("", "1+1=", "2", "", "a"), Prompt("", "3+4=", "7", "", "b")),
    exact_match,
    None,
    9,
)


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="log.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return lines


@pytest.fixture
def read(tiny_tokenizer):
    def reader(paths, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rollouts = read_foreign(paths, **{"tokenizer": tiny_tokenizer} | options)
        return rollouts, " | ".join(str(one.message) for one in caught)

    return reader


def output(key, *choices):
    body = {"model": "m", "choices": list(choices)}
    return {"custom_id": key, "error": None, "response": {"status_code": 200, "body": body}}


def request(key, **body):
    return {"custom_id": key, "method": "POST", "body": {"model": "m", **body}}


def last(rollouts):
    return [ids[-1] for ids in rollouts.table["completion_ids"].to_pylist()]


@pytest.mark.parametrize(
    ("reason", "state", "ends"),
    [
        ("stop", "stop", True), ("eos", "stop", True), ("end_turn", "stop", True),
        ({"type": "stop", "matched": 0}, "stop", True), (None, "stop", True),
        ("length", "length", False), ("max_tokens", "length", False), ("abort", "length", False),
        ("content_filter", "length", False), ("cancelled", "length", False),
        ({"type": "abort"}, "length", False), ("error", "length", False),
        ("repetition", "length", False),
    ],
)  # fmt: skip
def test_none_but_a_real_end_of_turn_gets_an_end_token(
    write, read, tiny_tokenizer, reason, state, ends
):
    row = {"prompt": "1+1=", "completion": "2", "reward": 1, "finish_reason": reason}
    rollouts, said = read(write(row))
    assert rollouts.table["finish_reason"].to_pylist() == [state]
    assert (last(rollouts) == [tiny_tokenizer.eos_token_id]) == ends
    broken = ("abort", "content_filter", "cancelled", "error", "repetition", {"type": "abort"})
    assert ("1 were broken off" in said) == (reason in broken)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("tool_calls", "ended with a call of a tool"), ("stop_sequence", "name it by --stop"),
        ("done", "finish_reason is 'done'"), (5, "finish_reason is 5"), ({}, "without type"),
        ([], "finish_reason is"), (True, "finish_reason is True"),
    ],
)  # fmt: skip
def test_ends_that_are_not_known_are_refused(write, read, reason, says):
    row = {"prompt": "1+1=", "completion": "2", "reward": 1, "finish_reason": reason}
    with pytest.raises(UserError, match=f"line 1: .*{says}"):
        read(write(row))


def test_token_ids_that_lack_their_end_token_get_it(write, read, tiny_tokenizer):
    two = tiny_tokenizer("2")["input_ids"]
    row = {"prompt": "1+1=", "completion_ids": two, "reward": 1, "finish_reason": "stop"}
    rollouts, said = read(write(row))
    assert rollouts.table["completion_ids"].to_pylist() == [[*two, tiny_tokenizer.eos_token_id]]
    assert "lack the end token that their state promises" in said


def test_a_turn_of_a_chat_ends_as_its_template_closes_it(write, read, make_tokenizer):
    tokenizer = make_tokenizer("0123456789+= ")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<turn>{% endfor %}"
    ends = (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<turn>"))
    chat = {"messages": [{"role": "user", "content": "1+1="}], "completion": "2", "reward": 1}
    plain = {"prompt": "3+4=", "completion": "7", "reward": 1}
    rollouts, _ = read(write(chat, plain), tokenizer=tokenizer, ends=ends)
    assert last(rollouts) == [ends[1], ends[0]]


def test_requests_are_honoured(write, read, tiny_tokenizer):
    stop = tiny_tokenizer.convert_tokens_to_ids("\n")
    seven = tiny_tokenizer.convert_tokens_to_ids("7")
    log = write(
        output("a", {"text": "2", "finish_reason": "stop", "stop_reason": "\n"},
               {"text": "2", "finish_reason": "stop", "stop_reason": None},
               {"text": "2", "finish_reason": "stop", "stop_reason": seven},
               {"text": "2", "finish_reason": "length"}),
    )  # fmt: skip
    asked = write(
        request("a", prompt="1+1=", temperature=1, top_p=1, top_k=0, stop=["\n"], n=4,
                max_tokens=5, logprobs=True),
        name="in.jsonl",
    )  # fmt: skip
    task = Task("t", TASK.prompts, exact_match, "\n", 9)
    rollouts, _ = read(log, requests=asked, task=task)
    end = tiny_tokenizer.eos_token_id
    assert last(rollouts)[:3] == [stop, end, seven]
    assert rollouts.table["finish_reason"].to_pylist()[3] == "length"
    assert set(rollouts.table["max_new_tokens"].to_pylist()) == {5}
    with pytest.raises(UserError, match=r"line 1: it ended at '\\n'; say so by --stop"):
        read(log, requests=asked, task=TASK)
    # OpenAI does not say at which.
    log = write(output("a", {"text": "2", "finish_reason": "stop"}))
    with pytest.raises(UserError, match="may have ended at .* or at the end of a turn"):
        read(log, requests=asked, task=task)


def test_a_template_is_called_as_the_request_called_it(write, read, make_tokenizer):
    tokenizer = make_tokenizer("0123456789+= abcdefghijklmnopqrstuvwxyz#")
    tokenizer.chat_template = (
        "{% if tools %}t{{ tools | length }}{% endif %}{% if think %}think{% endif %}"
        "{% for m in messages %}#{{ m['content'] }}#{% endfor %}"
    )
    chat = [{"role": "user", "content": "1+1"}]
    log = write(output("a", {"message": {"content": "2"}, "finish_reason": "stop"}))
    for body, prompt in (
        ({}, "#1+1#"), ({"chat_template_kwargs": {"think": True}}, "think#1+1#"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "t1#1+1#"),
        ({"chat_template": "{{ messages[0]['content'] }}="}, "1+1="),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "3"}]}]}, "#3#"),
    ):  # fmt: skip
        asked = write(request("a", **{"messages": chat} | body), name="in.jsonl")
        task = Task("t", (Prompt("", prompt, "2", "", "x"),), exact_match, None, 9)
        rollouts, _ = read(log, requests=asked, task=task, tokenizer=tokenizer)
        assert rollouts.table["prompt"].to_pylist() == [prompt]
    # Token ids of a prompt are its text.
    asked = write(request("a", prompt=tokenizer("3+4")["input_ids"]), name="in.jsonl")
    task = Task("t", (Prompt("", "3+4", "2", "", "x"),), exact_match, None, 9)
    assert read(log, requests=asked, task=task, tokenizer=tokenizer)[0].rewards.tolist() == [[1]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs restricts the completions"),
        ({"response_format": {"type": "json_object"}}, "response_format restricts"),
        ({"guided_choice": ["a"]}, "guided_choice restricts"), ({"regex": "a"}, "regex restricts"),
        ({"use_beam_search": True}, "use_beam_search searches"), ({"echo": True}, "echo puts"),
        ({"best_of": 4}, "best_of keeps"), ({"ignore_eos": True}, "ignore_eos goes on"),
        ({"something_new": 1}, "the request has 'something_new'"),
        ({"stop": [3]}, r"stop is \[3\]; give a text"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"top_p": 0}, "top_p is 0"), ({"max_tokens": 0}, "max_new_tokens is 0"),
        ({"prompt": ["a", "b"]}, "several prompts"),
        ({"prompt": [10**6]}, "is not the tokenizer's"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_honoured(write, read, body, says):
    log = write(output("a", {"text": "2", "finish_reason": "stop"}))
    asked = write(request("a", **{"prompt": "1+1="} | body), name="in.jsonl")
    with pytest.raises(UserError, match=f"in.jsonl, line 1: .*{says}") as caught:
        read(log, requests=asked, task=TASK)
    assert "\n" not in str(caught.value)


NEUTRAL = [
    {"response_format": {"type": "text"}}, {"stop": None}, {"ignore_eos": False}, {"best_of": 1},
    {"logit_bias": {}},
]  # fmt: skip


@pytest.mark.parametrize("body", NEUTRAL)
def test_settings_that_do_nothing_pass(write, read, body):
    log = write(output("a", {"text": "2", "finish_reason": "stop"}))
    asked = write(request("a", prompt="1+1=", **body), name="in.jsonl")
    assert read(log, requests=asked, task=TASK)[0].rewards.tolist() == [[1]]


def test_a_message_that_was_taken_apart(write, read, tiny_tokenizer):
    message = {"content": "2", "reasoning_content": "one and one"}
    choice = {"message": message, "finish_reason": "stop"}
    with pytest.raises(UserError, match="split into content and reasoning_content"):
        read(write(output("a", choice)), task=TASK)
    ids = [*tiny_tokenizer("2")["input_ids"], tiny_tokenizer.eos_token_id]
    rollouts, _ = read(write(output("a", choice | {"token_ids": ids})), task=TASK)
    assert rollouts.table["completion"].to_pylist() == ["2"]


def test_what_generate_gives_back(write, read, tiny_tokenizer):
    end = tiny_tokenizer.eos_token_id
    two = tiny_tokenizer("2")["input_ids"]
    outputs = [
        {"index": 0, "text": "2", "token_ids": [*two, end], "cumulative_logprob": -0.5,
         "finish_reason": "stop", "stop_reason": None},
        {"index": 1, "text": "22", "token_ids": two * 2, "cumulative_logprob": -1.5,
         "finish_reason": "length", "stop_reason": None},
    ]  # fmt: skip
    whole, _ = read(write({"prompt": "1+1=", "answer": "2", "outputs": outputs}),
                    verifier=Verifier("exact"))  # fmt: skip
    assert whole.rewards.tolist() == [[1, 0]]
    assert whole.table["logprob"].to_pylist() == [-0.5, -1.5]
    flat = [{"prompt": "1+1=", "reward": int(one["text"] == "2"), **one} for one in outputs]
    rows, _ = read(write(*flat))
    assert rows.table.drop(["prompt_id"]).equals(whole.table.drop(["prompt_id"]))
    sglang = {
        "prompt": "1+1=", "text": "2", "output_ids": [*two, end], "reward": 1,
        "meta_info": {"finish_reason": {"type": "stop", "matched": end},
                      "output_token_logprobs": [[-0.25, two[0], None], [-0.5, end, None]]},
    }  # fmt: skip
    one, _ = read(write(sglang))
    assert one.table["logprob"].to_pylist() == [-0.75]
    assert one.table["completion_ids"].to_pylist() == [[*two, end]]


def harness(number, resps, kind="none", until=("<end>",), **changes):
    return {
        "doc_id": number, "doc": {"question": f"{number}+1="}, "target": str(number + 1),
        "arguments": {"gen_args_0": {"arg_0": f"{number}+1=", "arg_1": {
            "until": list(until), "temperature": 1.0, "do_sample": True, "max_gen_toks": 5}}},
        "resps": [resps], "filtered_resps": resps[:1], "filter": kind, "exact_match": 0.0,
    } | changes  # fmt: skip


def test_repeats_of_lm_eval_are_judged_one_by_one(write, read):
    rows = [harness(n, ["2", "3", "44"], kind) for n in (1, 2) for kind in ("strict", "flexible")]
    path = write(*rows, name="samples_sums.jsonl")
    rollouts, _ = read(path, verifier=Verifier("exact"))
    assert rollouts.rewards.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert rollouts.table["max_new_tokens"].to_pylist() == [5] * 6
    listed = [harness(1, ["2", "3"], exact_match=[1.0, 0.0])]
    assert read(write(*listed), reward="exact_match")[0].rewards.tolist() == [[1, 0]]
    for row, options, says in (
        (harness(1, ["2", "3"]), {"reward": "exact_match"}, "1 values for 2 repeats; leave --rew"),
        (harness(1, ["8", "9"]), {}, "exact finds no completion right; .*--verifier"),
        (harness(1, ["2"], until=["\n\n", "<end>"]), {}, r"cut at '\\n\\n', and which .*--stop"),
        (harness(1, [["2", 0.1]]), {}, "generates text"),
        (harness(1, ["2"], arguments=[["a", "b"], ["c", "d"]]), {}, "one request a doc"),
    ):
        with pytest.raises(UserError, match=says):
            read(write(row), verifier=Verifier("exact"), **options)


def test_evalplus(write, read, tmp_path):
    results = {
        "eval": {
            name: [
                {
                    "task_id": name,
                    "solution": prompt + text,
                    "base_status": base,
                    "plus_status": plus,
                }
                for text, base, plus in (("2", "pass", "pass"), ("7", "pass", "fail"))
            ]
            for name, prompt in (("a", "1+1="), ("b", "3+4="))
        }
    }
    path = tmp_path / "x_eval_results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match="2 columns may be the reward .base_status, plus_status"):
        read(path, task=TASK)
    assert read(path, task=TASK, reward="base_status")[0].rewards.tolist() == [[1, 1]] * 2
    assert read(path, task=TASK, reward="plus_status")[0].rewards.tolist() == [[1, 0]] * 2
    with pytest.raises(
        UserError, match="a, result 1: the prompt of 'a' is not in the file; give --p"
    ):
        read(path, reward="base_status")
    for rows in results["eval"].values():
        rows[0]["solution"] = "def f(): pass"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match="does not begin with the prompt"):
        read(path, task=TASK, reward="base_status")
