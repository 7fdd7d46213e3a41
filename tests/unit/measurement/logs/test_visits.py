"""Visits and their windows."""

from itertools import pairwise

import numpy as np
import pytest

from passgrad.errors import UserError
from passgrad.measurement.logs.visits import Visits, Window


def test_counts_of_a_window() -> None:
    visits = Visits.of(["a", "b", "a", "a"], [0, 0, 1, 5], [4, 8, 4, 2], [1, 0, 3, 2])
    n, c = visits.counts(Window(0, 1))
    assert visits.prompt_ids == ["a", "b"]
    assert (n.tolist(), c.tolist()) == ([8, 8], [4, 0])


def test_windows_hold_about_equally_many_answers() -> None:
    visits = Visits.of(np.zeros(10), np.arange(10), [1] * 5 + [9] * 5, 0)
    assert visits.split(2) == [Window(0, 6), Window(7, 9)]


@pytest.mark.parametrize("number", [2, 3, 6])
def test_every_window_has_a_step(number: int) -> None:
    visits = Visits.of(np.zeros(6), [0, 10, 20, 30, 40, 50], [1, 1, 1, 1, 1, 1000], 0)
    windows = visits.split(number)
    assert len(windows) == number
    assert windows[0].first == 0
    assert windows[-1].last == 50
    assert all(a.last < b.first for a, b in pairwise(windows))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_too_many_windows(number: int) -> None:
    with pytest.raises(UserError, match=f"{number} windows of a log with 2 steps"):
        Visits.of([0, 0], [0, 1], 4, 1).split(number)


@pytest.mark.parametrize(("n", "c"), [(0, 0), (4, 5), (4, -1)])
def test_counts_that_are_none(n: int, c: int) -> None:
    with pytest.raises(UserError, match=rf"visit 1: {c} right answers of {n}"):
        Visits.of([0, 1], [0, 0], [4, n], [1, c])


@pytest.mark.parametrize("text", ["", "3", "a:b", "-1:2", "1:2:3"])
def test_no_window(text: str) -> None:
    with pytest.raises(UserError, match="is not a window of steps such as 0:11"):
        Window.parse(text)


def test_a_window_as_text() -> None:
    assert Window.parse(" 0:11") == Window(0, 11)
    assert str(Window(3, 3)) == "step 3"
    with pytest.raises(UserError, match="the window 4:2 ends before it begins"):
        Window.parse("4:2")
