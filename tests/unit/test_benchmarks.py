"""Every benchmark runs, and prints its ratios beside the limit."""

import json
import os
import subprocess
import sys

import pytest

# The scripts that compute with a model, or start an engine, take longer than the others.
MARKS = {
    "packed_logprobs": (pytest.mark.slow, pytest.mark.model),
    "measure_passes": (pytest.mark.slow, pytest.mark.model),
    "rollout_engines": (pytest.mark.slow, pytest.mark.model, pytest.mark.vllm),
}
NAMES = ("advantages", "measure_passes", "packed_logprobs", "phase_diagram", "rollout_engines")


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
    assert scripts == set(NAMES)
    readme = (root / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in scripts)


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS.get(n, ())) for n in NAMES])
def test_it_prints_ratio_and_limit(root, tmp_path, name):
    if name == "rollout_engines":
        from passgrad.lm.sampling import vllm_problem

        if problem := vllm_problem():
            pytest.skip(problem)
    target = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--smoke", "--json", str(target)],
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
