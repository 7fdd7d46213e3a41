"""A whole measurement on a tiny model: against the exact truth, stopped and continued."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.lm.models import load_model, save_model
from passgrad.lm.rollouts import Sampling
from passgrad.measurement import run
from passgrad.measurement.run import default_ks, measure
from passgrad.report.measured import content_of
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
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, folder)
    return folder


def options(**changes):
    return {"num_samples": 32, "engine": "transformers", "prompts": "fixed"} | changes


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    lines = []
    folder = tmp_path_factory.mktemp("measured") / "m"
    result = measure(
        place, TASK, out=folder, ks=[1, 2, 4], progress=lines.append, **options(num_samples=12000)
    )
    return result, lines


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
    result, lines = made
    folder = result.folder
    record = json.loads((folder / "measurement.json").read_text())
    assert record["verdict"] == result.estimate.verdict
    assert [row["k"] for row in record["curve"]] == [1, 2, 4]
    assert record["settings"]["num_samples"] == 12000
    assert record["provenance"]["seed"] == 0
    curve = pd.read_parquet(folder / "curve.parquet")
    assert curve["inner_product"].tolist() == result.estimate.inner_product.tolist()
    prompts = pd.read_parquet(folder / "prompts.parquet")
    assert prompts["prompt_id"].tolist() == [prompt.id for prompt in PROMPTS]
    assert prompts["num_correct"].tolist() == result.rollouts.num_correct.tolist()
    assert any(line.startswith("drawing 12000 completions of 6 prompts") for line in lines)
    assert lines[-1].startswith("pass 6: ")


def test_the_report_shows_what_was_measured(made):
    content = content_of(made[0])
    assert content.verdict == made[0].estimate.verdict
    assert [row.k for row in content.curve] == [1, 2, 4]
    assert {row.id for row in content.prompts} == {prompt.id for prompt in PROMPTS}
    assert content.prompts[0].right == "a"


def test_what_is_there_is_not_made_again(place, tmp_path, monkeypatch):
    first = measure(place, TASK, out=tmp_path / "whole", **options())
    calls = []

    class StopError(Exception):
        pass

    def stop_at(number):
        def say(text):
            if text.startswith(f"pass {number}"):
                raise StopError

        return say

    with pytest.raises(StopError):
        measure(place, TASK, out=tmp_path / "cut", progress=stop_at(3), **options())
    kept = sorted((tmp_path / "cut" / "passes").iterdir())
    assert len(kept) == 3
    original = run.sample
    monkeypatch.setattr(run, "sample", lambda *a, **k: calls.append(1) or original(*a, **k))
    again = measure(place, TASK, out=tmp_path / "cut", resume=True, **options())
    assert calls == []
    assert again.rollouts.table.equals(first.rollouts.table)
    np.testing.assert_array_equal(again.estimate.inner_product, first.estimate.inner_product)
    np.testing.assert_array_equal(again.estimate.band_low, first.estimate.band_low)


PROGRAM = """
from passgrad.measurement.run import measure
from passgrad.tasks.base import Prompt, Task, exact_match
prompts = tuple(Prompt(*row) for row in {prompts!r})
task = Task("tiny", prompts, exact_match, "\\n", 4)
measure({place!r}, task, out={out!r}, resume=True, num_samples=32, engine="transformers",
        prompts="fixed")
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_numbers(place, tmp_path):
    whole = measure(place, TASK, out=tmp_path / "whole", **options())
    rows = [(p.context, p.question, p.answer, p.group, p.id) for p in PROMPTS]
    program = PROGRAM.format(prompts=rows, place=str(place), out=str(tmp_path / "killed"))
    rng = np.random.default_rng(0)
    deaths = 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", program])
        # Starting takes seconds; what can be cut short is behind it.
        deadline = time.monotonic() + rng.uniform(0.5, 8)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            deaths += 1
        process.wait()
    assert deaths >= 3
    ended = measure(place, TASK, out=tmp_path / "killed", resume=True, **options())
    np.testing.assert_array_equal(ended.estimate.inner_product, whole.estimate.inner_product)
    np.testing.assert_array_equal(ended.estimate.cosine, whole.estimate.cosine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": Sampling(temperature=0.7)}, "drawn at temperature 0.7, .* leave all three"),
        ({"num_samples": 2}, "too small: draw at least 4|needs at least|exceeds"),
        ({"ks": [64]}, "k = 64 is too large for the 16 completions"),
        ({"estimator": "grpo"}, "grpo"),
    ],
)
def test_refusals(place, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        measure(place, TASK, out=tmp_path / "m", **options(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()  # said before anything was sampled


def test_a_model_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        measure(tmp_path / "nowhere", TASK, out=tmp_path / "m", **options())
    assert not (tmp_path / "m").exists()


def test_a_folder_is_one_measurement(place, tmp_path):
    folder = tmp_path / "m"
    measure(place, TASK, out=folder, **options())
    with pytest.raises(UserError, match="holds a measurement already: set resume"):
        measure(place, TASK, out=folder, **options())
    with pytest.raises(UserError, match="was begun with another num_samples"):
        measure(place, TASK, out=folder, resume=True, **options(num_samples=16))
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
