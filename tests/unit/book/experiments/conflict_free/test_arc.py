import math

import numpy as np
import pytest

from passgrad.ascent.frontier import frontier
from passgrad.errors import UserError
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments.conflict_free.arc import arc, first_order, gram_of

GRAM = gram_of(2.0, 3.0, -0.5)


def test_the_ends_and_the_top_of_the_arc():
    table = arc(GRAM, points=121)
    first, last = table.iloc[0], table.iloc[-1]
    assert (first["change_1"], first["change_k"]) == pytest.approx((2.0, -1.5))
    assert (last["change_1"], last["change_k"]) == pytest.approx((-1.0, 3.0))
    assert last["angle"] == pytest.approx(2 * math.pi / 3)
    # One rises where the other falls.
    assert table["change_1"].is_monotonic_decreasing
    assert table["change_k"].is_monotonic_increasing


def test_where_methods_stand():
    table = first_order(GRAM, ["pass@1", "nashmtl", "constrained", "pass@k", "upgrad", "pcgrad"])
    table = table.set_index("method")
    angles = {"pass@1": 0, "nashmtl": math.pi / 3, "constrained": math.pi / 2,
              "pass@k": 2 * math.pi / 3}  # fmt: skip
    for name, angle in angles.items():
        assert table["angle"][name] == pytest.approx(angle)
    assert table["change_1"]["constrained"] == pytest.approx(0, abs=1e-12)
    assert table["own_length"]["pcgrad"] == pytest.approx(2 * table["own_length"]["upgrad"])
    assert table["angle"]["pcgrad"] == pytest.approx(table["angle"]["upgrad"])
    # On the arc: the angle gives both changes.
    np.testing.assert_allclose(table["change_1"], 2 * np.cos(table["angle"]), atol=1e-12)
    np.testing.assert_allclose(
        table["change_k"], 3 * np.cos(2 * math.pi / 3 - table["angle"]), atol=1e-12
    )


def test_it_is_the_prediction_of_a_path():
    names = ["pass@1", "pass@k", "pcgrad", "mgda", "cagrad", "mixture 0.3"]
    path = frontier(TwoPointBandit(), (-2.0, -2.0), names, steps=1, length=0.1)["path"]
    path = path.query("step == 0")
    start = path.iloc[0]
    table = first_order(gram_of(start["norm_1"], start["norm_k"], start["cosine"]), names)
    np.testing.assert_allclose(0.1 * table["change_1"], path["predicted_1"], atol=1e-9)
    np.testing.assert_allclose(0.1 * table["change_k"], path["predicted_k"], atol=1e-9)


def test_what_has_no_place_is_named():
    with pytest.raises(UserError, match="schedule"):
        first_order(GRAM, ["annealed"])
    with pytest.raises(UserError, match="vanishes"):
        first_order(gram_of(1.0, 1.0, -1.0), ["mixture 0.5"])
    with pytest.raises(UserError, match="a gradient is zero"):
        arc(gram_of(0.0, 1.0, 0.0))
