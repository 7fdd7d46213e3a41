"""``passgrad train``: the recipe, without a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from passgrad.cli.config import read_config

_WHAT = "What is trained"
_HOW = "How"

_EXAMPLE = """\
# passgrad train config.yml
# Sums in two conventions with the embedded model, on a processor. What is not set here has the
# default that `passgrad train --help` shows.
model: smollm2-135m      # the embedded one, a name on the hub, or a folder
prompts: conventions     # a file with a row a prompt, or a task by its name
out: runs/conventions    # where everything lies; the same folder goes on where it stopped
objective: mixture       # mixture, pass@k, pass@1, annealed, after-steps, conflict-free
k: 4
share: 0.5               # of pass@1 in the mixture
samples: 8               # answers a prompt
prompts_per_step: 4
held_out: 8              # prompts that are not trained on
steps: 40
eval_every: 10
rank: 8                  # of a LoRA adapter; 0 trains all weights
learning_rate: 1e-3
"""


def _print_example(value: bool) -> None:
    if value:
        typer.echo(_EXAMPLE, nl=False)
        raise typer.Exit


def train(
    config: Annotated[
        Path | None,
        typer.Argument(
            callback=read_config,
            is_eager=True,
            help="YAML file of the options below; the command line goes before it.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The embedded model, a name on the hub, or a folder.", rich_help_panel=_WHAT
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file with a row a prompt, as for passgrad measure, or a task by its name.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; the same folder goes on.", rich_help_panel=_WHAT),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="mixture, pass@k, pass@1, annealed (k to 1), after-steps (reads the sign of the "
            "product after ten steps) or conflict-free.",
            rich_help_panel=_WHAT,
        ),
    ] = "mixture",
    k: Annotated[int, typer.Option(help="The order.", rich_help_panel=_WHAT)] = 8,
    share: Annotated[
        float, typer.Option(help="Of pass@1 in a mixture.", rich_help_panel=_WHAT)
    ] = 0.5,
    verifier: Annotated[
        str, typer.Option(help="What judges an answer of a file.", rich_help_panel=_WHAT)
    ] = "exact",
    samples: Annotated[
        int, typer.Option(help="Answers a prompt: at least 2 k.", rich_help_panel=_HOW)
    ] = 16,
    prompts_per_step: Annotated[
        int, typer.Option(help="Prompts a step.", rich_help_panel=_HOW)
    ] = 8,
    steps: Annotated[int, typer.Option(help="Steps.", rich_help_panel=_HOW)] = 200,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=_HOW)] = 1e-5,
    rank: Annotated[
        int, typer.Option(help="Of a LoRA adapter; 0 trains all weights.", rich_help_panel=_HOW)
    ] = 0,
    held_out: Annotated[
        int, typer.Option(help="Prompts that are not trained on.", rich_help_panel=_HOW)
    ] = 32,
    eval_every: Annotated[
        int,
        typer.Option(
            help="Steps between evaluations, and between checkpoints.", rich_help_panel=_HOW
        ),
    ] = 20,
    max_new_tokens: Annotated[
        int, typer.Option(help="The longest answer to a prompt of a file.", rich_help_panel=_HOW)
    ] = 512,
    seed: Annotated[int, typer.Option(help="Of samples and order.", rich_help_panel=_HOW)] = 0,
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            callback=_print_example,
            is_eager=True,
            help="Print a config file with comments, and stop.",
        ),
    ] = False,
) -> None:
    """Train pass@k, or a mixture of pass@1 and pass@k, with TRL, and say what came of it.

    Evaluates held-out prompts with intervals, writes a log as it goes, and goes on where it was
    stopped. The folder then holds summary.json, curve.svg, the weights and the rewards that
    passgrad logs reads.

    Example: passgrad train --example > config.yml; passgrad train config.yml
    """
    from passgrad.errors import UserError
    from passgrad.trl.recipe import Recipe
    from passgrad.trl.recipe import train as run

    for name, value in (("model", model), ("prompts", prompts), ("out", out)):
        if value is None:
            raise UserError(
                f"{name} is not set: give --{name}, or a line of a config file; passgrad train "
                "--example prints one"
            )
    summary = run(
        Recipe(
            model=str(model), prompts=str(prompts), out=Path(str(out)),
            objective=objective,  # type: ignore[arg-type]
            k=k, share=share, samples=samples, prompts_per_step=prompts_per_step, steps=steps,
            learning_rate=learning_rate, rank=rank, held_out=held_out, eval_every=eval_every,
            max_new_tokens=max_new_tokens, verifier=verifier, seed=seed,
        )
    )  # fmt: skip
    for line in _table(summary):
        typer.echo(line)
    typer.echo(f"{out}/curve.svg")


def _table(summary: dict[str, Any]) -> list[str]:
    heads = "".join(f"{word:>22}" for word in ("start", "lowest", "end"))
    lines = [f"{'held-out prompts: ' + str(summary['held_out_prompts']):28}{heads}"]
    orders = sorted({name.split("_")[0] for name in summary if name.startswith("pass@")})
    for order in orders:
        cells = []
        for word in ("start", "lowest", "end"):
            cell = summary[f"{order}_{word}"]
            cells.append(f"{cell['value']:.3f} ({cell['low']:.3f}, {cell['high']:.3f})")
        lines.append(f"{order:28}" + "".join(f"{cell:>22}" for cell in cells))
    if "silent_groups" in summary:
        lines.append(f"{'groups that moved nothing':28}{summary['silent_groups']:>21.0%}")
    return lines
