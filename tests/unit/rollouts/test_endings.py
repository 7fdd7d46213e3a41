"""What ends a completion of a chat model, and what is said about it."""

import json

import pyarrow as pa
import pytest

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.models import load_tokenizer, model_ends, save_model
from passgrad.lm.rollouts import SCHEMA, Request, Rollouts
from passgrad.rollouts.endings import past_a_turn, remarks_on_thoughts
from passgrad.rollouts.sampling import end_tokens, judged, sample
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.prompt_files import render_chat

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
SPECIALS = ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
EOS, TURN = 0, 3


@pytest.fixture(scope="module")
def chat(tiny_model, tmp_path_factory):
    """A model whose turns end with a token that its generation config alone names."""
    from tokenizers import AddedToken, Tokenizer, decoders, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = dict.fromkeys("abcdefghijklmnopqrstuvwxyz?<>/_\n")
    words = {word: place for place, word in enumerate([*SPECIALS, *letters])}
    backend = Tokenizer(BPE(words, []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(word, special=True) for word in SPECIALS])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", bos_token="<bos>"
    )
    tokenizer.chat_template = TEMPLATE
    place = tmp_path_factory.mktemp("chat") / "model"
    return save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, place)


def declare(place, ends):
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


@pytest.fixture(scope="module")
def task(chat):
    text = render_chat(load_tokenizer(chat), [{"role": "user", "content": "a?"}], name="x")
    return Task("chat", (Prompt("", text, "b", "", "one"),), exact_match, None, 200)


def ended_by(rollouts):
    return {ids[-1] for ids in rollouts.table["completion_ids"].to_pylist() if len(ids) < 200}


def test_every_declared_end_ends_a_completion_and_is_kept(chat, task):
    declare(chat, [EOS, TURN])
    drawn = sample(chat, task, num_samples=48, engine="transformers")
    assert ended_by(drawn) == {EOS, TURN}
    for row in drawn.table.to_pylist():
        assert not {EOS, TURN} & set(row["completion_ids"][:-1])
        assert "<e" not in row["completion"]
    # What is differentiated ends with the token that was drawn.
    completions = Completions.from_rollouts(drawn, load_tokenizer(chat))
    assert {one.target[-1] for one in completions.sequences} >= {EOS, TURN}
    assert all(one.prefix[:2] == (1, 2) for one in completions.sequences)


def test_end_tokens_of_ones_own(chat, task):
    declare(chat, [EOS, TURN])
    only = Task(**{**vars(task), "end_tokens": ("<eos>",), "max_new_tokens": 40})
    drawn = sample(chat, only, num_samples=32, engine="transformers")
    assert any(TURN in row for row in drawn.table["completion_ids"].to_pylist())
    tokenizer = load_tokenizer(chat)
    for end, message in (("<eos>?", "'<eos>\\?' is 2 tokens"), ("", "'' is 0 tokens")):
        with pytest.raises(UserError, match=message):
            end_tokens(tokenizer, Task(**{**vars(task), "end_tokens": (end,)}), (0,))
    with pytest.raises(UserError, match=r"ends a completion at its stop '\\n'"):
        end_tokens(tokenizer, Task(**{**vars(only), "stop": "\n"}), (0,))


def test_a_turn_that_goes_on_behind_its_end_is_said(chat, task):
    tokenizer = load_tokenizer(chat)
    declare(chat, EOS)
    [text] = past_a_turn(tokenizer, task, model_ends(chat, tokenizer))
    assert "'<end_of_turn>'" in text
    assert "--end-token '<end_of_turn>' (end_tokens=)" in text
    declare(chat, [EOS, TURN])
    assert past_a_turn(tokenizer, task, model_ends(chat, tokenizer)) == []
    assert past_a_turn(tokenizer, Task(**{**vars(task), "end_tokens": ("<eos>",)}), (EOS,)) == []
    plain = Task("plain", (Prompt("", "a?", "b"),), exact_match, None, 4)
    assert past_a_turn(tokenizer, plain, (EOS,)) == []


def rollouts(*rows, prompt="x?"):
    common = dict.fromkeys(SCHEMA.names) | {"prompt_id": "0", "prompt": prompt}
    return Rollouts(
        pa.Table.from_pylist(
            [
                common | {"completion": text, "reward": float(reward), "finish_reason": reason}
                for text, reward, reason in rows
            ],
            schema=SCHEMA,
        )
    )


def test_thoughts_are_counted():
    some = rollouts(
        ("<think>a", 0, "length"), ("<think>b", 0, "length"), ("<think>c</think>d", 1, "stop"),
        ("<think>e", 0, "stop"),
    )  # fmt: skip
    cut, seen = remarks_on_thoughts(some, None, judged=True)
    assert cut.startswith(
        "2 of 4 completions were cut off while thinking, and 1 of 4 completions ended without an "
        "answer behind thoughts; they count as wrong;"
    )
    assert seen.startswith("1 of 4 completions think before they answer")
    assert "--think '</think>' (think=)" in seen
    [only] = remarks_on_thoughts(some, "</think>", judged=True)
    assert only == cut
    # A log may reward what has no answer.
    logged = rollouts(("<think>a", 1, "length"), ("<think>c</think>d", 1, "stop"))
    [text] = remarks_on_thoughts(logged, None, judged=False)
    assert text.startswith("1 of 2 completions were cut off while thinking; 1 of them have a rew")
    assert remarks_on_thoughts(rollouts(("d", 1, "stop")), None, judged=True) == []


def test_the_answer_alone_is_judged(chat):
    """Right in the thoughts, right behind them, cut off in them."""
    from passgrad.lm.rollouts import Completion

    tokenizer = load_tokenizer(chat)
    texts = ["<think>b</think>b", "<think>b</think>c", "<think>b", "b"]
    drawn = []
    for text in texts:
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        drawn.append(Completion((*ids, EOS), "stop", -1.0))

    def rewards(think, verify):
        prompt = Prompt("", "a?", "b", "", "one")
        task = Task("t", (prompt,), verify, None, 50, think=think)
        request = Request("", ((4,),), len(texts), (EOS,), 50)
        return judged(task, tokenizer, request, [drawn], "x").rewards.tolist()

    assert rewards("</think>", exact_match) == [[1, 0, 0, 0]]
    assert rewards("</think>", lambda text, prompt: "b" in text) == [[1, 0, 0, 0]]
    # Without the mark thoughts that nothing closes are no answer all the same.
    assert rewards(None, lambda text, prompt: "b" in text) == [[1, 1, 0, 1]]


def test_a_log_may_have_rows_of_the_embedding_without_a_token(chat, tmp_path):
    """They are as good as any other id up to the model's size, and read as nothing."""
    from passgrad.rollouts.foreign_rollouts import read_foreign

    tokenizer = load_tokenizer(chat)
    beyond = len(tokenizer) + 3
    letter = tokenizer.convert_tokens_to_ids("a")
    row = {"prompt": "a?", "completion_ids": [letter, beyond, letter, TURN], "reward": 1}
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row | {"reward": i}) + "\n" for i in (0, 1)))
    with pytest.raises(UserError, match="line 1: a token id is outside the tokenizer's"):
        read_foreign(path, tokenizer=tokenizer)
    with pytest.warns(UserWarning, match="does not say"):
        read = read_foreign(path, tokenizer=tokenizer, ends=(EOS, TURN), vocabulary=beyond + 1)
    assert read.table["completion_ids"].to_pylist() == [row["completion_ids"]] * 2
    assert read.table["completion"].to_pylist() == ["aa"] * 2
    assert read.table["finish_reason"].to_pylist() == ["stop"] * 2
