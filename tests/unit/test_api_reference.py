"""The reference in the book, the docstrings behind it, and their examples."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    "passgrad",
    "passgrad.trl",
    "passgrad.estimators",
    "passgrad.stats",
    "passgrad.measurement",
]
#: these run on a language model, which their examples do not load
WITH_MODEL = {"load_model", "measure", "LanguageWorld"}
ENTRY = re.compile(r"^\.\. (?:auto\w+|py:data):: (passgrad[\w.]*)", re.MULTILINE)


def named(path):
    """The object of a full name such as passgrad.stats.pass_at_k_band."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def entries():
    pages = sorted((ROOT / "book").glob("api*.md"))
    return {entry for page in pages for entry in ENTRY.findall(page.read_text())}


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_entry(room):
    shown = entries()
    missing = [
        name
        for name in importlib.import_module(room).__all__
        if name != "__version__" and not {f"{room}.{name}", f"passgrad.{name}"} & shown
    ]
    assert missing == []


def test_every_entry_exists():
    for entry in entries() - set(ROOMS):
        room, _, name = entry.rpartition(".")
        if room == "passgrad.trl":  # its modules import TRL, and need it
            assert name in importlib.import_module(room).__all__
        else:
            assert named(entry)


def public():
    import passgrad

    return [name for name in passgrad.__all__ if name != "__version__"]


def examples(thing, name):
    module = inspect.getmodule(thing)
    finder = doctest.DocTestFinder(recurse=False)
    return finder.find(thing, name, module=module, globs=dict(vars(module)))


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_an_example_that_runs(name):
    [test] = examples(named(f"passgrad.{name}"), name)
    shown = [e for e in test.examples if not e.options.get(doctest.SKIP) and e.want]
    assert shown or name in WITH_MODEL
    assert test.examples
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test)
    assert runner.failures == 0


@pytest.mark.parametrize("room", [*ROOMS[2:], "passgrad.objectives", "passgrad.exponential_sums"])
def test_examples_of_a_room_are_true(room):
    module = importlib.import_module(room)
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if inspect.getmodule(thing) is module
    ]
    count = 0
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            for test in examples(thing, name):
                count += len(test.examples)
                runner = doctest.DocTestRunner(verbose=False)
                runner.run(test)
                assert runner.failures == 0, name
    assert count


def test_docstrings_have_one_dialect():
    """Fields (``:param k:``), no underlined sections."""
    section = re.compile(r"^ *(Parameters|Returns|Raises|Yields|Notes|Examples)\n *-{4,}$", re.M)
    found = [
        f"{path.relative_to(ROOT)}: {match[1]}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for match in section.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
