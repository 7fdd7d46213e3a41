"""What is handed to submitit: real processes of this machine, and the script of a Slurm job."""

import multiprocessing
import os
import stat
import time

import pandas as pd

from passgrad.progress import Silent
from passgrad_book.build.sweep import open_sweep, run_sweep
from passgrad_book.build.sweep.executors import _backend, run_jobs, slurm_parameters, threads_for
from passgrad_book.build.sweep.file import Executor
from passgrad_book.build.sweep.job import Job, execute, locked


def test_a_grid_with_a_run_that_fails_and_one_that_is_killed(processes, sweep_file, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    path = sweep_file(
        "runs:\n"
        "  - notebook: 01_quick\n"
        "    profile: smoke\n"
        f"    parameters: {{mode: bad, marks: '{marks}'}}\n"
        "    grid: {a: [2, 1], b: [1.0, 2.0]}\n"
        "executor: {jobs: 4, minutes: 5}\n"
    )
    sweep = open_sweep(path, out=tmp_path / "out")
    made = run_sweep(sweep, Silent(), html=False)
    assert (made.executed, made.kept) == (2, 0)
    fails, killed = sweep.runs[0].name, sweep.runs[1].name
    assert set(made.failed) == {fails, killed}
    assert "ValueError: a is 2; the executed part is in " in made.failed[fails]
    assert "the process ended without a result" in made.failed[killed]
    assert len(list(marks.iterdir())) == 4
    table = pd.read_parquet(made.path)
    assert list(zip(table["a"], table["b"], strict=True)) == [(1, 1.0), (1, 2.0)]

    # Those that are not done are run again, and they alone.
    made = run_sweep(open_sweep(path, out=tmp_path / "out"), Silent(), html=False)
    assert (made.executed, made.kept, set(made.failed)) == (0, 2, {fails, killed})
    assert len(list(marks.iterdir())) == 6
    assert len(made.table) == 2


def hold(folder, seconds):
    with locked(folder):
        (folder / "held").touch()
        time.sleep(seconds)


def test_a_run_under_way_elsewhere_is_waited_for(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, 1.0))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    begun = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - begun > 0.3
    process.join()


def test_a_run_that_is_done_is_not_executed(sweep_file, tmp_path, monkeypatch):
    sweep = open_sweep(sweep_file("runs: [{notebook: 01_quick}]"), out=tmp_path)
    [run] = sweep.runs
    monkeypatch.setattr(type(run), "is_done", lambda *_: True)
    monkeypatch.setattr("passgrad_book.build.notebooks.run_to_folder", None)
    assert execute(Job(run, sweep.folder_of(run))) is None


def test_threads_are_shared():
    cores = len(os.sched_getaffinity(0))
    assert threads_for(Executor(jobs=1)) is None
    assert threads_for(Executor(jobs=10 * cores)) == 1
    assert threads_for(Executor(jobs=2, cpus=3)) == 3
    assert threads_for(Executor(kind="slurm", jobs=2)) is None


def test_the_script_of_a_slurm_job(sweep_file, tmp_path, monkeypatch):
    """Against stand-ins for the commands of Slurm: the options arrive in the script."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {
        "sbatch": f'for last; do :; done; cp "$last" {tmp_path}/script; echo Submitted batch job 7',
        "srun": "true", "sacct": "true", "scancel": "true",
    }.items():  # fmt: skip
        tool = tools / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    path = sweep_file(
        "runs: [{notebook: 01_quick, grid: {a: [1, 2, 3]}}]\n"
        "executor:\n"
        "  {kind: slurm, jobs: 2, minutes: 90, partition: h100, gpus: 8, cpus: 16, memory_gb: 64,\n"
        "   account: lab, setup: [module load cuda], options: {constraint: nvlink}}\n"
    )
    sweep = open_sweep(path, out=tmp_path / "out")
    backend = _backend(sweep.executor, tmp_path / "logs", sweep.name)
    with backend.batch():
        for run in sweep.runs:
            backend.submit(execute, Job(run, sweep.folder_of(run)))
    script = (tmp_path / "script").read_text()
    for line in (
        "--array=0-2%2", "--partition=h100", "--gpus-per-node=8", "--cpus-per-task=16",
        "--mem=64GB", "--time=90", "--account=lab", "--constraint=nvlink", "--nodes=1",
        "--job-name=sweep_test", "module load cuda",
    ):  # fmt: skip
        assert line in script
    assert "slurm_setup" not in slurm_parameters(Executor(kind="slurm"), "x")


def test_nothing_to_do_asks_for_nothing(tmp_path):
    assert list(run_jobs([], Executor(), tmp_path / "logs", "x")) == []
