"""Many runs of notebooks: a file names them, submitit executes them, one table holds what they
found.

A sweep can be stopped at any time and started again: a run that is done with the same notebook,
code and values is not executed again (:meth:`passgrad_book.build.sweep.runs.SweepRun.is_done`). A
run that fails does not stop the others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from passgrad.files import write_atomic
from passgrad.progress import Progress
from passgrad_book.build import paths
from passgrad_book.build.sweep import executors
from passgrad_book.build.sweep.collect import collect
from passgrad_book.build.sweep.file import Executor, ExecutorKind, SweepFile, read
from passgrad_book.build.sweep.job import Job
from passgrad_book.build.sweep.runs import SweepRun, runs_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Executor", "Outcome", "Sweep", "SweepFile", "SweepRun", "open_sweep", "run_sweep"]


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for, and the folder that it goes to."""

    name: str
    runs: tuple[SweepRun, ...]
    executor: Executor
    collect: Sequence[str] | None
    folder: Path

    def folder_of(self, run: SweepRun) -> Path:
        """The folder of one run."""
        return self.folder / "runs" / run.name

    def is_done(self, run: SweepRun) -> bool:
        """Whether the run has ended well, with this code and these values."""
        return run.is_done(self.folder_of(run))

    def to_frame(self) -> pd.DataFrame:
        """run, state ("done" or "to run"), notebook, profile, and the values of the file."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "run": run.name,
                    "state": "done" if self.is_done(run) else "to run",
                    "notebook": Path(run.notebook).stem,
                    "profile": run.profile,
                    **{key: str(value) for key, value in run.given.items()},
                }
                for run in self.runs
            ]
        ).fillna("")


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a sweep ended: the table of all runs that are done, where it lies, how many were executed
    now and how many before, and the reasons of those that failed.
    """

    table: pd.DataFrame
    path: Path
    executed: int
    kept: int
    failed: dict[str, str]


def open_sweep(
    path: Path | str,
    *,
    jobs: int | None = None,
    executor: ExecutorKind | None = None,
    out: Path | str | None = None,
) -> Sweep:
    """Read a sweep file; nothing is executed.

    :param jobs, executor: Instead of what the file says.
    :param out: Folder of the sweep; ``_build/sweeps/<name of the file>`` by default.
    :raises UserError: As :func:`passgrad_book.build.sweep.file.read` and
        :func:`passgrad_book.build.sweep.runs.runs_of`, and for Slurm where there is none.
    """
    path = Path(path)
    content = read(path)
    changes = {"jobs": jobs, "kind": executor}
    chosen = Executor.model_validate(
        content.executor.model_dump() | {k: v for k, v in changes.items() if v is not None}
    )
    executors.check(chosen, path.name)
    folder = Path(out) if out is not None else paths.build() / "sweeps" / path.stem
    runs = tuple(runs_of(content, path.name))
    return Sweep(path.stem, runs, chosen, content.collect, folder.resolve())


def run_sweep(sweep: Sweep, progress: Progress, *, html: bool = True) -> Outcome:
    """Execute the runs that are not done, and collect the results of all.

    The table is written to ``table.parquet`` in the folder of the sweep; runs lie in ``runs/``,
    what their processes print in ``logs/``.
    """
    threads = executors.threads_for(sweep.executor)
    todo = [
        Job(run, sweep.folder_of(run), html, threads)
        for run in sweep.runs
        if not sweep.is_done(run)
    ]
    failed: dict[str, str] = {}
    progress.stage(f"{sweep.name}: {len(todo)} of {len(sweep.runs)} runs", len(todo))
    logs = sweep.folder / "logs"
    for job, reason in executors.run_jobs(todo, sweep.executor, logs, sweep.name):
        progress.advance()
        if reason is not None:
            failed[job.run.name] = reason
        progress.note(f"{job.run.name}: {'done' if reason is None else 'failed'}")
    done = [(run, sweep.folder_of(run)) for run in sweep.runs if sweep.is_done(run)]
    table = collect(done, sweep.collect)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    target = sweep.folder / "table.parquet"
    write_atomic(target, buffer.getvalue())
    kept = len(sweep.runs) - len(todo)
    return Outcome(table, target, len(todo) - len(failed), kept, failed)
