"""A witness runs nearly every line that the full run takes."""

import pytest

from passgrad_book.build import witness
from passgrad_book.build.experiment import HOMES, find


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", HOMES)
def test_nine_lines_of_ten_of_a_full_run_are_witnessed(name):
    experiment = find(name)
    if experiment.timing:
        assert experiment.witness is None
        return
    coverage = witness.read(name)["coverage"]
    assert coverage["version"] == experiment.version
    assert coverage["lines"] > 100
    assert coverage["share"] >= 0.90
