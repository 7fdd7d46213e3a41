"""One run of a sweep, in the process that executes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from passgrad.errors import UserError
from passgrad_book.build import notebooks
from passgrad_book.build.sweep.runs import SweepRun


@dataclass(frozen=True, eq=False)
class Job:
    """A run, its folder, and whether a page is written."""

    run: SweepRun
    folder: Path
    html: bool = True
    threads: int | None = None


def execute(job: Job) -> str | None:
    """Execute the run unless it is done; returns the reason where it failed, None otherwise.

    A run that is under way in another process, as after a sweep that was killed while its runs went
    on, is waited for.
    """
    if job.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    with locked(job.folder):
        if job.run.is_done(job.folder):
            return None
        try:
            notebooks.run_to_folder(
                job.run.notebook, job.run.profile, job.run.given, job.folder, html=job.html
            )
        except UserError as error:
            return " ".join(str(error).split())
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone with a folder: the lock ends with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
