"""``passgrad measure``: the conflict of a model on prompts of the user's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from passgrad.errors import UserError


def measure(
    model: Annotated[
        str, typer.Option(help="smollm2-135m, a local folder, or a name on the Hugging Face hub.")
    ],
    prompts: Annotated[
        str,
        typer.Option(
            help="A file of JSON lines (prompt or messages, answer; optional id, group), or a "
            "task: conventions, arithmetic, gym:NAME."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the measurement.")],
    samples: Annotated[int, typer.Option(help="Completions a prompt.")] = 64,
    ks: Annotated[
        str | None,
        typer.Option(help="Orders with intervals, such as 1,2,8.  [default: 1,2,4,... to half]"),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, vllm or transformers.")] = "auto",
    verifier: Annotated[
        str,
        typer.Option(help="For a file: exact, math, gym:NAME, package.module:function, FILE.py:f."),
    ] = "exact",
    stop: Annotated[
        str | None,
        typer.Option(help="For a file: what ends an answer.  [default: the model's end token]"),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="For a file: tokens after which a completion is cut off.")
    ] = 512,
    reading: Annotated[
        str,
        typer.Option(help="new: the prompts stand for others like them; fixed: for themselves."),
    ] = "new",
    level: Annotated[float, typer.Option(help="Confidence of intervals and of the band.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the samples and of their halves.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the folder holds.")
    ] = False,
) -> None:
    """Will pass@k training cost pass@1 on this model and these prompts?

    Draws completions, judges them, and estimates the inner product of the gradients of pass@k and
    pass@1 over all parameters, without bias and with intervals. Leaves measurement.json, tables
    and report.html. What is done is kept: after a stop, go on with --resume.

    Example: passgrad measure --model smollm2-135m --prompts conventions --samples 32 --out /tmp/m
    """
    from passgrad.lm.models import load_tokenizer, resolve
    from passgrad.measurement.run import measure as run_measurement
    from passgrad.report import write_report
    from passgrad.report.measured import content_of
    from passgrad.tasks.prompt_files import read_prompts, task_by_name

    if Path(prompts).suffix in (".jsonl", ".json") or Path(prompts).is_file():
        task = read_prompts(
            prompts, tokenizer=load_tokenizer(resolve(model)), verifier=verifier, stop=stop,
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
    else:
        task = task_by_name(prompts)
    begun = time.perf_counter()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.perf_counter() - begun), 60)
        typer.echo(f"[{minutes}:{seconds:02d}] {text}", err=True)

    made = run_measurement(
        model, task, out=out, num_samples=samples, ks=_orders(ks), engine=engine,  # type: ignore[arg-type]
        prompts=reading, level=level, seed=seed, resume=resume, progress=say,  # type: ignore[arg-type]
    )  # fmt: skip
    write_report(content_of(made), out / "report.html")
    typer.echo(made.estimate.verdict)
    typer.echo(str(out / "report.html"))


def _orders(text: str | None) -> list[int] | None:
    """The orders of ``--ks``."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--ks {text!r} is not a list of whole numbers such as 1,2,8") from None
