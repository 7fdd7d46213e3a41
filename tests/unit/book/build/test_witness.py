"""Code of today against the numbers that are stored."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from passgrad.cli import app
from passgrad.errors import UserError
from passgrad.progress import Silent
from passgrad_book.build import paths, witness
from passgrad_book.build.experiment import HOMES, SINGLE


def lines():
    return witness.attestations()


@pytest.fixture
def known(toy):
    """The toy experiment with a witness and one line for its code."""
    witness.write("doubled")
    assert witness.attest("doubled").ran
    assert len(lines()) == 1
    toy.runs = 0
    return toy


def test_known_code_runs_nothing(known):
    found = witness.attest("doubled")
    assert (found.ran, found.failure, known.runs, len(lines())) == (False, None, 0, 1)


def test_other_code_with_the_same_numbers_runs_once_and_adds_a_line(known):
    known.digest = "b" * 64
    found = witness.attest("doubled")
    assert (found.ran, found.failure, known.runs) == (True, None, 1)
    assert [line["digest"] for line in lines()] == ["a" * 64, "b" * 64]
    line = lines()[1]
    assert (line["experiment"], line["version"], line["largest_gap"]) == ("doubled", 1, 0.0)
    assert {"torch", "numpy"} <= line["versions"].keys()
    assert {"cpu_flags", "column", "seconds", "time"} <= line.keys()
    assert not witness.attest("doubled").ran
    known.digest = "a" * 64  # what was seen before stays known
    assert not witness.attest("doubled").ran
    assert known.runs == 1


@pytest.mark.parametrize(
    ("name", "value"), [("version_of", lambda package: "9.9"), ("cpu", lambda: {"flags": ["new"]})]
)
def test_other_packages_and_another_processor_ask_for_the_witness(known, monkeypatch, name, value):
    monkeypatch.setattr(f"passgrad.provenance.{name}", value)
    assert witness.attest("doubled").ran
    assert len(lines()) == 2


def test_it_can_be_asked_for(known):
    assert witness.attest("doubled", again=True).ran
    assert known.runs == 1


def change(toy, edit):
    """The witness gives its tables after ``edit``."""
    frame = pd.DataFrame(
        {"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0], "n": [0, 1, 2], "name": list("abc")}
    )
    toy.tables = edit(frame) or {"curve": frame}
    toy.digest = "b" * 64
    return witness.attest("doubled")


def put(column, *values):
    def edit(frame):
        frame[column] = list(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "column"),
    [
        (put("y", 2.0, 4.0, 6.0001), "curve.y"),
        (put("y", 2.0, 4.0, float("nan")), "curve.y"),
        (put("y", 2.0, 4.0, float("inf")), "curve.y"),
        (put("x", 1.0, 2.0, 5.0), "curve.x"),
        (put("n", 0, 1, 3), "curve.n"),
        (put("name", "a", "b", "x"), "curve.name"),
        (put("more", 1, 2, 3), "curve.more"),
        (lambda frame: {"curve": frame.drop(columns="y")}, "curve.y"),
        (lambda frame: {"curve": frame[:2]}, "curve"),
        (lambda frame: {"curve": frame.iloc[[1, 0, 2]]}, "curve"),
        (lambda frame: {"curve": frame, "more": frame}, "more"),
        (lambda frame: {"other": frame}, "curve"),
    ],
)
def test_other_numbers_fail_and_name_experiment_and_column(known, edit, column):
    found = change(known, edit)
    assert found.failure.startswith("experiment doubled: the code of today gives another ")
    assert found.column.split(".")[0] == column.split(".")[0]
    assert found.column.startswith(column)
    assert found.column in found.failure
    assert len(lines()) == 1
    assert change(known, edit).failure  # and again: it was not noted as known


@pytest.mark.parametrize(
    "edit", [put("y", 2.0, 4.0, 6.0 + 1e-12), put("x", 1.0, 2.0, 3.5), lambda frame: None]
)
def test_gaps_within_the_tolerance_of_the_column_pass(known, edit):
    assert change(known, edit).failure is None
    assert len(lines()) == 2


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("before", "after", "gap"),
    [
        ([1.0, NAN], [1.0, NAN], 0),
        ([1.0, INF, -INF], [1.0, INF, -INF], 0),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, NAN], [NAN, 1.0], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([4.0, NAN], [3.0, NAN], 0.25),
        ([0.0, 0.0], [0.0, 1e-3], 1e-3),
        ([1e-300, 2e-300], [1e-300, 3e-300], 0.5),
        ([2**60, 1], [2**60 + 1, 1], INF),
        ([1, 2], [1, 3], 0.5),
        (["a", "b"], ["a", "b"], 0),
        (["4", "b"], ["4 ", "b"], INF),
        (["4"], [" 4"], INF),
        (["1"], ["1.0"], INF),
        (["nan"], ["NaN"], INF),
        ([True, False], [True, True], 1),
        ([[1, 2], [3]], [[1, 2], [3]], 0),
        ([[1, 2], [3, 4]], [[1, 2], [3, 5]], INF),
        ([1.0], [1.0, 1.0], INF),
        ([], [], 0),
    ],
)
def test_gaps(before, after, gap):
    frames = [pd.DataFrame({"c": pd.Series(values)}) for values in (before, after)]
    stored = json.dumps(witness.values_of(frames[0]["c"]), allow_nan=False)
    expected = {"t": {"c": {"values": json.loads(stored), "tolerance": 0.0}}}
    ((column, found, _),) = witness.compare(expected, {"t": frames[1]})
    assert column == "t.c"
    assert found == pytest.approx(gap)


def test_numbers_are_stored_to_the_last_digit():
    values = np.array([0.1 + 0.2, 1 / 3, 1e-320, -0.0])
    assert json.loads(json.dumps(witness.values_of(pd.Series(values)))) == values.tolist()


def test_an_error_of_the_code_is_named(known, monkeypatch):
    def fail(**parameters):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(known.doubled, "function", fail)
    monkeypatch.setattr(known.doubled, "bind", dict)
    known.digest = "b" * 64
    found = witness.attest("doubled")
    assert found.failure == (
        "experiment doubled: its witness stopped with ZeroDivisionError: a bug"
    )
    assert len(lines()) == 1


def test_what_does_not_belong_together_is_named(known):
    known.doubled.version = 2
    assert witness.attest("doubled").failure == (
        "the witness of doubled is of version 1, the experiment of 2: "
        "passgrad witness doubled --write"
    )
    known.doubled.version, known.digest = 1, "b" * 64
    known.doubled.witnessed(size=2, tolerance=SINGLE)
    assert "has other parameters now: passgrad witness doubled --write" in (
        witness.attest("doubled").failure
    )
    witness.witness_path("doubled").unlink()
    assert "doubled.json cannot be read" in witness.attest("doubled").failure
    known.doubled.witness = None
    assert witness.attest("doubled").failure == "experiment doubled has no witness"
    known.doubled.timing = True
    assert witness.attest("doubled").failure is None
    assert known.runs == 0
    with pytest.raises(UserError, match="has no witness: its tables are times"):
        witness.write("doubled")


def test_a_damaged_line_of_the_log_is_named(known):
    with paths.attestations().open("a") as stream:
        stream.write("{\n")
    with pytest.raises(UserError, match=r"data/attestations.jsonl, line 2: .* restore it with git"):
        witness.attest("doubled")


def test_writing_again_keeps_what_was_kept_and_the_coverage_of_the_version(toy):
    calls = []

    def keep():
        calls.append(1)
        return {
            "drawn": pd.DataFrame({"x": [float(len(calls)), float("nan")], "ids": [[1], [2, 3]]})
        }

    def run(kept):
        return {"sums": pd.DataFrame({"sum": [len(ids) for ids in kept["drawn"]["ids"]]})}

    toy.doubled.replayed(run, keep, tolerance=SINGLE)
    first = witness.write("doubled")
    assert first["kept"]["drawn"] == {"x": [1.0, "nan"], "ids": [[1], [2, 3]]}
    witness.store("doubled", first | {"coverage": {"share": 0.95}})
    again = witness.write("doubled")
    assert (again["kept"], again["coverage"]) == (first["kept"], {"share": 0.95})
    toy.doubled.version = 2
    other = witness.write("doubled")
    assert other["kept"]["drawn"]["x"] == [2.0, "nan"]
    assert "coverage" not in other
    assert witness.read("doubled") == other


def test_nothing_is_written_from_code_that_is_not_committed(known, monkeypatch):
    before = witness.witness_path("doubled").read_bytes()
    monkeypatch.setattr("passgrad.provenance.git_commit", lambda: "0" * 40 + "-dirty")
    known.factor = 3.0
    for write in (lambda: witness.write("doubled"), lambda: witness.store("doubled", {})):
        with pytest.raises(UserError, match="a witness is stored from a commit alone"):
            write()
    assert known.runs == 0
    assert witness.witness_path("doubled").read_bytes() == before


PROCESS = """
import sys, time, types
import pandas as pd
from passgrad_book.build import sources, witness
from passgrad_book.build.experiment import DOUBLE, HOMES, experiment

def slow(*, n):
    open(sys.argv[1], "a").write("run\\n")
    time.sleep(1)
    return {"t": pd.DataFrame({"n": [n]})}

slow.__module__ = "passgrad.metrics"
toy = experiment(version=1, label="toy")(slow)
toy.witnessed(n=1, tolerance=DOUBLE)
HOMES["slow"] = "experiments.slow"
sys.modules["passgrad_book.experiments.slow"] = types.SimpleNamespace(slow=toy)
sources.digest = lambda modules: "c" * 64
print("ready", flush=True)
sys.stdin.readline()
assert witness.attest("slow").failure is None
"""


def test_two_processes_that_meet_new_code_run_its_witness_once(processes, toy, tmp_path):
    column = {"values": [1], "tolerance": 0.0, "reason": "a count"}
    content = {"version": 1, "parameters": {"n": 1}, "kept": {}, "tables": {"t": {"n": column}}}
    witness.store("slow", content)
    counted = tmp_path / "runs"
    command = [sys.executable, "-c", PROCESS, str(counted)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=os.environ, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) and process.returncode for process in both] == [0, 0]
    assert counted.read_text() == "run\n"
    assert len(lines()) == 1


def test_all_experiments_are_attested_and_what_runs_is_said(known):
    said = []

    class Progress(Silent):
        def note(self, text):
            said.append(text)

    (found,) = witness.attest_all(Progress())
    assert (found.experiment, found.ran, said) == ("doubled", False, ["witness of doubled"])


def test_the_command(known):
    def call(*words):
        done = CliRunner().invoke(app, ["witness", *words])
        return done.exit_code, done.output

    assert call()[0] == 0
    assert call("doubled")[1] == "doubled: known\nEverything is as expected.\n"
    assert "doubled: the same numbers, in 0 s; largest gap 0 of" in call("--again")[1]
    known.factor, known.digest = 3.0, "b" * 64
    status, text = call()
    assert status == 1
    assert "[fail] experiment doubled: the code of today gives another curve.y" in text
    known.doubled.version = 2
    status, text = call("--write")
    assert (status, "doubled: the same numbers" in text) == (0, True)
    known.doubled.timing = True
    assert "doubled: times, no witness" in call()[1]


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_code_gives_the_stored_numbers_of_every_experiment(smollm2):
    outcomes = witness.attest_all()
    assert [one.failure for one in outcomes if one.failure] == []
    assert {one.experiment for one in outcomes} == set(HOMES)


def test_all_witnesses_together_take_three_minutes():
    """As the log has it: the fastest run of each experiment, on two cores."""
    seconds = {}
    for line in lines():
        name = line["experiment"]
        seconds[name] = min(line["seconds"], seconds.get(name, INF))
    assert sum(seconds.values()) < 180
