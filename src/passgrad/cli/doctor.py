"""``passgrad doctor``: whether this machine is ready."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Say whether this machine is ready.

    Looks at versions, processor, memory, disk, model, vLLM and results; exit 1 when something is
    wrong.
    """
    from passgrad_book.build import doctor as module

    failed = 0
    for check in module.checks():
        mark = "[ok]  " if check.ok else "[fail]"
        remedy = "" if check.ok else f": {check.remedy}" if check.remedy else ""
        typer.echo(f"{mark} {check.name:16} {check.detail}{remedy}")
        failed += not check.ok
    if failed:
        typer.echo(f"{failed} of the checks failed.")
        raise typer.Exit(1)
    typer.echo("Everything is in order.")
