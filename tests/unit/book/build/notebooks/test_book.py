"""When a chapter of the book is executed again, and when not.

The chapters run in this process, without a kernel.
"""

import hashlib
import json

import nbformat
import pytest

from passgrad_book.build import notebooks, results
from passgrad_book.build.notebooks import book, running
from passgrad_book.build.notebooks.modules import python_of
from passgrad_book.build.notebooks.running import Executed
from passgrad_book.build.notebooks.source import split

READS = """\
# %%
from passgrad import stats
from passgrad_book.experiments.doubled import doubled

# %% tags=["parameters"]
size: int = 3  # rows

# %%
found = doubled.result(size=size)
"""


class Chapter:
    """A chapter in a checkout; ``ran`` counts its executions."""

    def __init__(self, path, codes):
        self.path, self.codes, self.ran = path, codes, 0

    def write(self, text):
        self.path.write_text(text)

    def runs_again(self, profile="cpu"):
        """Whether the book executes it now; a second look finds it executed."""
        before = self.ran
        made = notebooks.ensure_executed(self.path, profile, progress=False)
        assert made == notebooks.executed_path(self.path, profile)
        after = self.ran
        assert notebooks.ensure_executed(self.path, profile, progress=False) == made
        assert self.ran == after <= before + 1
        return after > before


@pytest.fixture
def chapter(toy, checkout, monkeypatch):
    """A chapter that was executed; the code of modules is what ``codes`` says."""
    codes = {}

    def digest(modules):
        text = repr([(module, codes.get(module)) for module in modules])
        return hashlib.sha256(text.encode()).hexdigest()

    for where in ("sources", "notebooks.modules", "notebooks.book"):
        monkeypatch.setattr(f"passgrad_book.build.{where}.digest", digest)
    made = Chapter(checkout / "notebooks" / "chapter.py", codes)

    def execute(path, profile, parameters, folder, *, variables, progress):
        made.ran += 1
        environment = variables | {results.PROFILE_VARIABLE: profile}
        code = python_of(split(path.read_text()))
        values = notebooks.resolve(path, profile)
        for name, value in values.items():
            code += f"\n{name} = {value!r}"
        with running._environment(environment):
            exec(code.replace("size: int = 3", f"size: int = {values['size']}"), {})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chapter.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()))
        return Executed(None, folder / "chapter.ipynb", {})

    monkeypatch.setattr(running, "execute", execute)
    made.write(READS)
    toy.doubled.result(size=3, recompute=True)
    assert made.runs_again()
    assert not made.runs_again()
    return made


def test_its_text(chapter):
    chapter.write(READS + "# more\n")
    assert chapter.runs_again()
    chapter.write(READS)  # what was executed before is still there
    assert not chapter.runs_again()


def test_its_parameters(chapter, checkout, toy):
    toy.doubled.result(size=2, recompute=True)
    profile = checkout / "notebooks" / "profiles" / "cpu.yml"
    profile.write_text("chapter:\n  size: 2\n")
    assert chapter.runs_again()
    profile.write_text("other:\n  size: 4\n")  # of another chapter
    assert not chapter.runs_again()


def test_the_packages(chapter, monkeypatch):
    monkeypatch.setattr("passgrad.provenance.versions", lambda: {"numpy": "9.9"})
    assert chapter.runs_again()


def test_a_result_that_it_reads_and_no_other(chapter, toy):
    toy.doubled.result(size=4, recompute=True)
    results.remove("doubled/cpu/size-4-seed-0")
    toy.doubled.result(size=3, seed=1, recompute=True)
    assert not chapter.runs_again()
    toy.factor = 3.0
    toy.doubled.result(size=3, recompute=True)
    assert chapter.runs_again()
    before = chapter.ran
    results.remove("doubled/cpu/size-3-seed-0")
    assert chapter.runs_again()  # and computes it
    assert chapter.ran == before + 1


def test_code_that_it_computes_with_and_not_that_of_what_is_stored(chapter):
    chapter.codes["passgrad.metrics"] = "the code of the experiment"
    chapter.codes["passgrad.tasks"] = "of nothing here"
    assert not chapter.runs_again()
    chapter.codes["passgrad.stats"] = "the code that it imports"
    assert chapter.runs_again()


def test_the_version_of_its_experiment(chapter, toy):
    toy.doubled.version = 2
    assert chapter.runs_again()


def test_a_result_that_was_computed_here_is_of_this_code(chapter, toy):
    results.remove("doubled")
    assert chapter.runs_again()
    runs = toy.runs
    chapter.codes["passgrad.metrics"] = "the code of the experiment"
    assert chapter.runs_again()
    assert toy.runs == runs + 1
    assert not chapter.runs_again()


def test_a_result_that_ships_now_takes_the_place_of_a_computed_one(chapter, toy):
    results.remove("doubled")
    assert chapter.runs_again()
    toy.factor = 3.0
    toy.doubled.result(size=3, recompute=True)
    assert chapter.runs_again()
    # From now on the code of the experiment does not matter.
    chapter.codes["passgrad.metrics"] = "the code of the experiment"
    assert not chapter.runs_again()


def test_a_result_that_was_looked_for_in_vain(chapter, toy):
    chapter.write(
        READS
        + "from passgrad.errors import UserError\n"
        + "from passgrad_book.build import results\n"
        + "try:\n    results.load('doubled', 'size-2-seed-0')\nexcept UserError:\n    pass\n"
    )
    assert chapter.runs_again()
    toy.doubled.result(size=2, recompute=True)
    assert chapter.runs_again()
    assert not chapter.runs_again()


def test_a_result_of_no_experiment(chapter):
    chapter.write(
        READS
        + "from passgrad_book.build import results\n"
        + "import pandas as pd\n"
        + "key = results.Key('other', 1, 'one', {}, modules=['passgrad.tasks'])\n"
        + "results.obtain(key, lambda: {'t': pd.DataFrame({'x': [1]})})\n"
    )
    assert chapter.runs_again()
    chapter.codes["passgrad.tasks"] = "new"
    assert chapter.runs_again()


def test_profiles_do_not_disturb_each_other(chapter, checkout, toy):
    (checkout / "notebooks" / "profiles" / "smoke.yml").write_text("chapter:\n  size: 2\n")
    assert chapter.runs_again("smoke")
    assert not chapter.runs_again("cpu")
    toy.doubled.result(size=3, recompute=True)  # another time, another record
    toy.doubled.result(size=3, seed=5, recompute=True)
    toy.factor = 3.0
    toy.doubled.result(size=3, recompute=True)
    assert not chapter.runs_again("smoke")
    assert chapter.runs_again("cpu")


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_text("{")])
def test_a_list_of_reads_that_is_lost(chapter, checkout, damage):
    (reads,) = (checkout / "_build" / "executed").glob("*.reads.json")
    assert json.loads(reads.read_text())
    damage(reads)
    assert chapter.runs_again()


def test_a_few_executed_versions_are_kept(chapter, checkout):
    for number in range(2 * book.KEPT):
        chapter.write(READS + f"# {number}\n")
        assert chapter.runs_again()
    folder = checkout / "_build" / "executed"
    assert len(list(folder.glob("chapter-*.ipynb"))) == book.KEPT
    assert len(list(folder.glob("chapter-*.reads.json"))) == book.KEPT
