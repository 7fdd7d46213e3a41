"""``passgrad sweep``: many runs of notebooks, and one table of what they found."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from passgrad.cli.progress import Bars
from passgrad.errors import UserError

# Rows of the table that are printed; the file has them all.
_SHOWN = 24


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file, such as examples/sweep_toy.yml.")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs, and which are done; run nothing."),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, instead of what the file says.")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="local or slurm, instead of what the file says.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep.  [default: _build/sweeps/NAME]")
    ] = None,
    html: Annotated[bool, typer.Option(help="Write each run as a page too.")] = True,
) -> None:
    """Run notebooks over a grid or a list of parameters, here or on a Slurm cluster.

    Each run is one folder, as that of passgrad run. A run that is done with the same notebook, code
    and values is not run again, so a sweep that was stopped goes on where it was. A run that fails
    does not stop the others; it is listed with its reason, and the exit status is 1. The results of
    all runs go into one table, with the parameters as columns: table.parquet.

    Example: passgrad sweep examples/sweep_toy.yml --jobs 2
    """
    from passgrad_book.build.sweep import open_sweep, run_sweep

    if executor not in (None, "local", "slurm"):
        raise UserError(f"--executor {executor!r} is unknown; the executors are local and slurm")
    opened = open_sweep(file, jobs=jobs, executor=executor, out=out)  # type: ignore[arg-type]
    if dry_run:
        table = opened.to_frame()
        typer.echo(table.to_string(index=False))
        typer.echo(f"{(table['state'] == 'done').sum()} of {len(table)} runs are done.")
        return
    with _ending_like_an_interrupt(), Bars() as bars:
        made = run_sweep(opened, bars, html=html)
    if len(made.table):
        typer.echo(made.table.to_string(index=False, max_rows=_SHOWN, min_rows=_SHOWN))
    typer.echo(
        f"{made.path}: {len(made.table)} rows; {made.executed} runs executed, "
        f"{made.kept} done before, {len(made.failed)} failed."
    )
    for name, reason in made.failed.items():
        typer.echo(f"{name} failed: {reason}", err=True)
    if made.failed:
        first = next(iter(made.failed))
        raise UserError(
            f"{file.name}: {len(made.failed)} of {len(opened.runs)} runs failed, "
            f"{first} first: {made.failed[first]}"
        )


@contextmanager
def _ending_like_an_interrupt() -> Iterator[None]:
    """A sweep that is asked to end takes its local runs with it, as when it is interrupted.

    What a shell starts in the background ignores interrupts, and so would the runs, which inherit
    that: they could not be stopped.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
