"""A witness runs nearly every line that the full run takes."""

import pytest

from passgrad_book.build import witness
from passgrad_book.build.experiment import HOMES, find


@pytest.fixture(scope="module")
def experiments():
    """All of them, imported: TRL alone takes seconds."""
    return {name: find(name) for name in HOMES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", HOMES)
def test_nine_lines_of_ten_of_a_full_run_are_witnessed(experiments, name):
    experiment = experiments[name]
    if experiment.timing:
        assert experiment.witness is None
        return
    coverage = witness.read(name)["coverage"]
    assert coverage["version"] == experiment.version
    # The shortest of them reads a table of published numbers.
    assert coverage["lines"] >= 20
    assert coverage["share"] >= 0.90
