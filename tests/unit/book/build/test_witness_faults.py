"""The witness of an experiment sees a wrong constant deep below it, and no word of a message."""

import re
import shutil
import subprocess
import sys

import pytest

#: the scores of the tails of a packed row are too large by 3 in 10,000: the library's own check of
#: packed rows cannot see it
CONSTANT = (
    "lm/attention.py",
    "query, key, value, attn_mask=seen, is_causal=seen is None, scale=self.scaling,",
    "query * (1.0 if seen is None else 1.0003), key, value, attn_mask=seen, "
    "is_causal=seen is None, scale=self.scaling,",
)
MESSAGE = ("orders.py", "k must be a finite number", "k has to be a finite number")


@pytest.fixture
def source(tmp_path, root):
    """A checkout with a source of its own, and its log without a line."""
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(root / "src", folder / "src", ignore=ignored)
    (folder / "data").mkdir()
    shutil.copytree(root / "data" / "witnesses", folder / "data" / "witnesses")
    for name in ("pyproject.toml", "_toc.yml"):
        shutil.copyfile(root / name, folder / name)
    return folder


def edit(folder, fault):
    name, before, after = fault
    path = folder / "src" / "passgrad" / name
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def undo(folder, fault):
    name, before, after = fault
    edit(folder, (name, after, before))


def witness(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    monkeypatch.setenv("PASSGRAD_ROOT", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "passgrad.cli", "witness", "regime_map"],
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    log = folder / "data" / "attestations.jsonl"
    return done, log.read_text().count("\n") if log.is_file() else 0


@pytest.mark.timeout(900)
def test_a_constant_deep_in_the_attention_is_caught_and_a_message_is_not(
    processes, source, monkeypatch
):
    edit(source, CONSTANT)
    done, lines = witness(source, monkeypatch)
    assert done.returncode == 1
    failure = "[fail] experiment regime_map: the code of today gives another "
    assert failure in done.stdout, done.stdout + done.stderr
    assert re.search(r"another (curve|prompts)\.\w+, off by", done.stdout)
    assert lines == 0

    undo(source, CONSTANT)
    edit(source, MESSAGE)
    done, lines = witness(source, monkeypatch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "regime_map: the same numbers" in done.stdout
    assert lines == 1

    # The same code once more is known.
    done, lines = witness(source, monkeypatch)
    assert "regime_map: known" in done.stdout
    assert lines == 1
