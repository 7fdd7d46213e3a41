"""``passgrad logs``: what a run did to pass@k, from the rewards that it logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from passgrad.cli.measure import orders
from passgrad.errors import UserError

if TYPE_CHECKING:
    from passgrad.measurement.logs.visits import Window

_COLUMNS = "What the columns are called, where they are not known by name"


def logs(
    run: Annotated[
        list[str],
        typer.Argument(
            help="What the trainer left: a file, a folder or a pattern; several are one log. "
            "Parquet, csv or JSON lines, plain or packed."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables and of report.html.")],
    ks: Annotated[
        str | None,
        typer.Option(
            help="Orders, such as 1,2,8.  [default: powers of two up to half of the answers a "
            "prompt and window]"
        ),
    ] = None,
    windows: Annotated[
        str | None,
        typer.Option(
            help="How many windows of equally many answers, or the steps of each, such as "
            "0:11,24:35.  [default: 4, or 2 of a short log]"
        ),
    ] = None,
    reading: Annotated[
        str,
        typer.Option(help="new: the prompts stand for others like them; fixed: for themselves."),
    ] = "new",
    level: Annotated[float, typer.Option(help="Confidence of intervals and of the band.")] = 0.95,
    false_discoveries: Annotated[
        float,
        typer.Option(help="Share of false ones among the prompts that are said to rise or fall."),
    ] = 0.05,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the counts that the folder holds.")
    ] = False,
    prompt_column: Annotated[
        str | None, typer.Option(help="What tells prompts apart.", rich_help_panel=_COLUMNS)
    ] = None,
    step_column: Annotated[
        str | None, typer.Option(help="The training step.", rich_help_panel=_COLUMNS)
    ] = None,
    reward_column: Annotated[
        str | None, typer.Option(help="The reward of an answer.", rich_help_panel=_COLUMNS)
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Groups of prompts.", rich_help_panel=_COLUMNS)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="An answer is right where its reward is above it; for rewards of -1 and 1 it is "
            "0.  [default: rewards are 0 or 1]",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
) -> None:
    """Did this run move along the gradient of pass@k, or against it?

    Reads prompts, steps and rewards alone, and needs no model: E[w_k(p)(p' - p)] is the inner
    product of the step with the gradient of every pass@k, to first order. Leaves logs.json, tables
    and report.html.

    Example: passgrad logs run/completions --ks 1,2,4,8 --out /tmp/log
    """
    from passgrad.cli.progress import Bars
    from passgrad.measurement.logs.counting import Columns
    from passgrad.measurement.logs.run import logs as read_logs

    columns = Columns(prompt_column, step_column, reward_column, group_column, threshold)
    with Bars() as bars:
        result = read_logs(
            run, ks=orders(ks), windows=_windows(windows), out=out, columns=columns,
            reading=reading,  # type: ignore[arg-type]
            level=level, false_discoveries=false_discoveries, resume=resume, progress=bars,
        )  # fmt: skip
        for text in result.remarks:
            bars.note(f"note: {text}")
    typer.echo(result.verdict)
    typer.echo(str(out / "report.html"))


def _windows(text: str | None) -> int | list[Window] | None:
    """The windows of ``--windows``."""
    from passgrad.measurement.logs.visits import Window

    if text is None:
        return None
    if text.strip().isdecimal():
        return int(text)
    if ":" not in text:
        raise UserError(f"--windows {text!r} is neither a number nor windows such as 0:11,24:35")
    return [Window.parse(part) for part in text.split(",")]
