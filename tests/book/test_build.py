import copy
import functools
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup

from passgrad import cli, provenance
from passgrad_book.build.figures import MIN_ALT

from .conftest import ROOT, chapters

pytestmark = pytest.mark.timeout(600)


def pages(book):
    found = [*book.html.glob("book/*.html"), *book.html.glob("notebooks/*.html")]
    assert found
    return found


@functools.cache
def soup_of(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def ids_of(page):
    return {element["id"] for element in soup_of(page).find_all(id=True)}


def test_build_succeeds_without_a_warning(book):
    output = book.first.stdout
    assert book.first.returncode == 0, output[-3000:]
    assert "build succeeded." in output
    assert "WARNING" not in output
    assert "1 of 1 chapters executed" in output
    assert f"Open {(book.html / 'index.html').as_uri()}" in output


def test_progress_says_what_runs(book):
    assert "[1/1] notebooks/toy.py: executing (smoke profile)" in book.first.stdout
    assert re.search(r"toy  cell \d+ of \d+  0:\d\d  ", book.first.stdout)


def test_nothing_but_the_book_is_built(book):
    built = {p.relative_to(book.html).as_posix() for p in book.html.rglob("*.html")}
    known = {"index.html", "genindex.html", "py-modindex.html", "search.html", "prf-prf.html"}
    known |= {p for p in built if p == "_modules/index.html" or p.startswith("_modules/passgrad/")}
    assert {p for p in built if not p.startswith(("book/", "notebooks/", "_static/"))} <= known


def test_a_second_build_executes_nothing_and_writes_nothing(book, build_book):
    before = {p: p.stat().st_mtime_ns for p in pages(book)}
    again = build_book(book)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "[1/1] notebooks/toy.py: unchanged, not executed" in again.stdout
    assert "0 of 1 chapters executed" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in pages(book)} == before


def test_links_inside_the_book_lead_somewhere(book):
    broken = []
    for page in pages(book):
        for link in soup_of(page).find_all("a", href=True):
            target, _, anchor = link["href"].partition("#")
            if target.startswith(("http", "data:", "mailto:")):
                continue
            file = (page.parent / target).resolve() if target else page
            wanted = anchor if file.suffix == ".html" else ""
            if not file.is_file() or (wanted and wanted not in ids_of(file)):
                broken.append(f"{page.name} -> {link['href']}")
    assert broken == []


def test_every_image_has_an_alternative_text(book):
    count = 0
    for page in pages(book):
        for image in soup_of(page).select(".bd-article img"):
            count += 1
            assert len(image.get("alt", "")) >= MIN_ALT, (page.name, str(image)[:80])
    assert count


def test_figures_have_number_caption_both_themes_and_data(book):
    page = soup_of(book.html / "notebooks" / "toy.html")
    number = 1 + chapters().index("notebooks/toy")
    figures = page.select("figure")
    source = (book.root / "notebooks" / "toy.py").read_text()
    assert len(figures) == source.count("figures.show(")
    for figure in figures:
        assert re.match(rf"Fig\. {number}\.\d+", figure.select_one(".caption-number").text)
        classes = [set(image["class"]) for image in figure.select("img")]
        assert len(classes) == 2
        assert {"only-light", "dark-light"} <= classes[0]
        assert {"only-dark", "dark-light"} <= classes[1]


def test_page_ends_with_its_provenance_and_its_notebook(book):
    page = soup_of(book.html / "notebooks" / "toy.html")
    box = page.select_one(".provenance")
    text = " ".join(box.text.split())
    assert "Source notebooks/toy.py, executed in the smoke profile on" in text
    assert "Versions: " in text
    assert "python 3." in text
    assert "grid_points" in text
    link = box.select_one("a[download]")
    notebook = (book.html / "notebooks" / link["href"]).resolve()
    assert notebook == (book.html / "_notebooks" / "toy.ipynb").resolve()
    nbformat.validate(json.loads(notebook.read_text()))


def test_no_page_asks_for_anything_from_another_host(book):
    for page in pages(book):
        page_soup = soup_of(page)
        asked = [e["src"] for e in page_soup.select("script[src], img[src], iframe[src]")]
        asked += [e["href"] for e in page_soup.select("link[rel=stylesheet], link[rel=icon]")]
        assert len(asked) > 3
        assert [target for target in asked if target.startswith(("http", "//"))] == []
        assert "unpkg.com" not in page.read_text()
        assert "cdn." not in page.read_text()


def test_formulas_are_formulas(book):
    page = copy.copy(soup_of(book.html / "notebooks" / "toy.html").select_one(".bd-article"))
    for code in page.select("pre"):
        code.decompose()
    assert "$" not in page.text


def own_copy(book, name):
    """Replace a link to a folder of the project by a copy that a test may change."""
    path = book.root / name
    target = path.resolve()
    path.unlink()
    shutil.copytree(target, path)
    return path


@pytest.fixture
def here(tiny_book, monkeypatch, capsys):
    """The book's command in this process, with a stand-in for jupyter-book; gives its status and
    what it said last.
    """
    monkeypatch.setenv("PASSGRAD_ROOT", str(tiny_book.root))
    monkeypatch.setenv("PASSGRAD_PROFILE", "smoke")

    def write_pages(command, cwd):
        assert Path(command[0]).name == "jupyter-book"
        tiny_book.html.mkdir(parents=True, exist_ok=True)
        (tiny_book.html / "index.html").write_text("pages")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("passgrad.cli.notebooks.subprocess", SimpleNamespace(run=write_pages))

    def command():
        with pytest.raises(SystemExit) as end:
            cli.main(["book", "--profile", "smoke"])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err.strip().splitlines()[-1:]

    return command


@pytest.fixture
def outdated():
    """The pages that Sphinx is told to read again; then all are read."""
    extension = runpy.run_path(str(ROOT / "book" / "_ext" / "source_digest.py"))
    env = SimpleNamespace(found_docs={"notebooks/toy", "book/setup"})

    def pages(book):
        suffixes = {"notebooks/toy": ".py", "book/setup": ".md"}
        env.doc2path = lambda name: str(book.root / f"{name}{suffixes[name]}")
        app = SimpleNamespace(env=env)
        found = extension["outdated"](app, env, set(), set(), set())
        for name in env.found_docs:
            env.docname = name
            extension["remember"](app, None)
        return found

    return pages


def test_what_changed_is_executed_and_read_again_and_nothing_else(
    processes, tiny_book, here, outdated, monkeypatch
):
    assert here()[0] == 0
    assert outdated(tiny_book) == ["notebooks/toy"]
    assert outdated(tiny_book) == []

    source = tiny_book.root / "notebooks" / "toy.py"
    source.write_text(source.read_text() + "\n# %% [markdown]\n# A line that was added.\n")
    assert "1 of 1 chapters executed" in here()[1]
    assert outdated(tiny_book) == ["notebooks/toy"]

    # Other packages: the source of the page is the same, what it depends on is not.
    versions = provenance.versions() | {"numpy": "99.0"}
    monkeypatch.setattr(provenance, "versions", lambda: versions)
    assert "1 of 1 chapters executed" in here()[1]
    assert outdated(tiny_book) == ["notebooks/toy"]

    assert "0 of 1 chapters executed" in here()[1]
    assert outdated(tiny_book) == []


def test_a_warning_stops_the_build_also_the_second_time(tiny_book, build_book):
    page = own_copy(tiny_book, "book") / "notation.md"
    page.write_text(page.read_text() + "\n{ref}`nowhere`\n")
    done = build_book(tiny_book)
    assert done.returncode == 1
    assert "undefined label: 'nowhere'" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("passgrad: the pages were not built")
    # Nothing is left of what Sphinx has read, so it reads, and warns, again.
    assert not list((tiny_book.root / "_build").rglob("*.doctree"))


def test_a_chapter_that_fails_stops_the_build(processes, tiny_book, here):
    source = tiny_book.root / "notebooks" / "toy.py"
    source.write_text(source.read_text() + "\n# %%\n1 / 0\n")
    status, _, [last] = here()
    assert status == 1
    assert last.startswith("passgrad: toy.py stopped in cell 2 ('1 / 0'): ZeroDivisionError")
    assert not (tiny_book.html / "index.html").exists()
