import json
import re
import shutil

import nbformat
import pytest
from bs4 import BeautifulSoup

from passgrad_book.build.figures import MIN_ALT

from .conftest import chapters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def pages(book):
    found = [*book.html.glob("book/*.html"), *book.html.glob("notebooks/*.html")]
    assert found
    return found


def soup_of(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


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


def test_a_second_build_executes_nothing_and_writes_nothing(book):
    before = {p: p.stat().st_mtime_ns for p in pages(book)}
    again = book.build()
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
            if not file.is_file() or (wanted and not soup_of(file).find(id=wanted)):
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
    page = soup_of(book.html / "notebooks" / "toy.html").select_one(".bd-article")
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


def test_what_changed_is_executed_and_read_again_and_nothing_else(tiny):
    lock = own_copy(tiny, "requirements") / "lock.txt"
    source = tiny.root / "notebooks" / "toy.py"
    assert tiny.build().returncode == 0

    source.write_text(source.read_text() + "\n# %% [markdown]\n# A line that was added.\n")
    done = tiny.build()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 of 1 chapters executed" in done.stdout
    assert "A line that was added." in (tiny.html / "notebooks" / "toy.html").read_text()

    # Another lock file: the source of the page is the same, what it depends on is not.
    lock.write_text(lock.read_text() + "# more\n")
    done = tiny.build()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 of 1 chapters executed" in done.stdout
    assert re.search(r"reading sources\.\.\. .*notebooks/toy", done.stdout)
    assert not re.search(r"reading sources\.\.\. .*book/setup", done.stdout)

    done = tiny.build()
    assert "0 of 1 chapters executed" in done.stdout
    assert not re.search(r"reading sources\.\.\. .*%", done.stdout)


def test_a_warning_stops_the_build_also_the_second_time(tiny):
    page = own_copy(tiny, "book") / "notation.md"
    page.write_text(page.read_text() + "\n{ref}`nowhere`\n")
    for _ in range(2):
        done = tiny.build()
        assert done.returncode == 1
        assert "undefined label: 'nowhere'" in done.stdout
        last = done.stdout.strip().splitlines()[-1]
        assert last.startswith("passgrad: the pages were not built")


def test_a_chapter_that_fails_stops_the_build(tiny):
    source = tiny.root / "notebooks" / "toy.py"
    source.write_text(source.read_text() + "\n# %%\n1 / 0\n")
    done = tiny.build()
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("passgrad: toy.py stopped in cell 2 ('1 / 0'): ZeroDivisionError")
    assert not (tiny.html / "index.html").exists()
