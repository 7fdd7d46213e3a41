"""``passgrad verify`` and ``passgrad reproduce``: claims against what ships and a rerun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from passgrad.claims.outcome import Outcome
    from passgrad.claims.verify import Part

Claims = Annotated[
    list[str] | None,
    typer.Argument(help="Claims by their ids in claims.yml, such as C3 E1.  [default: all]"),
]


def verify(
    claims: Claims = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Write data/claims.json, the manifest's facts, book/claims.md and ARTIFACT.md.",
        ),
    ] = False,
) -> None:
    """Check everything that ships: hashes, records, identities, claims, generated pages.

    Needs neither network nor GPU. Ends with one table, and with exit status 1 on any failure.
    """
    from passgrad.claims.verify import verify as check

    report = check(claims, write=write)
    close(report.outcomes, report.parts)
    end(report.failures)


def reproduce(
    claims: Claims = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is already done.")] = False,
    write: Annotated[
        bool,
        typer.Option("--write", help="Keep seconds and machine in data/claims.json and the pages."),
    ] = False,
) -> None:
    """Run the commands of the claims again and measure each claim after it.

    Results go to _build, not over data/. A command that is done and whose code, parameters and
    notebook are the same is not run again. Ends with one table, and with exit status 1 on any
    failure.
    """
    from passgrad.claims import render
    from passgrad.claims import reproduce as module
    from passgrad.claims.schema import load

    outcomes = module.reproduce(claims, fresh=fresh, say=lambda line: typer.echo(line, err=True))
    if write:
        module.store(outcomes)
        render.write(load())
    close(outcomes)
    end([line for one in outcomes for line in one.failures])


def close(outcomes: Sequence[Outcome], parts: Sequence[Part] = ()) -> None:
    """The closing table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "verdict", "quantity", "expected", "measured", ""):
        table.add_column(name, no_wrap=True, overflow="ellipsis")

    def add(ok: bool | None, *cells: str) -> None:
        mark = {True: ("ok", "green"), False: ("FAIL", "bold red"), None: ("quoted", "dim")}[ok]
        table.add_row(*(Text(cell) for cell in cells), Text(*mark))

    for part in parts:
        add(not part.failures, part.name, "", part.detail, "", "")
    for one in outcomes:
        more = len(one.claim.expected) - 1
        quantity, expected, value = one.shown
        quantity += f" (+{more})" if more > 0 else ""
        ok = None if one.claim.check is None and not one.failures else not one.failures
        add(ok, one.claim.id, one.verdict, quantity, expected, value)
    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def end(failures: Sequence[str]) -> None:
    """One line a failure, and the exit status."""
    for line in failures:
        typer.echo(f"[fail] {line}")
    if failures:
        typer.echo(f"{len(failures)} not as expected.")
        raise typer.Exit(1)
    typer.echo("Everything is as expected.")
