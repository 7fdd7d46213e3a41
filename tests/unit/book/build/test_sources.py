import re
import shutil
import subprocess
import sys

import pytest

from passgrad.errors import UserError
from passgrad_book.build import paths, sources

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
    assert sources.code_digest(CODE) == sources.code_digest(same)


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
    assert sources.code_digest(CODE) != sources.code_digest(other)


def test_a_string_that_is_no_docstring_enters():
    assert sources.code_digest("a = 'x'") != sources.code_digest("a = 'y'")


def test_dependencies_go_down_and_not_up():
    found = sources.dependencies(["passgrad.worlds.bandit"])
    assert "passgrad.worlds.bandit" in found
    assert "passgrad.worlds.base" in found
    assert "passgrad.errors" in found
    # interference imports the worlds; the worlds do not depend on it
    assert "passgrad.interference" not in found
    assert "passgrad.cli" not in found
    assert found == sorted(found)


def test_digest_changes_with_a_module_that_is_imported_and_not_with_others(processes, tmp_path):
    """The package is copied, and one line of one module changed."""
    checkout = tmp_path / "checkout"
    shutil.copytree(
        paths.source(), checkout / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("pyproject.toml", "_toc.yml"):
        (checkout / name).write_text("")
    code = (
        "from passgrad_book.build import sources;"
        "print(*(sources.digest([f'passgrad.{m}']) for m in ('worlds.bandit', 'metrics')))"
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


def test_programs_that_are_started_are_dependencies():
    found = sources.dependencies(["passgrad.rollouts.vllm_engine", "passgrad.tasks.verifiers"])
    assert {"passgrad.rollouts.vllm_worker", "passgrad.tasks.verifier_worker"} <= set(found)


def test_every_program_of_the_project_is_listed():
    """A module that runs as a program is started by another one, which no import says."""
    programs = {
        ".".join(file.relative_to(paths.source()).with_suffix("").parts)
        for file in paths.source().rglob("*.py")
        if re.search(r"^if __name__ == .__main__.:", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    listed = {name for started in sources.PROGRAMS.values() for name in started}
    assert programs == listed


def test_unknown_module():
    with pytest.raises(UserError, match="no module 'passgrad.nothing'"):
        sources.digest(["passgrad.nothing"])
