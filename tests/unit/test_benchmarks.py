"""Every benchmark runs, and prints its ratios beside the limit."""

import json
import os
import re
import runpy
import subprocess
import sys

import pytest

from passgrad.lm.models import MODELS, save_model

#: what takes a model of one's own: a tiny one goes the same way in less time
WITH_MODEL = ("packed_logprobs", "measure_passes", "prompt_gram", "bfloat16")
NAMES = (
    "advantages", "bfloat16", "conflict_free_step", "measure_passes", "packed_logprobs",
    "phase_diagram", "prompt_gram", "read_logs",
)  # fmt: skip
#: what starts an engine takes longer than the others
WITH_ENGINE = "rollout_engines"


def numbers(content, word):
    """The numbers whose key, or a key above it, has the word."""
    found = []
    for key, value in content.items():
        if isinstance(value, dict):
            found += numbers(value, "" if word in key else word)
        elif word in key and isinstance(value, int | float):
            found.append(value)
    return found


def test_every_script_is_tried(root):
    scripts = {path.stem for path in (root / "benchmarks").glob("[a-z]*.py")}
    assert scripts == {*NAMES, WITH_ENGINE}
    readme = (root / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in scripts)


@pytest.fixture(scope="module")
def tiny(make_tokenizer, tiny_model, tmp_path_factory):
    """The folder of a tiny model that reads printable text."""
    tokenizer = make_tokenizer([chr(i) for i in range(32, 127)] + ["\n"])
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, folder)
    return folder


def test_the_default_model_is_embedded(root):
    common = runpy.run_path(str(root / "benchmarks" / "_common.py"))
    assert common["MODEL"] in MODELS
    for name in WITH_MODEL:
        script = (root / "benchmarks" / f"{name}.py").read_text()
        assert re.search(r"(\w+): Model = MODEL,.*load_model\(\1\)", script, re.DOTALL)


def run(root, target, name, *given):
    """Run a benchmark in its smoke form, and look at what it prints."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--smoke", "--json", str(target), *given],
        cwd=root, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(target.read_text())
    assert json.loads(done.stdout) == figures
    assert figures["smoke"] is True
    for word in ("ratio", "limit"):
        found = numbers(figures, word)
        assert found, word
        assert min(found) > 0


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_ratio_and_limit(processes, root, tmp_path, request, name):
    given = ("--model", str(request.getfixturevalue("tiny"))) if name in WITH_MODEL else ()
    run(root, tmp_path / "figures.json", name, *given)


def test_engines_are_compared(vllm, root, tmp_path):
    run(root, tmp_path / "figures.json", WITH_ENGINE)


def test_the_book_says_what_bfloat16_was_measured_to_do(root):
    figures = json.loads((root / "benchmarks" / "figures" / "bfloat16.json").read_text())
    assert figures["smoke"] is False
    assert re.fullmatch(r"[0-9a-f]{40}", figures["provenance"]["commit"])
    text = (root / "book" / "measure.md").read_text().split("(sec-measure-bfloat16)=", 1)[1]
    product = figures["product"]
    for k, row in product["forward"].items():
        cells = [f"{100 * row['bias']:+.1f} %", f"{100 * row['noise']:.1f} %"]
        cells.append(f"{row['bias_in_errors']:+.2f}")
        for way in ("central 2e-06", "central 1e-05"):
            one = product[way][k]
            cells += [f"{100 * one['bias']:+.1f} %", f"{100 * one['noise']:.1f} %"]
        assert f"| {k} | {' | '.join(cells)} |" in text
