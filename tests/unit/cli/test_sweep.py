"""``passgrad sweep``: what it prints, and its exit status."""

import pandas as pd
import pytest

from passgrad import cli
from passgrad_book.build import sweep

FILE = "runs: [{notebook: 01_quick, grid: {a: [1, 2]}}]\n"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["sweep", *map(str, arguments)])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def file(checkout, tmp_path):
    (checkout / "notebooks" / "01_quick.py").write_text(
        '# %% tags=["parameters"]\na: int = 1  # first\n'
    )
    path = tmp_path / "s.yml"
    path.write_text(FILE)
    return path


def outcome(opened, failed):
    table = pd.DataFrame({"run": [run.name for run in opened.runs], "a": [1, 2]})
    return sweep.Outcome(table, opened.folder / "table.parquet", 2 - len(failed), 0, failed)


def test_dry_run_lists(call, file, tmp_path):
    status, out, _ = call(file, "--dry-run", "--out", tmp_path / "o")
    assert status == 0
    assert out.count("01_quick-cpu-") == 2
    assert out.count("to run") == 2
    assert "0 of 2 runs are done." in out
    assert not (tmp_path / "o").exists()


def test_a_sweep_that_went_well(call, file, monkeypatch):
    monkeypatch.setattr(sweep, "run_sweep", lambda opened, bars, html: outcome(opened, {}))
    status, out, _ = call(file, "--jobs", 3)
    assert status == 0
    assert "2 rows; 2 runs executed, 0 done before, 0 failed." in out


def test_failures_are_listed_and_the_last_line_has_a_reason(call, file, monkeypatch):
    monkeypatch.setattr(
        sweep, "run_sweep",
        lambda opened, bars, html: outcome(opened, {opened.runs[1].name: "ValueError: a is 2"}),
    )  # fmt: skip
    status, out, err = call(file)
    assert status == 1
    assert "1 runs executed" in out
    lines = err.strip().splitlines()
    assert lines[0].endswith("failed: ValueError: a is 2")
    assert lines[-1].startswith("passgrad: s.yml: 1 of 2 runs failed, 01_quick-cpu-")
    assert lines[-1].endswith("first: ValueError: a is 2")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (FILE + "speed: 3", (), "passgrad: s.yml: speed: unknown key; known keys here: runs,"),
        ("runs: []", (), "passgrad: s.yml: runs: there is no run; add an entry"),
        (FILE.replace("a:", "b:"), (), "passgrad: s.yml: runs.0: unknown parameter 'b' of 01_qui"),
        (FILE, ("--executor", "pbs"), "passgrad: --executor 'pbs' is unknown; the executors are"),
        (FILE, ("--executor", "slurm"), "passgrad: s.yml: executor.kind: slurm needs sbatch"),
        (FILE, ("--jobs", "0"), "passgrad: Invalid value"),
    ],
)
def test_bad_input_is_one_line(call, file, text, options, message, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    file.write_text(text)
    status, out, err = call(file, *options)
    assert status == (2 if "Invalid" in message else 1)
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
