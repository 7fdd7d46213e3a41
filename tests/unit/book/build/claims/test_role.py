"""The role {result} in a page of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from passgrad_book.build import results

ROOT = Path(__file__).resolve().parents[5]


@pytest.fixture
def page(checkout, tmp_path):
    def store(value):
        table = pd.DataFrame({"k": [10], "cosine": [value]})
        results.obtain(results.Key("one", 1, "seed-0", {}), lambda: {"t": table}, recompute=True)

    store(-0.0728)
    source = tmp_path / "source"
    source.mkdir()
    extension = ROOT / "book" / "_ext"
    lines = [f"import sys; sys.path.insert(0, {str(extension)!r})"]
    lines += ["extensions = ['myst_parser', 'results_role']", "root_doc = 'page'"]
    (source / "conf.py").write_text("\n".join(lines) + "\n")

    def build(text):
        if text is not None:
            (source / "page.md").write_text(f"# Title\n\n{text}\n")
        command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", source, source / "out"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        html = source / "out" / "page.html"
        return done, html.read_text() if html.is_file() else ""

    yield build, store
    shutil.rmtree(source)


def test_a_number_comes_from_its_file_and_follows_it(processes, page):
    build, store = page
    done, html = build("The cosine is {result}`one/cpu/seed-0:t[k=10].cosine|.2f`.")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'title="data/results/one/cpu/seed-0.t.parquet, sha256 ' in html
    assert ">−0.07</span>." in html
    store(0.25)
    done, html = build(None)
    assert ">0.25</span>." in html


def test_a_number_that_is_not_there_ends_the_build(processes, page):
    build, _ = page
    done, _ = build("The cosine is {result}`one/cpu/seed-0:t[k=7].cosine|.2f`.")
    assert done.returncode != 0
    assert "page.md:3:one/cpu/seed-0:t[k=7] chooses 0 rows" in done.stderr
