"""A whole measurement on a tiny model: against the exact truth, stopped and continued."""

import json
import multiprocessing
import signal
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.lm.models import load_model, save_model
from passgrad.lm.rollouts import Rollouts
from passgrad.measurement import drawing
from passgrad.measurement.report import render_report
from passgrad.measurement.report.measured import content_of
from passgrad.measurement.run import default_ks, measure
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.worlds.language import LanguageWorld

PROMPTS = tuple(
    Prompt(context, question, answer, group, f"{group}{i}")
    for i, (context, question, answer, group) in enumerate(
        [
            ("a\n", "b=", "a", "x"), ("aabb\n", "a=", "b", "x"), ("ab\n", "ab=", "a", "y"),
            ("b\n", "a=", "ab", "y"), ("bb\n", "b=", "b", "x"), ("ba\n", "bb=", "a", "y"),
        ]
    )
)  # fmt: skip
TASK = Task("tiny", PROMPTS, exact_match, "\n", 4)


@pytest.fixture(scope="module")
def place(make_tokenizer, tiny_model, tmp_path_factory):
    tokenizer = make_tokenizer("ab=\n")
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    # Transformers leaves the embedding of the padding token, which some answers hold here, at zero,
    # where a norm behind it has a derivative of 1 / sqrt(eps). A model that was trained does not.
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight[embedding.padding_idx] = embedding.weight[1:].mean(0)
    save_model(model, tokenizer, folder)
    return folder


def options(**changes):
    return {"samples": 32, "engine": "transformers", "reading": "fixed"} | changes


@pytest.fixture(scope="module")
def made(place, tmp_path_factory, recorder):
    shown = recorder()
    folder = tmp_path_factory.mktemp("measured") / "m"
    result = measure(
        place, TASK, out=folder, ks=[1, 2, 4], progress=shown, **options(samples=12000)
    )
    return result, shown


def test_the_estimate_is_near_the_exact_product(made, place):
    result, _ = made
    world = LanguageWorld(*load_model(place), PROMPTS)
    exact = conflict(world, ks=[1, 2, 4])
    estimate = result.estimate
    off = (estimate.inner_product - exact.inner_product.numpy()) / estimate.standard_error
    assert np.abs(off).max() < 4.5
    # The test has the power to notice a bias of a tenth of the product at k = 1.
    assert estimate.standard_error[0] < 0.1 * float(exact.inner_product[0])
    success = np.array(estimate.success)
    assert np.abs(success - exact.success.numpy()).max() < 0.05


def test_the_folder_has_tables_record_and_rollouts(made):
    result, shown = made
    folder = result.folder
    record = json.loads((folder / "measurement.json").read_text())
    assert record["verdict"] == result.estimate.verdict
    assert [row["k"] for row in record["curve"]] == [1, 2, 4]
    assert record["settings"]["samples"] == 12000
    assert record["provenance"]["seed"] == 0
    curve = pd.read_parquet(folder / "curve.parquet")
    assert curve["inner_product"].tolist() == result.estimate.inner_product.tolist()
    prompts = pd.read_parquet(folder / "prompts.parquet")
    assert prompts["prompt_id"].tolist() == [prompt.id for prompt in PROMPTS]
    assert prompts["num_correct"].tolist() == result.rollouts.num_correct.tolist()
    assert [stage[:2] for stage in shown.stages] == [
        ["reading model and prompts", 1],
        ["loading the model", 1],
        ["drawing completions", 72000],
        ["loading the model", 1],
        ["comparing completions with the model", 48],
        ["gradients and derivatives along them", 6],
        ["parts of the model at k = 2", 6],
        ["a step along the gradient of pass@2", 2],
        ["writing the tables", 1],
    ]
    assert all(done == pytest.approx(total) for _, total, done in shown.stages)
    assert " distinct completions of 72000, " in shown.notes[0]
    assert shown.notes[1].startswith("rows: packed rows, at most ")
    assert record["packing"]["packed"]
    assert record["packing"]["compared"] > 1
    assert record["packing"]["gap"] < 1e-4
    assert record["law"]["gap"] < 1e-4


def test_the_report_shows_what_was_measured(made):
    content = content_of(made[0])
    assert content.verdict == made[0].estimate.verdict
    assert [row.k for row in content.curve] == [1, 2, 4]
    assert {row.id for row in content.prompts} == {prompt.id for prompt in PROMPTS}
    assert content.prompts[0].right == "a"
    total = sum(row.contribution for row in content.prompts)
    assert total == pytest.approx(made[0].estimate.inner_product[1])
    layers = sum(row.product.value for row in content.layers if row.kind == "layer")
    assert layers == pytest.approx(total)
    assert [row.k for row in content.step] == [1, 2, 4]
    assert content.step_verdict == made[0].record["step"]
    assert any("optimiser" in text for text in content.not_measured)
    page = render_report(content)
    assert "What a step would do" in page


def test_parts_and_step_can_be_left_out(place, tmp_path):
    result = measure(place, TASK, out=tmp_path / "m", parts=False, step=False, **options())
    assert (result.parts, result.step) == (None, None)
    assert not (tmp_path / "m" / "parts.parquet").exists()
    content = content_of(result)
    assert any("which layers" in text for text in content.not_measured)
    assert "What a step would do" not in render_report(content)


def test_a_step_is_taken_and_adams_metric_read(place, tmp_path):
    model, _ = load_model(place)
    moments = {name: torch.full_like(p, 0.04) for name, p in model.named_parameters()}
    save_file(moments, tmp_path / "adam.safetensors")
    result = measure(
        place, TASK, out=tmp_path / "m", adam=tmp_path / "adam.safetensors", verify_step=True,
        step_size="points=20", ks=[1, 2], **options(samples=256),
    )  # fmt: skip
    frame = pd.read_parquet(tmp_path / "m" / "step.parquet")
    assert np.isfinite(frame["realised_change"]).all()
    assert "; it changed pass@1 by" in result.record["step"]
    parts = pd.read_parquet(tmp_path / "m" / "parts.parquet")
    whole = parts[parts["kind"] == "whole"].set_index("metric")["inner_product"]
    assert len(whole) == 2
    # All second moments alike: the metric is plain but for a factor.
    assert whole.iloc[1] == pytest.approx(whole.iloc[0] / (0.2 + 1e-8), rel=1e-4)
    assert len({row.metric for row in content_of(result).layers}) == 2
    with pytest.raises(UserError, match="verified with prompts"):
        measure(place, out=tmp_path / "n", rollouts=tmp_path / "x.parquet", verify_step=True)


def test_what_is_there_is_not_made_again(place, tmp_path, monkeypatch, recorder):
    asked = options(samples=256)  # enough for right answers in both halves
    first = measure(place, TASK, out=tmp_path / "whole", **asked)
    calls = []

    class StopError(Exception):
        pass

    class Stop(recorder):
        def advance(self, amount=1):
            super().advance(amount)
            if self.stages[-1][0].startswith("gradients") and self.stages[-1][2] == 3:
                raise StopError

    with pytest.raises(StopError):
        measure(place, TASK, out=tmp_path / "cut", progress=Stop(), **asked)
    kept = sorted((tmp_path / "cut" / "passes").iterdir())
    assert len(kept) == 3
    original = drawing.sample
    monkeypatch.setattr(drawing, "sample", lambda *a, **k: calls.append(1) or original(*a, **k))
    again = measure(place, TASK, out=tmp_path / "cut", resume=True, **asked)
    assert calls == []
    assert again.rollouts.table.equals(first.rollouts.table)
    np.testing.assert_array_equal(again.estimate.inner_product, first.estimate.inner_product)
    np.testing.assert_array_equal(again.estimate.band_low, first.estimate.band_low)


@pytest.fixture(scope="module")
def forks():
    """Processes that have imported all they need, so that a kill falls into the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "passgrad.measurement.run", "pandas", "pyarrow.dataset", "scipy.stats",
            "torch._dynamo", "transformers.generation", "transformers.models.auto.modeling_auto",
            "transformers.models.llama.modeling_llama",
        ]
    )  # fmt: skip
    return context


def test_killed_at_any_moment_it_ends_with_the_same_numbers(processes, place, tmp_path, forks):
    whole = measure(place, TASK, out=tmp_path / "whole", **options())

    def start(name):
        asked = options(out=tmp_path / name, resume=True)
        process = forks.Process(target=measure, args=(place, TASK), kwargs=asked)
        process.start()
        return process

    start("first").join()  # which starts what is forked from
    begun = time.monotonic()
    alone = start("alone")
    alone.join()
    seconds = time.monotonic() - begun
    assert alone.exitcode == 0
    rng = np.random.default_rng(0)
    deaths, ends = 0, 0
    for _ in range(20):
        process = start(f"killed {ends}")
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        deaths += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # the next are killed on their way to it again
            ends += 1
    assert deaths >= 5
    for number in range(ends + 1):
        ended = measure(place, TASK, out=tmp_path / f"killed {number}", resume=True, **options())
        np.testing.assert_array_equal(ended.estimate.inner_product, whole.estimate.inner_product)
        np.testing.assert_array_equal(ended.estimate.cosine, whole.estimate.cosine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2}, "too small: draw at least 4|needs at least|exceeds"),
        ({"ks": [64]}, "k = 64 is too large for the 16 completions"),
        ({"estimator": "grpo"}, "grpo"),
    ],
)
def test_refusals(place, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        measure(place, TASK, out=tmp_path / "m", **options(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()  # said before anything was sampled


def test_a_server_cannot_verify_a_step(place, tmp_path):
    with pytest.raises(UserError, match="cannot be verified with a server"):
        measure(
            place, TASK, out=tmp_path / "m", base_url="http://localhost",
            **options(engine="server", verify_step=True),
        )  # fmt: skip
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("same", [True, False])
def test_a_server_with_another_model_is_asked_for_one_block(
    place, tmp_path, monkeypatch, make_tokenizer, tiny_model, same
):
    other = tmp_path / "other"
    tokenizer = make_tokenizer("ab=\n")
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32", seed=7), tokenizer, other)
    original, asked = drawing.sample, []

    def serve(model, task, *, num_samples, engine, settings, base_url, progress, **machine):
        """Completions of what is served, as a server returns them: no word on the engine's own."""
        asked.append(len(task.prompts))
        served = model if same else str(other)
        drawn = original(
            served, task, num_samples=num_samples, engine="transformers", settings=settings
        )
        place_of = drawn.table.column_names.index("engine")
        named = pa.array(["server"] * len(drawn.table))
        return Rollouts(drawn.table.set_column(place_of, "engine", named))

    monkeypatch.setattr(drawing, "sample", serve)
    monkeypatch.setattr(drawing, "BLOCK", 2)
    kept = {"out": tmp_path / "m", "step": False, "parts": False, "base_url": "http://localhost"}
    if same:
        measure(place, TASK, **kept, **options(engine="server", ks=[1, 2]))
        assert asked == [2, 2, 2]
    else:
        with pytest.raises(UserError, match="model"):
            measure(place, TASK, **kept, **options(engine="server", ks=[1, 2]))
        assert asked == [2]


def test_a_model_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        measure(tmp_path / "nowhere", TASK, out=tmp_path / "m", **options())
    assert not (tmp_path / "m").exists()


def test_a_folder_is_one_measurement(place, tmp_path):
    folder = tmp_path / "m"
    measure(place, TASK, out=folder, **options())
    with pytest.raises(UserError, match="holds a measurement already: --resume"):
        measure(place, TASK, out=folder, **options())
    with pytest.raises(UserError, match="was begun with another samples"):
        measure(place, TASK, out=folder, resume=True, **options(samples=16))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no measurement"):
        measure(place, TASK, out=other, **options())
    assert (other / "thesis.txt").read_text() == "precious"


def test_the_orders_by_default():
    assert default_ks(64) == [1, 2, 4, 8, 16, 32]
    assert default_ks(4) == [1, 2]
    assert torch.tensor(default_ks(100)).max() <= 50


def test_prompts_from_a_file_with_a_verifier_that_fails(processes, place, tmp_path):
    lines = [{"prompt": p.text, "answer": p.answer, "id": p.id} for p in PROMPTS]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = tmp_path / "judge.py"
    judge.write_text(
        "def f(completion, answer):\n"
        "    if completion != answer:\n        raise ValueError('odd')\n"
        "    return completion == answer\n"
    )
    given = {"stop": "\n", "max_new_tokens": 4, "verifier": f"{judge}:f"}
    made = measure(place, path, out=tmp_path / "m", **given, **options())
    incidents = made.record["incidents"]
    assert {one["reason"] for one in incidents} == {"the verifier raised ValueError: odd"}
    answers = {p.id: p.answer for p in PROMPTS}
    assert all(one["answer"] == answers[one["prompt_id"]] for one in incidents)
    assert made.rollouts.num_correct.sum() > 0
    assert any("no ordinary verdict" in text for text in made.remarks)
    # Nothing is judged again, and the incidents are not forgotten.
    again = measure(place, path, out=tmp_path / "m", resume=True, **given, **options())
    assert again.record["incidents"] == made.record["incidents"]
    # Another prompt under the same id is another measurement.
    lines[0]["answer"] = "bb"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="begun with another prompts_digest"):
        measure(place, path, out=tmp_path / "m", resume=True, **given, **options())


def test_a_verifier_that_cannot_be_loaded_is_said_before_anything_is_drawn(
    processes, place, tmp_path, monkeypatch
):
    monkeypatch.setattr(drawing, "sample", lambda *a, **k: pytest.fail("drawn"))
    (tmp_path / "judge.py").write_text("import nowhere_at_all\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        measure(
            place, [("", "a=", "b")] * 4, out=tmp_path / "m", verifier=f"{tmp_path}/judge.py:f",
            stop="\n", **options(),
        )  # fmt: skip


def test_rollouts_from_elsewhere_give_the_same_numbers(made, place, tmp_path):
    first, _ = made
    path = tmp_path / "log.parquet"
    table = first.rollouts.table
    names = {"prompt_id": "id", "prompt": "prompt", "completion_ids": "completion_ids"}
    logged = table.select([*names, "reward"]).rename_columns([*names.values(), "reward"])
    pq.write_table(logged, path)
    short = {"reading": "fixed", "parts": False, "step": False}
    again = measure(place, out=tmp_path / "m", rollouts=path, ks=[4], **short)
    at_4 = list(first.estimate.ks).index(4)
    np.testing.assert_allclose(again.estimate.inner_product[-1], first.estimate.inner_product[at_4])
    assert again.record["settings"]["samples"] == 12000
    assert any("the log does not say temperature" in text for text in again.remarks)
    hot = tmp_path / "hot.parquet"
    few = logged.filter(pc.less(table["sample"], 64))
    pq.write_table(few.append_column("temperature", pa.array([0.7] * few.num_rows)), hot)
    warned = measure(place, out=tmp_path / "hot", rollouts=hot, ks=[1], **short)
    assert any("(temperature 0.7)" in text for text in warned.remarks)
    assert warned.record["remarks"] == list(warned.remarks)


def test_a_folder_of_steps_with_several_rewards_gives_the_same_numbers(made, place, tmp_path):
    """Two prompts a file, as a trainer leaves them; the reward is named, and kept in the record."""
    table = pd.DataFrame(made[0].rollouts.table.to_pylist()).groupby("prompt_id").head(64)
    whole = table[["prompt", "completion_ids", "reward"]]
    whole.to_parquet(tmp_path / "whole.parquet")
    short = {"reading": "fixed", "parts": False, "step": False, "ks": [1, 2, 4], "stop": "\n"}
    wanted = measure(place, out=tmp_path / "w", rollouts=tmp_path / "whole.parquet", **short)
    folder = tmp_path / "completions"
    folder.mkdir()
    names = list(dict.fromkeys(table["prompt"]))
    for step in range(3):
        part = whole[whole["prompt"].isin(names[2 * step : 2 * step + 2])]
        part = part.assign(step=step, right=2.0 * part["reward"] - 1, format=0.5)
        part.drop(columns="reward").to_parquet(folder / f"completions_{step:05d}.parquet")
    given = {"rollouts": folder, "layout": "plain", **short}
    with pytest.raises(UserError, match="unknown columns 'right', 'format'"):
        measure(place, out=tmp_path / "f", **given)
    given["reward"] = {"right": 1, "format": 0}
    read = measure(place, out=tmp_path / "f", threshold=0.5, **given)
    np.testing.assert_array_equal(read.estimate.inner_product, wanted.estimate.inner_product)
    assert any("3 training steps (0 to 2)" in text for text in read.remarks)
    with pytest.raises(UserError, match="begun with another rollouts_digest"):
        measure(place, out=tmp_path / "f", threshold=-0.5, resume=True, **given)


def test_without_prompts_and_rollouts_there_is_nothing_to_measure(place, tmp_path):
    with pytest.raises(UserError, match="neither prompts nor rollouts"):
        measure(place, out=tmp_path / "m")


def test_a_lack_of_memory_names_the_setting(place, tmp_path, monkeypatch):
    from passgrad.lm.passes import CompletionPasses

    monkeypatch.setattr(CompletionPasses, "gradient", lambda *a: torch.empty(2**55))
    with pytest.raises(UserError, match=r"out of memory: lower --token-budget .*now 99\)"):
        measure(place, TASK, out=tmp_path / "m", token_budget=99, **options())
