"""Stored results computed again in full."""

import datetime

import pytest
from typer.testing import CliRunner

from passgrad.cli import app
from passgrad.errors import UserError
from passgrad_book.build import audit, results, witness
from passgrad_book.build.experiment import DOUBLE, EXACT, Tolerance

NAME = "doubled/cpu/size-4-seed-0"


@pytest.fixture
def stored(toy, problems):
    """Three results, one of them of a file."""
    toy.doubled.result(size=4, recompute=True)
    toy.doubled.result(size=2, recompute=True)
    toy.doubled.result(size=3, path=str(problems), recompute=True)
    return toy


def test_candidates_leave_out_times_and_files_that_are_not_there(stored, problems, tmp_path):
    plain = ["doubled/cpu/size-2-seed-0", "doubled/cpu/size-4-seed-0"]
    assert audit.candidates() == plain
    every = sorted([*plain, "doubled/cpu/size-3-seed-0"])
    assert audit.candidates({"path": str(problems)}) == every
    assert audit.candidates({"doubled/cpu/size-3-seed-0.path": str(problems)}) == every
    other = tmp_path / "other.jsonl"
    assert audit.candidates({"path": str(other)}) == plain
    other.write_text("other problems\n")
    assert audit.candidates({"path": str(other)}) == plain
    stored.doubled.timing = True
    assert audit.candidates({"path": str(problems)}) == []


def test_all_of_them_come_round():
    names = [f"a/cpu/{number}" for number in range(5)]
    first = datetime.date(2026, 12, 30)
    days = [first + datetime.timedelta(days=number) for number in range(5)]
    assert {audit.of_the_day(names, day) for day in days} == set(names)
    assert audit.of_the_day(names, first) == audit.of_the_day(names, days[0])
    with pytest.raises(UserError, match="no stored result can be computed again here"):
        audit.of_the_day([], first)


def test_the_same_numbers_pass_and_change_nothing(stored, checkout):
    before = {p: p.read_bytes() for p in (checkout / "data").rglob("*") if p.is_file()}
    found = audit.audit(NAME)
    assert found.failures == []
    assert found.gaps.keys() == {"curve.x", "curve.y", "curve.n", "curve.name"}
    assert stored.runs == 4
    assert {p: p.read_bytes() for p in (checkout / "data").rglob("*") if p.is_file()} == before


def test_other_numbers_name_the_column(stored):
    stored.factor = 2.001
    assert audit.audit(NAME).failures == [
        f"data/results/{NAME}: curve.y computed again differs by 0.0005 of its size, where 0.0002 "
        "is allowed"
    ]
    stored.doubled.full = {"*": DOUBLE, "curve.y": Tolerance(0.01, "a test")}
    assert audit.audit(NAME).failures == []
    stored.doubled.full = {"*": DOUBLE, "curve": Tolerance(0.01, "a test")}
    assert audit.audit(NAME).failures == []
    stored.doubled.full = {"*": Tolerance(0.01, "a test"), "curve.y": EXACT}
    assert len(audit.audit(NAME).failures) == 1


def test_counts_are_exact_however_loose_the_rest_is(stored):
    stored.doubled.full = {"*": Tolerance(1.0, "a test")}
    frame = results.load("doubled", "size-4-seed-0")["curve"]
    stored.tables = {"curve": frame.assign(n=[0, 1, 2, 4])}
    (line,) = audit.audit(NAME).failures
    assert ": curve.n computed again" in line


def test_the_file_of_a_result_is_asked_for_and_compared(stored, problems, tmp_path):
    name = "doubled/cpu/size-3-seed-0"
    with pytest.raises(UserError, match=f"{name} was made from a file of problems: .* path=FILE"):
        audit.audit(name)
    assert audit.audit(name, {"path": str(problems)}).failures == []
    # A file that a result did not read does not enter.
    assert audit.audit(NAME, {"path": str(problems)}).failures == []
    other = tmp_path / "other.jsonl"
    other.write_text("other problems\n")
    with pytest.raises(UserError, match=f"{name} was made from other inputs"):
        audit.audit(name, {"path": str(other)})


def test_what_cannot_be_audited_is_named(stored):
    with pytest.raises(UserError, match="there is no stored result 'doubled/cpu/none'"):
        audit.audit("doubled/cpu/none")
    stored.doubled.version = 2
    with pytest.raises(UserError, match="made from other inputs"):
        audit.audit(NAME)
    stored.doubled.timing = True
    with pytest.raises(UserError, match="holds times"):
        audit.audit(NAME)


def test_the_share_of_the_lines_that_the_witness_runs_is_stored(stored, monkeypatch):
    pytest.importorskip("coverage")
    from passgrad.metrics import pass_at_k
    from passgrad.stats.binomial import success_interval

    plain = stored.doubled.function

    def more(*, size, seed=0, path=""):
        pass_at_k(4, 2, 2)
        if size > 3:  # what the witness does not see
            success_interval([1], [size])
        return plain(size=size, seed=seed)

    more.__module__ = "passgrad.metrics"
    monkeypatch.setattr(stored.doubled, "function", more)
    witness.write("doubled")
    assert audit.audit(NAME, note=True).failures == []
    noted = witness.read("doubled")["coverage"]
    assert (noted["version"], noted["result"]) == (1, NAME)
    missed = sum(noted["missed"].values())
    names = {name.rpartition("/")[2] for name in noted["missed"]}
    assert "binomial.py" in names
    assert "metrics.py" not in names
    assert noted["share"] == pytest.approx(1 - missed / noted["lines"], abs=1e-4)
    assert 0 < noted["share"] < 1


def test_a_note_is_refused_before_hours_of_work(stored, monkeypatch):
    monkeypatch.setattr("passgrad.provenance.git_commit", lambda: "0" * 40 + "-dirty")
    runs = stored.runs
    with pytest.raises(UserError, match="a witness is stored from a commit alone"):
        audit.audit(NAME, note=True)
    assert stored.runs == runs


def test_the_command(stored, problems):
    done = CliRunner().invoke(app, ["audit", "--file", f"path={problems}"])
    assert done.exit_code == 0, done.output
    assert "largest gap 0, where" in done.output
    stored.factor = 2.5
    done = CliRunner().invoke(app, ["audit", NAME])
    assert done.exit_code == 1
    assert f"[fail] data/results/{NAME}: curve.y computed again differs by 0.25" in done.output


def test_lines_are_noted_through_the_small_model_of_experiments_that_take_one(stored):
    runs = stored.runs
    with pytest.raises(UserError, match=f"{NAME} takes no model: audit it with --note"):
        audit.note_lines(NAME)
    assert stored.runs == runs


@pytest.mark.parametrize("text", ["oops", "=problems.jsonl", "path="])
def test_a_file_without_its_parameter_is_one_line(text):
    done = CliRunner().invoke(app, ["audit", NAME, "--file", text])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"--file {text}: give a parameter and its file")
