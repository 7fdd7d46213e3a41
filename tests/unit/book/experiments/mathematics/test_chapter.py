"""What the chapter on mathematics does with a data set that is not there."""

from types import SimpleNamespace

import pytest

from passgrad.errors import UserError
from passgrad_book.build import notebooks
from passgrad_book.build.results import DamagedResult


@pytest.fixture
def asks():
    """Runs the cell that asks for the results; every one of them is answered by an error."""
    path = notebooks.find("math_conflict")
    values = {name: one.default for name, one in notebooks.parameters_of(path).items()}
    (cell,) = [
        cell.source
        for cell in notebooks.split(path.read_text()).cells
        if cell.cell_type == "code" and "math_conflict.result(" in cell.source
    ]

    def run(error):
        def result(**parameters):
            raise error

        names = {"math_conflict": SimpleNamespace(result=result), "Markdown": str, "task_sizes": {}}
        errors = {"UserError": UserError, "DamagedResult": DamagedResult}
        scope = values | names | errors
        exec(cell, scope)
        return scope["missing"]

    return run


def test_a_data_set_that_cannot_be_had_is_left_out(asks):
    missing = asks(UserError("no network"))
    assert len(missing) > 1
    assert set(missing.values()) == {"no network"}


def test_a_file_that_was_edited_stops_the_page(asks):
    with pytest.raises(DamagedResult, match="was changed by hand"):
        asks(DamagedResult("data/results/x.parquet was changed by hand"))
