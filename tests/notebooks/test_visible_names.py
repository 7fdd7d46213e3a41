"""A reader of the visible code of a chapter meets no name that only a folded cell defines."""

import ast
import builtins

import nbformat
import pytest

from passgrad_book.build import notebooks

CHAPTERS = (
    "pass_at_k", "estimators", "reweighting", "toy", "conflict", "dynamics", "language_exact",
    "language_sampled",
)  # fmt: skip
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


def bound_and_read(source):
    """The names that a cell binds anywhere, and those that it reads."""
    bound, read = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(ctx=ast.Load()):
                read.add(node.id)
            case ast.Name():
                bound.add(node.id)
            case ast.FunctionDef() | ast.ClassDef():
                bound.add(node.name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.arg():
                bound.add(node.arg)
            case ast.alias():
                bound.add((node.asname or node.name).split(".")[0])
    return bound, read


def names_from_folded_cells(cells):
    """The names that a visible cell reads and that no visible cell up to it binds."""
    known, missing = set(dir(builtins)), {}
    for place, cell in enumerate(cells):
        if cell.cell_type != "code" or FOLDED & set(cell.metadata.get("tags", [])):
            continue
        bound, read = bound_and_read(cell.source)
        known |= bound
        if read - known:
            missing[place] = sorted(read - known)
    return missing


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_visible_cell_reads_a_name_that_only_folded_cells_define(chapter):
    (source,) = (path for path in notebooks.sources() if path.stem == chapter)
    assert names_from_folded_cells(notebooks.split(source.read_text("utf-8")).cells) == {}


def test_such_a_name_is_seen():
    new = nbformat.v4.new_code_cell
    folded = new("world = 1", metadata={"tags": ["hide-input"]})
    assert names_from_folded_cells([folded, new("print(world)")]) == {1: ["world"]}
    assert names_from_folded_cells([new("world = 1"), folded, new("print(world)")]) == {}
