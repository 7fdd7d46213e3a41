"""The project's own claims.yml: what it names is there."""

import importlib
import itertools
import re
from pathlib import Path

import pytest

from passgrad_book.build import notebooks
from passgrad_book.build.claims import load, render
from passgrad_book.build.claims.reproduce import arguments, inputs
from passgrad_book.experiments import checks

ROOT = Path(__file__).resolve().parents[5]
CLAIMS = load()
STATEMENTS = {
    label
    for source in [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")]
    for label in re.findall(r":label: ((?:thm|prop|lem|cor)-\S+)$", source.read_text(), re.M)
}


def ids(claims):
    return [one.id for one in claims]


@pytest.mark.parametrize("claim", CLAIMS.claims, ids=ids(CLAIMS.claims))
def test_the_check_is_there(claim):
    if claim.verdict == "needs a GPU":
        assert claim.check is None
    else:
        assert checks.find(claim.check).__doc__


@pytest.mark.parametrize("claim", CLAIMS.claims, ids=ids(CLAIMS.claims))
def test_the_command_names_what_exists(claim):
    arguments(claim)
    assert inputs(claim) or claim.words[:2] == ["passgrad", "verify"]
    words = claim.words
    if words[:2] == ["passgrad", "verify"]:
        assert words[2:] == [claim.id]
    elif words[0] == "passgrad":
        path = notebooks.find(words[2])
        known = notebooks.parameters_of(path)
        given = dict(word.split("=", 1) for flag, word in itertools.pairwise(words) if flag == "-p")
        values = {name: notebooks.parse_value(text, known[name]) for name, text in given.items()}
        profile = words[words.index("--profile") + 1] if "--profile" in words else "cpu"
        notebooks.resolve(path, profile, values)


@pytest.mark.parametrize("claim", CLAIMS.claims, ids=ids(CLAIMS.claims))
def test_the_chapter_and_the_statement_are_there(claim):
    chapter = claim.derived.chapter
    assert (ROOT / f"{chapter}{'.md' if chapter.startswith('book/') else '.py'}").is_file()
    if claim.derived.statement:
        assert claim.derived.statement in STATEMENTS


def test_all_commands_together_take_at_most_45_minutes():
    assert render.total_minutes(CLAIMS) <= 45
    for one in CLAIMS.claims:
        assert one.verdict == "needs a GPU" or one.minutes <= 15


def test_a_command_has_one_duration():
    known = {}
    for one in CLAIMS.claims:
        assert known.setdefault(one.command, one.minutes) == one.minutes


@pytest.mark.parametrize("claim", CLAIMS.claims, ids=ids(CLAIMS.claims))
def test_a_run_stores_what_its_check_reads(claim):
    """Else the numbers after ``make reproduce`` would be those that ship, whatever it ran."""
    assert "smoke" not in claim.command  # its numbers mean nothing
    if claim.check and claim.words[:2] == ["passgrad", "run"]:
        subject = claim.check.split(".")[0]
        module = importlib.import_module(f"passgrad_book.experiments.checks.{subject}")
        experiment = getattr(module, "EXPERIMENT", None)
        notebook = notebooks.find(claim.words[2]).read_text()
        assert experiment is None or f"{experiment}.result(" in notebook


def test_the_ids_follow_each_other():
    for letter in "CE":
        numbers = [int(one.id[1:]) for one in CLAIMS.claims if one.id[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_tables_of_pkpo_are_quoted():
    assert len(CLAIMS.context) >= 4
    assert CLAIMS.context[0].rows[0].values[0] == 22.24


def test_a_check_is_found_by_its_own_module_only():
    assert checks.find("toy.step")()["pass_at_1_after"] < 0.47
    for name in ("toy", "toy.conflict", "toy._curve", "toy.nothing", "nothing.step", "os.getcwd"):
        with pytest.raises(Exception, match="there is no check"):
            checks.find(name)


def test_every_stored_experiment_is_described():
    card = (ROOT / "data" / "README.md").read_text()
    for folder in (ROOT / "data" / "results").iterdir():
        assert f"| `{folder.name}` |" in card
