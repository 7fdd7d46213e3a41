import pytest

from passgrad.errors import UserError
from passgrad_book.build.claims import load
from passgrad_book.build.claims.outcome import measure, number
from passgrad_book.experiments import checks


@pytest.fixture
def claim(entry, write):
    def make(**changes):
        return load(write(entry | changes)).claims[0]

    return make


def test_a_claim_that_holds_keeps_its_verdict(claim):
    found = measure(claim())
    assert found.failures == ()
    assert found.verdict == "reproduced"
    assert found.measured["cosine"] == pytest.approx(-0.774558, abs=1e-6)
    assert found.shown == ("cosine", "-0.77 ± 0.005", "-0.7746")


def test_a_wrong_expectation_flips_the_verdict(claim):
    wrong = {"quantity": "cosine", "value": -0.5, "tolerance": 0.005, "why": "printed"}
    found = measure(claim(expected=[wrong]))
    assert found.verdict == "not reproduced"
    assert found.failures == ("C1: cosine is -0.7746, expected -0.5 ± 0.005 (printed)",)


def test_the_table_shows_the_quantity_that_failed(claim):
    good = {"quantity": "cosine", "value": -0.77, "tolerance": 0.005, "why": "printed"}
    bad = {"quantity": "degrees", "at_most": 90, "why": "an acute angle"}
    assert measure(claim(expected=[good, bad])).shown == ("degrees", "≤ 90", "140.8")


def test_a_quantity_that_the_check_does_not_give(claim):
    wrong = {"quantity": "sine", "at_least": 0, "why": "none"}
    (line,) = measure(claim(expected=[wrong])).failures
    assert line.startswith("C1: sine is not measured by toy.gradients, which gives cosine")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no stored result x/y"), "C1: no stored result x/y"),
        (ZeroDivisionError("a\nb"), "C1: the check toy.gradients stopped: ZeroDivisionError: a b"),
    ],
)
def test_a_check_that_stops_is_one_line(claim, monkeypatch, error, line):
    def stop():
        raise error

    monkeypatch.setattr(checks, "find", lambda name: stop)
    found = measure(claim())
    assert found.failures == (line,)
    assert found.verdict == "not reproduced"


def test_a_rerun_has_its_own_bounds(claim):
    wide = {"at_least": -1, "at_most": 1, "why": "few samples"}
    tight = {"quantity": "cosine", "value": 0.0, "tolerance": 0.1, "why": "many", "rerun": wide}
    assert measure(claim(expected=[tight])).failures
    assert measure(claim(expected=[tight]), rerun=True).failures == ()


def test_a_quoted_claim_is_not_measured(claim):
    quoted = [{"quantity": "x", "value": 1.0, "source": "Figure 6"}]
    gpu = {"check": None, "expected": [], "quoted": quoted, "verdict": "needs a GPU"}
    found = measure(claim(**gpu))
    assert (found.measured, found.failures, found.verdict) == ({}, (), "needs a GPU")


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.0, "5"), (-0.774558, "-0.7746"), (12263.02, "12263"), (3.7e27, "3.7e+27"), (0.0, "0")],
)
def test_four_digits(value, text):
    assert number(value) == text
