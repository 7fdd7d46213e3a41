"""``passgrad verify`` and ``passgrad reproduce``: claims against what ships and a rerun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from passgrad.errors import UserError

if TYPE_CHECKING:
    from passgrad_book.build.claims.outcome import Outcome
    from passgrad_book.build.claims.verify import Part

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
    """Check everything that ships: hashes, records, witnesses, identities, claims, generated pages.

    The witnesses of experiments whose code has not been seen before run, in about three minutes.
    Needs neither network nor GPU. Ends with one table, and with exit status 1 on any failure.
    """
    from passgrad.cli.progress import Bars
    from passgrad_book.build.claims.verify import verify as check

    with Bars() as bars:
        report = check(claims, write=write, progress=bars)
    close(report.outcomes, report.parts)
    end(report.failures)


def witness(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Experiments by their names.  [default: all]")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Store the numbers of today: for a new version.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run also what is known by data/attestations.jsonl.")
    ] = False,
) -> None:
    """Run the small runs whose numbers every version of the code has to give.

    Code that gives them adds a line to data/attestations.jsonl; other code is named, with the
    experiment and the column, and the exit status is 1.
    """
    from passgrad_book.build import witness as module
    from passgrad_book.build.experiment import HOMES, find

    failures = []
    for name in experiments or HOMES:
        if find(name).timing:
            typer.echo(f"{name}: times, no witness")
            continue
        if write:
            module.write(name)
        found = module.attest(name, again=again or write)
        if found.failure is not None:
            failures.append(found.failure)
        elif found.ran:
            typer.echo(
                f"{name}: the same numbers, in {found.seconds:.0f} s; largest gap "
                f"{found.largest:.1g} of what is allowed, in {found.column}"
            )
        else:
            typer.echo(f"{name}: known")
    end(failures)


def audit(
    result: Annotated[
        str | None,
        typer.Argument(help="experiment/profile/name.  [default: the result whose day it is]"),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", help="A file of problems, as gsm8k_path=FILE. Repeatable."),
    ] = None,
    note: Annotated[
        bool,
        typer.Option("--note", help="Store which share of its lines the witness covers."),
    ] = False,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines",
            help="That note alone, with the small model of the witnesses in place of its own: "
            "seconds, and nothing is compared.",
        ),
    ] = False,
) -> None:
    """Compute one stored result again in full and compare every column: minutes."""
    import datetime

    from passgrad_book.build import audit as module

    files = {}
    for text in file or ():
        parameter, equals, path = text.partition("=")
        if not (parameter and equals and path):
            raise UserError(f"--file {text}: give a parameter and its file, as gsm8k_path=FILE")
        files[parameter] = path
    name = result or module.of_the_day(module.candidates(files), datetime.date.today())
    typer.echo(f"computing {name} again", err=True)
    if lines:
        share = module.note_lines(name, files)
        typer.echo(f"{name}: its witness covers {share:.1%} of the lines")
        return
    found = module.audit(name, files, note=note)
    column, (gap, allowed) = max(found.gaps.items(), key=lambda item: item[1][0])
    typer.echo(
        f"{name}: {found.seconds:.0f} s; largest gap {gap:.2g}, where {allowed:.2g} is allowed, "
        f"in {column}"
    )
    end(found.failures)


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
    from passgrad.cli.progress import Bars
    from passgrad_book.build.claims import render
    from passgrad_book.build.claims import reproduce as module
    from passgrad_book.build.claims.schema import load

    with Bars() as bars:
        outcomes = module.reproduce(claims, fresh=fresh, progress=bars)
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
