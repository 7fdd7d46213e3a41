"""``passgrad train``: pass@k, or what mixes it with pass@1, without a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import typer

from passgrad.cli.config import read_config
from passgrad.errors import UserError

# As the defaults of passgrad.training.Settings, with which a test compares those here.
_DATA, _OBJECTIVE, _STEP = "Prompts", "What is ascended", "A step"
_WEIGHTS, _WATCHING = "What is trained", "Watching and keeping"

Value = TypeVar("Value")

#: what ``--example`` prints, and the smallest file that shows something on two cores
EXAMPLE = """\
# passgrad train config.yml
#
# Counting, `after 41 comes 42`, with the embedded model on a processor: some minutes on two cores.
# What should be seen: pass@1 of the held-out prompts rises beyond the interval of the start.
# Keys that are not here have the values that `passgrad train --help` shows; each key is an option
# too, as --steps 60.
model: smollm2-135m     # or a local folder, or a name on the Hugging Face hub
prompts: counting       # or a file: JSON lines with prompt (or messages) and answer
held_out: 0.3           # a share of the prompts, a number of them, or a file
out: runs/counting      # the same command goes on with what this folder holds

objective: mixture      # pass@k, pass@1, mixture, annealed, after-steps, conflict-free
k: 4
share: 0.5              # of pass@1 in the mixture

n: 8                    # completions a prompt, at least k + 1
prompts_per_step: 8
steps: 30
learning_rate: 3.0e-4   # of AdamW; all weights want less, 1e-6 to 1e-5
warmup: 5
rank: 8                 # of a LoRA adapter; 0 trains all weights

eval_every: 10
eval_samples: 32        # completions of a held-out prompt
seed: 0
"""


def _print_example(value: bool) -> None:
    if value:
        typer.echo(EXAMPLE, nl=False)
        raise typer.Exit


def train(
    config: Annotated[
        Path | None,
        typer.Argument(
            callback=read_config,
            is_eager=True,
            help="A YAML file of the options below, by their names; what the command line gives "
            "goes before it.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="smollm2-135m, a local folder, or a name on the Hugging Face hub."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; it goes on with what is there.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file of prompts or a task by its name, as passgrad measure takes.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    held_out: Annotated[
        str,
        typer.Option(
            help="Prompts that are measured and not trained on: a number, a share, or a file.",
            rich_help_panel=_DATA,
        ),
    ] = "0.2",
    verifier: Annotated[
        str,
        typer.Option(
            help="For a file: what judges a completion, as for passgrad measure.",
            rich_help_panel=_DATA,
        ),
    ] = "exact",
    stop: Annotated[
        str | None,
        typer.Option(
            help="For a file: what ends an answer.  [default: the model's end tokens]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="For a file: tokens after which a completion is cut off.  [default: 512]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="pass@k, pass@1, mixture, annealed (from k to 1), after-steps (pass@k for ten "
            "steps, then what the measured sign says) or conflict-free.",
            rich_help_panel=_OBJECTIVE,
        ),
    ] = "mixture",
    k: Annotated[int, typer.Option(help="The order.", rich_help_panel=_OBJECTIVE)] = 8,
    share: Annotated[
        float, typer.Option(help="Of pass@1 in a mixture.", rich_help_panel=_OBJECTIVE)
    ] = 0.5,
    aggregator: Annotated[
        str,
        typer.Option(
            help="Of conflict-free: pcgrad, constrained, mgda and others.",
            rich_help_panel=_OBJECTIVE,
        ),
    ] = "pcgrad",
    keep: Annotated[
        float,
        typer.Option(
            help="The share of the gain of pass@1 that constrained keeps.",
            rich_help_panel=_OBJECTIVE,
        ),
    ] = 0.0,
    n: Annotated[
        int,
        typer.Option(help="Completions a prompt: k + 1 or more.", rich_help_panel=_STEP),
    ] = 16,
    prompts_per_step: Annotated[
        int, typer.Option(help="Prompts a step.", rich_help_panel=_STEP)
    ] = 8,
    steps: Annotated[
        int,
        typer.Option(help="Steps; a run that is done goes on with more.", rich_help_panel=_STEP),
    ] = 200,
    learning_rate: Annotated[
        float,
        typer.Option(help="Of AdamW, constant behind the warm-up.", rich_help_panel=_STEP),
    ] = 1e-5,
    warmup: Annotated[
        int,
        typer.Option(
            help="Steps over which the learning rate rises from 0.", rich_help_panel=_STEP
        ),
    ] = 0,
    rows_at_once: Annotated[
        int | None,
        typer.Option(
            help="Completions in one pass of the loss; fewer take less memory.  "
            "[default: all of a step]",
            rich_help_panel=_STEP,
        ),
    ] = None,
    rank: Annotated[
        int,
        typer.Option(help="Of a LoRA adapter; 0 trains all weights.", rich_help_panel=_WEIGHTS),
    ] = 0,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer that gets an adapter, such as q_proj; may be repeated.  "
            "[default: all linear ones]",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    eval_every: Annotated[
        int,
        typer.Option(
            help="Steps between measurements of the held-out prompts.", rich_help_panel=_WATCHING
        ),
    ] = 20,
    eval_samples: Annotated[
        int | None,
        typer.Option(
            help="Completions of a held-out prompt.  [default: the larger of n and 2 k]",
            rich_help_panel=_WATCHING,
        ),
    ] = None,
    reading: Annotated[
        str,
        typer.Option(
            help="new: the held-out prompts stand for others like them; fixed: for themselves.",
            rich_help_panel=_WATCHING,
        ),
    ] = "new",
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints.  [default: as eval_every]", rich_help_panel=_WATCHING
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Of samples, of the order and choice of prompts, and of an adapter.",
            rich_help_panel=_WATCHING,
        ),
    ] = 0,
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            callback=_print_example,
            is_eager=True,
            help="Print a file with comments that runs on the embedded model, and stop.",
        ),
    ] = False,
) -> None:
    """Train pass@k, pass@1 or both on your prompts, and see what it did to held-out ones.

    TRL trains, under settings whose gradient is that of the objective. Held-out pass@1 and pass@k
    are measured with intervals along the way. Stopped or killed, the same command goes on.

    The smallest file has three lines: model, prompts and out. The folder then holds training.json
    (start, lowest point and end), training.svg, held_out.jsonl, log.jsonl, completions/, which
    passgrad logs reads, and model/, the weights or the adapter.

    Example: passgrad train --example > config.yml; passgrad train config.yml --steps 20
    """
    folder = _given("out", out)
    needed = {"model": _given("model", model), "prompts": _given("prompts", prompts)}
    from passgrad.training import Settings

    settings = Settings(
        **needed, held_out=held_out, verifier=verifier, stop=stop,
        max_new_tokens=max_new_tokens, objective=objective,  # type: ignore[arg-type]
        k=k, share=share, aggregator=aggregator, keep=keep, n=n, prompts_per_step=prompts_per_step,
        steps=steps, learning_rate=learning_rate, warmup=warmup, rank=rank, targets=targets,
        rows_at_once=rows_at_once, eval_every=eval_every, eval_samples=eval_samples,
        reading=reading,  # type: ignore[arg-type]
        checkpoint_every=checkpoint_every, seed=seed,
    )  # fmt: skip
    from passgrad.cli.progress import Bars
    from passgrad.training import train as run
    from passgrad.training.folder import PLOT
    from passgrad.training.outcome import table

    with Bars() as bars:
        record = run(settings, folder, bars)
    for line in table(record):
        typer.echo(line)
    typer.echo(str(folder / PLOT))


def _given(name: str, value: Value | None) -> Value:
    if value is None:
        raise UserError(
            f"{name} is not given; name it in the file or as --{name} "
            "(passgrad train --example prints a file)"
        )
    return value
