"""The prompts of a measurement, as they were asked."""

import datetime
import json

import pyarrow.parquet as pq
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.models import load_tokenizer, save_model
from passgrad.measurement import drawing
from passgrad.measurement.options import Drawing, Judging
from passgrad.measurement.prompts import as_asked, as_task, digest
from passgrad.measurement.run import measure
from passgrad.tasks.base import Prompt, Task, exact_match

TEMPLATE = (
    "{{ strftime_now('%S%f') }}{% for m in messages %}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)


@pytest.fixture(scope="module")
def place(make_tokenizer, tiny_model, tmp_path_factory):
    """A chat model whose template has a clock with microseconds."""
    tokenizer = make_tokenizer("ab=\n0123456789")
    tokenizer.chat_template = TEMPLATE
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    with torch.no_grad():
        embedding = model.get_input_embeddings()
        embedding.weight[embedding.padding_idx] = embedding.weight[1:].mean(0)
    return save_model(model, tokenizer, tmp_path_factory.mktemp("clock") / "model")


@pytest.fixture
def file(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": text}], "answer": "a"}
        for text in ("a", "b", "ab", "ba")
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_goes_on_with_the_prompts_that_were_asked(place, file, tmp_path, monkeypatch):
    """Killed after the drawing, and begun again at another time."""
    options = {
        "samples": 8, "engine": "transformers", "stop": "\n", "max_new_tokens": 3,
        "parts": False, "step": False, "out": tmp_path / "m", "reading": "fixed",
    }  # fmt: skip

    class Killed(Exception):
        pass

    def stop(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("passgrad.measurement.run._load", stop)
        with pytest.raises(Killed):
            measure(place, file, **options)
    asked = (tmp_path / "m" / "asked.jsonl").read_text()
    texts = [context + question for _, context, question in map(json.loads, asked.splitlines())]
    parts = pq.read_table(tmp_path / "m" / "rollouts")["prompt"].to_pylist()
    assert list(dict.fromkeys(parts)) == texts
    # What is drawn later belongs to the same prompts.
    next((tmp_path / "m" / "rollouts").glob("part-*.parquet")).unlink()
    measured = measure(place, file, resume=True, **options)
    assert list(dict.fromkeys(measured.rollouts.table["prompt"].to_pylist())) == texts
    assert measured.record["settings"]["end_tokens"] == ["\n"]
    assert (tmp_path / "m" / "asked.jsonl").read_text() == asked


def test_the_digest_of_a_file_does_not_depend_on_the_time(place, file):
    first, second = (as_task(file, place, Judging(), Drawing()) for _ in range(2))
    assert first.prompts != second.prompts
    before = digest(first, file, place)
    assert digest(second, file, place) == before
    other = as_task(file, place, Judging(think="</think>"), Drawing(end_tokens="a"))
    assert (other.think, other.end_tokens) == ("</think>", ("a",))
    assert digest(other, file, place) != before
    file.write_text(file.read_text() + file.read_text().replace("ab", "aab"))
    assert digest(as_task(file, place, Judging(), Drawing()), file, place) != before


def test_texts_with_any_sign_are_read_as_they_were_written(tmp_path):
    odd = "line\nbreak \u2028 \x85 \ud800 \r end"
    task = Task("t", (Prompt("c" + odd, odd, "a", "", "one"),), exact_match, None, 4)
    assert as_asked(task, tmp_path / "asked.jsonl") == task
    later = Task("t", (Prompt("", "later", "a", "", "one"),), exact_match, None, 4)
    assert as_asked(later, tmp_path / "asked.jsonl") == task
    (tmp_path / "asked.jsonl").write_text("{")
    with pytest.raises(UserError, match="asked.jsonl is damaged"):
        as_asked(task, tmp_path / "asked.jsonl")


def test_a_stop_of_several_tokens_is_refused_before_the_folder_is_made(
    place, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(drawing, "sample", lambda *a, **k: pytest.fail("drawn"))
    monkeypatch.setattr(
        "passgrad.measurement.run.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    for wrong in ({"stop": "ab"}, {"end_tokens": ["ab"]}):
        with pytest.raises(UserError, match="'ab' is 2 tokens for this model"):
            measure(place, file, out=tmp_path / "m", samples=8, **wrong)
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match="stop and end_tokens are both given"):
        Drawing(stop="a", end_tokens=["b"])
    with pytest.raises(UserError, match="think is empty"):
        Judging(think=" ")


def test_a_failed_vllm_is_a_remark(place, file, tmp_path, monkeypatch):
    from passgrad.rollouts import sampling, vllm_engine

    def run(command, output, watch):
        output.write_text("ValueError: no room for the cache\n")
        return -9

    monkeypatch.setattr(sampling, "vllm_problem", lambda: None)
    monkeypatch.setattr(vllm_engine, "_run", run)
    with pytest.raises(UserError, match=r"vLLM cannot draw here: ValueError: no room.*vllm.log\)"):
        measure(place, file, out=tmp_path / "v", samples=8, engine="vllm", max_new_tokens=3)
    measured = measure(
        place, file, out=tmp_path / "m", samples=8, max_new_tokens=3, parts=False, step=False,
        reading="fixed",
    )  # fmt: skip
    [text] = [text for text in measured.remarks if "transformers" in text]
    log = tmp_path / "m" / "rollouts" / "part-00000.vllm.log"
    assert "ValueError: no room for the cache" in text
    assert str(log) in text
    assert log.read_text() == "ValueError: no room for the cache\n"


def test_the_record_says_what_ended_the_completions_of_a_log(place, file, tmp_path):
    rows = [
        {"prompt": text, "completion": answer, "reward": int(answer == "a")}
        for text in ("a=", "b=", "ab=", "ba=")
        for answer in ("a", "b", "a", "ab")
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"parts": False, "step": False, "reading": "fixed", "rollouts": path, "ks": [1]}
    for name, options, ends in (
        ("own", {}, ["<end>"]), ("named", {"end_tokens": ["="]}, ["="]),
        ("stop", {"stop": "\n"}, ["\n"]),
    ):  # fmt: skip
        measured = measure(place, out=tmp_path / name, **options, **short)
        assert measured.record["settings"]["end_tokens"] == ends
        assert {ids[-1] for ids in measured.rollouts.table["completion_ids"].to_pylist()} == {
            load_tokenizer(place).convert_tokens_to_ids(ends[0])
        }


def test_the_clock_of_the_template_runs(place, file):
    """The tests above would be worth nothing if it stood."""
    before = datetime.datetime.now()
    texts = {as_task(file, place, Judging(), Drawing()).prompts[0].text for _ in range(3)}
    assert len(texts) == 3
    assert datetime.datetime.now() > before
