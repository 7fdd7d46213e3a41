"""Numbers behind figures, read from the cells that show them."""

import nbformat
import pandas as pd

from passgrad_book.build import figures
from passgrad_book.build.notebooks.tables import figure_tables


def cell(name, table):
    bundle = figures.show(
        lambda ax: figures.curve(ax, [1, 2], [1, 2], of="pass@1", exact=True),
        alt="A line through the points (1, 1) and (2, 2).", data=table,
    )  # fmt: skip
    output = nbformat.v4.new_output("display_data", data=bundle._repr_mimebundle_())
    made = nbformat.v4.new_code_cell(outputs=[output])
    if name:
        made.metadata["mystnb"] = {"figure": {"name": name}}
    return made


def test_each_figure_once_under_its_name():
    table = pd.DataFrame({"k": [1, 2], "name": ["a", "b"]})
    made = nbformat.v4.new_notebook(
        cells=[
            cell("fig-one", table), cell(None, table), cell(None, table[:1]), cell("fig-x", None),
            cell("../up", table),
        ]
    )  # fmt: skip
    found = dict(figure_tables(made))
    assert list(found) == ["fig-one", "figure", "figure-2", "up"]
    pd.testing.assert_frame_equal(found["fig-one"], table)
    assert len(found["figure-2"]) == 1
