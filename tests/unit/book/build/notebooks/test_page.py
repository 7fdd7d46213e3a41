"""The page of a notebook: the book's syntax without the book."""

import nbformat
import pytest

from passgrad_book.build.notebooks.page import html_of
from passgrad_book.build.notebooks.source import sources, split


def page(*cells):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(one) for one in cells])
    return html_of(made, "name")


def test_statements_and_references_are_readable():
    made = page(
        "# Title\n\n```{prf:theorem} Conflict\n:label: thm-conflict\n\nIf $k > 1$, then.\n```\n\n"
        "See {prf:ref}`thm-conflict`, {ref}`the toy <sec-toy>` and {cite:t}`author2026`."
    )
    assert "Theorem (Conflict)" in made
    assert "the toy" in made
    assert "sec-toy" not in made
    assert "author2026" in made
    assert "{prf" not in made
    assert "<title>name</title>" in made


@pytest.mark.parametrize("tag", ["<script>x</script>", "<img src=x onerror=y>", "<!-- c -->"])
def test_html_in_text_is_text(tag):
    made = page(f"Before {tag} after, `{tag}` and\n\n{tag}\n")
    assert tag not in made
    assert made.count(tag[:4].replace("<", "&lt;")) >= 3


def test_what_cannot_become_mathml_stands_as_its_source():
    assert r"\thisisnotlatex" in page(r"A formula $\thisisnotlatex{x}$ and $_x^$ too.")


def test_nothing_is_fetched(root):
    """Every chapter becomes a page that asks nothing of any host."""
    source = sources()[0]
    made = html_of(split(source.read_text()), source.stem)
    for attribute in ('src="http', 'href="http://', "url(", "<link", "<script"):
        assert attribute not in made
