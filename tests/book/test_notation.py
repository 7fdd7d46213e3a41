"""The tables of symbols: none has a symbol twice, and the pages agree with the page of notation."""

import re

import pytest

from passgrad_book.build import notebooks, paths

# Two meanings, both as in the paper: the page of notation names these three.
SEVERAL = {r"\delta", "q", r"\eta"}
ROW = re.compile(r"^\| (?P<symbols>\$.*?\$(?:, \$.*?\$)*) \|", re.MULTILINE)


def symbols(text):
    """The symbols of the rows of a table, without arguments, definitions and their subscripts'."""
    listed = []
    for row in ROW.finditer(text):
        for symbol in re.findall(r"\$([^$]+)\$", row["symbols"]):
            listed.append(re.split(r" ?= | ?\\sim ", symbol)[0].strip())
    return listed


def notation_page():
    return (paths.root() / "book" / "notation.md").read_text("utf-8")


def notation_table(source):
    text = "\n".join(
        cell.source
        for cell in notebooks.split(source.read_text("utf-8")).cells[:2]
        if cell.cell_type == "markdown"
    )
    return text


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_no_page_lists_a_symbol_twice(source):
    listed = symbols(notation_table(source))
    assert not {s for s in listed if listed.count(s) > 1} - SEVERAL


def test_the_page_of_notation_lists_no_symbol_twice():
    listed = symbols(notation_page())
    assert listed
    assert not {s for s in listed if listed.count(s) > 1} - SEVERAL


def test_a_clash_is_seen():
    table = "| $h$ | share of hard prompts |\n| $h$, $x$ | the hard prompt |\n"
    assert symbols(table) == ["h", "h", "x"]
