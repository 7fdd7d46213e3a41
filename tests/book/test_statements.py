"""Every statement of the book names the test that checks it, and that test names the statement."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")])
TESTS = sorted((ROOT / "tests" / "theory").glob("test_*.py"))

#: what has to be true, unlike a definition or an assumption
KINDS = "theorem|proposition|lemma|corollary"


def blocks():
    """(file, label, body) of every statement; comment signs of notebooks are taken off."""
    for source in SOURCES:
        text = re.sub(r"^# ?", "", source.read_text(), flags=re.MULTILINE)
        pattern = rf"^(`{{3,}}|:{{3,}})\{{prf:(?:{KINDS})\}}.*?\n(.*?)^\1$"
        for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
            label = re.search(r"^:label: (\S+)$", match[2], re.MULTILINE)
            yield source.name, label[1] if label else None, match[2]


def marked(path):
    """The labels in the ``statement`` marks of a test file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.statement":
            found |= {ast.literal_eval(argument) for argument in node.args}
    return found


STATEMENTS = list(blocks())
MARKS = {path.stem: marked(path) for path in TESTS}


def test_there_are_statements():
    assert len(STATEMENTS) >= 20


def test_labels_are_unique():
    labels = [label for _, label, _ in STATEMENTS]
    assert None not in labels
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(("source", "label", "body"), STATEMENTS, ids=[s[1] for s in STATEMENTS])
def test_a_statement_is_checked_by_the_test_that_it_names(source, label, body):
    named = re.findall(r"\{test\}`([^`]+)`", body)
    assert named, f"{label} in {source} names no test"
    for name in named:
        assert label in MARKS.get(name, set()), f"tests/theory/{name}.py does not mark {label}"


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_a_test_names_statements_that_exist(path):
    labels = MARKS[path.stem]
    assert labels, f"{path.name} marks no statement"
    assert labels <= {label for _, label, _ in STATEMENTS}
