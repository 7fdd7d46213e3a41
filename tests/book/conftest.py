"""A small book for the tests.

The project's configuration, prose and extensions, one chapter in the smoke profile, and a page that
stands in for each of the others.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LINKED = [
    "_config.yml",
    "_toc.yml",
    "book",
    "data",
    "examples",
    "pyproject.toml",
    "requirements",
    "src",
    "tests",
]

#: the chapter that is executed
CHAPTER = "notebooks/toy"


def chapters():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [page for page in pages if page.startswith("notebooks/")]


def label_of(source):
    """The label above the title of a chapter, so that references to it are found."""
    line = next(line for line in source.read_text().splitlines() if line.startswith("# (sec-"))
    return line.removeprefix("# ")


class Book:
    def __init__(self, root):
        self.root = root
        self.html = root / "_build" / "html"


#: what other pages refer to by its label
STATEMENT = """
```{{prf:{kind}}} A statement that stands in
:label: {label}

It says nothing.
```
"""


#: a chapter that runs in a second, for tests that build several times
TINY = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# {label}
# # A page that stands in
#
# {text}

# %%
1 + 1
"""


def cited(path):
    found = set()
    for keys in re.findall(r"\{cite(?::[a-z]+)?\}`([^`]+)`", path.read_text()):
        found |= {key.strip() for key in keys.split(",")}
    return found


def statements(source):
    """Stand-ins for the statements of a chapter."""
    text = re.sub(r"^# ?", "", source.read_text(), flags=re.MULTILINE)
    found = re.findall(r"^`{3,}\{prf:(\w+)\}.*\n:label: (\S+)$", text, re.MULTILINE)
    return "".join(STATEMENT.format(kind=kind, label=label) for kind, label in found)


def stand_in(page):
    """Label, citations and statements of a chapter, so that other pages find what they refer to."""
    source = ROOT / f"{page}.py"
    if not source.is_file():
        return "", ""
    cites = " ".join(f"{{cite}}`{key}`" for key in sorted(cited(source)))
    return label_of(source), cites + "\n" + statements(source)


def make(folder, *, tiny=False):
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    for name in LINKED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    if tiny:
        label, text = stand_in(CHAPTER)
        text = text.strip().replace("\n", "\n# ")
        (folder / f"{CHAPTER}.py").write_text(TINY.format(label=label, text=text))
        for profile in ("smoke", "cpu"):
            (folder / "notebooks" / "profiles" / f"{profile}.yml").write_text("")
    else:
        shutil.copy(ROOT / f"{CHAPTER}.py", folder / f"{CHAPTER}.py")
        for profile in (ROOT / "notebooks" / "profiles").glob("*.yml"):
            shutil.copy(profile, folder / "notebooks" / "profiles")
    for page in chapters():
        if page != CHAPTER:
            label, text = stand_in(page)
            (folder / f"{page}.md").write_text(f"{label}\n# A page that stands in\n\n{text}\n")
    return Book(folder)


@pytest.fixture(scope="session")
def build_book():
    """Builds a book as `make book` does; gives the output of both streams."""

    def build(book):
        environment = {**os.environ, "PASSGRAD_ROOT": str(book.root), "NO_COLOR": "1"}
        environment.pop("PASSGRAD_PROFILE", None)
        return subprocess.run(
            [sys.executable, "-m", "passgrad.cli", "book", "--profile", "smoke"],
            env=environment, cwd=book.root, text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def book(tmp_path_factory, build_book):
    """The one built book of all tests."""
    book = make(tmp_path_factory.mktemp("book") / "checkout")
    book.first = build_book(book)
    return book


@pytest.fixture
def tiny_book(tmp_path):
    """The same book with a first chapter that takes a second; not built yet."""
    return make(tmp_path / "checkout", tiny=True)
