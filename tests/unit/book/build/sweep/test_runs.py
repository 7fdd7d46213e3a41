"""The runs that a file names."""

import json

import pytest

from passgrad.errors import UserError
from passgrad_book.build.sweep import open_sweep
from passgrad_book.build.sweep.file import read
from passgrad_book.build.sweep.runs import runs_of


def runs(path):
    return runs_of(read(path), path.name)


def test_grid_times_list_times_profiles(sweep_file):
    made = runs(
        sweep_file(
            "runs:\n"
            "  - notebook: 01_quick\n"
            "    profile: [cpu, smoke]\n"
            "    parameters: {mode: well}\n"
            "    grid: {a: [1, 2]}\n"
            "    list: [{b: 1}, {b: 2, marks: x}]\n"
        )
    )
    assert len(made) == 8
    assert len({run.name for run in made}) == 8
    assert {run.profile for run in made} == {"cpu", "smoke"}
    assert made[0].given == {"mode": "well", "b": 1.0, "a": 1}
    assert isinstance(made[0].given["b"], float)
    assert made[2].given == {"mode": "well", "b": 2.0, "marks": "x", "a": 1}
    assert all(run.notebook == "01_quick.py" for run in made)


def test_one_run_without_grid_and_list(sweep_file):
    [run] = runs(sweep_file("runs: [{notebook: 01_quick}]"))
    assert run.given == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("notebook: 77", "runs.0: no notebook '77'; known notebooks: notebooks/01_quick.py"),
        ("notebook: '77'", "runs.0: no notebook '77'; known notebooks: notebooks/01_quick.py"),
        ("notebook: 01_quick, profile: huge", "runs.0: no profile 'huge'; known profiles: cpu"),
        (
            "notebook: 01_quick, grid: {c: [1]}",
            "runs.0: unknown parameter 'c' of 01_quick.py; known parameters: a, b",
        ),
        ("notebook: 01_quick, grid: {a: [x]}", "runs.0: the parameter a is int"),
        ("notebook: 01_quick, grid: {a: []}", "runs.0.grid.a: no values, so there is no run"),
        ("notebook: 01_quick, list: []", "runs.0.list: it is empty, so there is no run"),
        ("notebook: []", "runs.0.notebook: there is none, so there is no run"),
        (
            "notebook: 01_quick, grid: {a: [3, 3]}",
            "runs.0: the run 01_quick, cpu, a=3 is there",
        ),
        (
            "notebook: 01_quick, grid: {a: [3]}, list: [{a: 2}]",
            "runs.0: a is in grid and in list; keep it in one of them",
        ),
    ],
)
def test_what_is_wrong_names_file_and_key(sweep_file, entry, message):
    if "notebook: 77" in entry:
        entry = entry.replace("77", "'77'")
    with pytest.raises(UserError) as caught:
        runs(sweep_file(f"runs: [{{{entry}}}]"))
    assert str(caught.value).startswith(f"sweep_test.yml: {message}")
    assert "\n" not in str(caught.value)


def test_slurm_where_there_is_none(sweep_file, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = sweep_file("runs: [{notebook: 01_quick}]\nexecutor: {kind: slurm}")
    with pytest.raises(UserError, match="sweep_test.yml: executor.kind: slurm needs sbatch"):
        open_sweep(path)
    assert open_sweep(path, executor="local").executor.kind == "local"


def test_done_is_done_with_this_code_and_these_values(sweep_file, quick, tmp_path):
    path = sweep_file("runs: [{notebook: 01_quick}]")
    sweep = open_sweep(path, out=tmp_path / "out")
    [run] = sweep.runs
    assert not sweep.is_done(run)
    folder = sweep.folder_of(run)
    folder.mkdir(parents=True)
    for entry, done in (
        ({"exit": 0, "digest": run.digest}, True),
        ({"exit": 1, "digest": run.digest}, False),
        ({"exit": 0, "digest": "other"}, False),
    ):
        (folder / "01_quick.json").write_text(json.dumps(entry))
        assert sweep.is_done(run) is done
    (folder / "01_quick.json").write_text("{")
    assert not sweep.is_done(run)
    (folder / "01_quick.json").write_text(json.dumps({"exit": 0, "digest": run.digest}))
    assert sweep.to_frame()["state"].tolist() == ["done"]
    quick.write_text(quick.read_text() + "\n1 + 1\n")
    changed = open_sweep(path, out=tmp_path / "out")
    assert changed.runs[0].name == run.name
    assert not changed.is_done(changed.runs[0])
