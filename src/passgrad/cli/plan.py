"""``passgrad plan``: how much a measurement takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from passgrad.cli.measure import orders
from passgrad.errors import UserError
from passgrad.orders import Orders


def plan(
    pilot: Annotated[
        Path, typer.Argument(help="Folder of a finished passgrad measure or passgrad logs.")
    ],
    ks: Annotated[
        str | None, typer.Option(help="Orders, such as 8,16.  [default: those of the pilot]")
    ] = None,
    power: Annotated[
        float, typer.Option(help="The chance to see the conflict that is asked for.")
    ] = 0.9,
    prompts: Annotated[
        int | None, typer.Option(help="Prompts that there are; the samples are found.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Completions a prompt; the prompts are found.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(
            help="Conflict to be seen: -<grad J_k, grad J_1> as a share of ||grad J_1||^2; of a "
            "log, the change of pass@k to first order, such as .01.  [default: what was found]"
        ),
    ] = None,
    tokens_per_completion: Annotated[
        float | None,
        typer.Option(
            help="For the cost; with neither prompts nor samples the least is found.  "
            "[default: the mean of the pilot]"
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Confidence of the intervals.")] = 0.95,
) -> None:
    """How many prompts and samples does it take to see a conflict?

    Reads a small measurement as a pilot and scales its errors. A pilot that shows nothing has an
    effect that is mostly noise: say by --effect what would matter to you.

    Example: passgrad plan /tmp/m --ks 16 --effect 0.1 --samples 64
    """
    if (pilot / "logs.json").is_file():
        given = {
            "--prompts": prompts, "--samples": samples,
            "--tokens-per-completion": tokens_per_completion,
        }  # fmt: skip
        for name, value in given.items():
            if value is not None:
                raise UserError(f"{name} is for a measurement, and {pilot} is the reading of a log")
        _plan_log(pilot, orders(ks), effect, power, level)
        return
    from passgrad.measurement.planning_models import plan_from_pilot

    planned = plan_from_pilot(
        pilot, ks=orders(ks), power=power, num_prompts=prompts, num_samples=samples,
        tokens_per_completion=tokens_per_completion, effect=effect, level=level,
    )  # fmt: skip
    if planned.possible().rows:
        table = planned.possible().to_frame()
        typer.echo(table.to_string(index=False, float_format="{:.3g}".format))
    typer.echo(str(planned))


def _plan_log(
    folder: Path, ks: Orders | None, effect: float | None, power: float, level: float
) -> None:
    """Plan from the reading of a log; the effect is a change of pass@k to first order."""
    from passgrad.measurement.logs.planning import plan_from_log

    planned = plan_from_log(folder, ks=ks, effect=effect, power=power, level=level)
    typer.echo(planned.to_frame().to_string(index=False, float_format="{:.3g}".format))
    typer.echo(str(planned))
