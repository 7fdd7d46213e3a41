"""pass@1 <= pass@k <= f_k(pass@1), and when the two sides are equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passgrad.objectives import PassAtK

pytestmark = pytest.mark.statement("prop-pass-at-k-bounds")


@st.composite
def laws(draw):
    size = draw(st.integers(1, 6))
    rates = draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    masses = draw(st.lists(st.floats(0.01, 1), min_size=size, max_size=size))
    return np.array(rates), np.array(masses) / sum(masses)


def pass_at(k, rates, masses):
    return float(masses @ (1 - (1 - rates) ** k))


@given(laws(), st.integers(1, 64))
def test_pass_at_k_lies_between(law, k):
    first, value = pass_at(1, *law), pass_at(k, *law)
    assert first - 1e-14 <= value <= 1 - (1 - first) ** k + 1e-14
    assert value <= pass_at(k + 1, *law) + 1e-14


@given(laws())
def test_the_sides_are_those_of_the_objective_of_the_package(law):
    import torch

    rates, masses = (torch.tensor(x) for x in law)
    for k in (1, 3, 10):
        mean = float(masses @ PassAtK(k).value(rates))
        assert mean == pytest.approx(pass_at(k, *law), abs=1e-14)


@pytest.mark.parametrize("k", [2, 7])
def test_the_ends_are_reached_and_only_there(k):
    masses = np.array([0.3, 0.7])
    settled, alike, mixed = np.array([0.0, 1]), np.array([0.4, 0.4]), np.array([0.2, 0.9])
    assert pass_at(k, settled, masses) == pytest.approx(pass_at(1, settled, masses))
    upper = [1 - (1 - pass_at(1, rates, masses)) ** k for rates in (alike, mixed, settled)]
    assert pass_at(k, alike, masses) == pytest.approx(upper[0])
    assert pass_at(1, mixed, masses) + 1e-3 < pass_at(k, mixed, masses) < upper[1] - 1e-3
    assert pass_at(k, settled, masses) < upper[2] - 1e-3
    assert pass_at(k, alike, masses) > pass_at(1, alike, masses) + 1e-3
