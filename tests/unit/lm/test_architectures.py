"""Every causal family of transformers, tiny and random, against plain passes: the matrix that the
book shows.
"""

import math

import pytest

from passgrad_book.architectures.experts import measure_routing
from passgrad_book.architectures.families import FAMILIES
from passgrad_book.architectures.table import agreement, cells, stated

#: relative, in float32
CLOSE = 1e-5
#: differences are within so many times of what they say
WITHIN = 4


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("kind", FAMILIES)
def test_passes_are_those_of_plain_passes(kind):
    found = agreement(kind)
    assert found.logprob < CLOSE, found.packing
    assert found.gradient < CLOSE
    assert math.isnan(found.forward) or found.forward < CLOSE
    # Differences say how good they are, from some of the sequences.
    assert found.said < 2e-2
    assert found.differences < WITHIN * found.said
    assert found.chosen < (WITHIN * found.said if math.isnan(found.forward) else CLOSE)
    row, ours = rows()[kind], cells(kind)
    assert row[:4] == ours[:4], "python -m passgrad_book.architectures writes the table anew"
    for here, there in zip(ours[4:], row[4:], strict=True):
        assert bool(here) == bool(there)
        # Another processor sums in another order.
        assert not here or float(here) <= 10 * float(there)


def test_the_table_has_these_families():
    assert list(rows()) == list(FAMILIES)


def rows():
    """Those of the book, by type."""
    return {row[1].strip("`"): row for row in stated()}


@pytest.mark.usefixtures("tiny_model")
def test_the_jumps_of_experts_are_those_of_the_book():
    found = measure_routing()
    there = stated("experts")
    assert [float(row[0]) for row in there] == [one.step for one in found]
    for one, row in zip(found, there, strict=True):
        assert [one.choices, one.completions] == pytest.approx(
            [float(row[1]), float(row[2])], rel=0.3, abs=2e-3
        )
    # Where no choice changes, differences are the derivative; where one does, they are not.
    assert min(one.smooth for one in found) < 1e-3
    assert all(one.jumped > 10 * one.smooth for one in found if one.choices)
    assert found[-1].choices > 0.01
