"""``passgrad measure``: the conflict of a model on prompts of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from passgrad.orders import Orders


def measure(
    model: Annotated[
        str, typer.Option(help="smollm2-135m, a local folder, or a name on the Hugging Face hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the measurement.")],
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file of JSON lines (prompt or messages, answer; optional id, group), or a "
            "task: conventions, arithmetic, gsm8k, gym:NAME."
        ),
    ] = None,
    rollouts: Annotated[
        Path | None,
        typer.Option(
            help="Completions drawn elsewhere from this model, parquet or JSON lines: logs of "
            "verl, TRL, vLLM, or columns prompt, completion (or completion_ids), reward."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Completions a prompt.")] = 64,
    ks: Annotated[
        str | None,
        typer.Option(help="Orders with intervals, such as 1,2,8.  [default: 1,2,4,... to half]"),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, vllm, transformers or server.")] = "auto",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of an OpenAI-compatible vLLM server that serves the model, such as "
            "http://127.0.0.1:8000/v1; the key, if it wants one, in PASSGRAD_API_KEY or "
            "OPENAI_API_KEY. Its completions are compared with the model before they are used."
        ),
    ] = None,
    verifier: Annotated[
        str,
        typer.Option(help="For a file: exact, math, gym:NAME, package.module:function, FILE.py:f."),
    ] = "exact",
    verifier_seconds: Annotated[
        float, typer.Option(help="A verdict that takes longer counts as wrong, and is reported.")
    ] = 5.0,
    verifier_memory: Annotated[
        int, typer.Option(help="MiB that a verifier may take; beyond it the verdict is wrong.")
    ] = 1024,
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
    parts: Annotated[
        bool,
        typer.Option(
            help="Split the product by layer and group, at the k where it is most negative; about "
            "four more passes."
        ),
    ] = True,
    adam: Annotated[
        Path | None,
        typer.Option(
            help="Safetensors file with Adam's second moments: the parts in its metric too."
        ),
    ] = None,
    step: Annotated[
        bool, typer.Option(help="Predict what a step along that k's gradient does to pass@k.")
    ] = True,
    step_size: Annotated[
        str,
        typer.Option(
            help="points=1: the step that raises pass@k by one point to first order; length=1e-5: "
            "of the length of the weights; eta=0.02: of the gradient."
        ),
    ] = "points=1",
    verify_step: Annotated[
        bool,
        typer.Option(
            "--verify-step",
            help="Take the step, and draw as many completions before and after it; not with a "
            "server.",
        ),
    ] = False,
    token_budget: Annotated[
        int, typer.Option(help="Tokens of a packed row; less takes less memory.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the folder holds.")
    ] = False,
) -> None:
    """Will pass@k training cost pass@1 on this model and these prompts?

    Draws completions, judges them, and estimates the inner product of the gradients of pass@k and
    pass@1 over all parameters, without bias and with intervals. Leaves measurement.json, tables
    and report.html. What is done is kept: after a stop, go on with --resume.

    Example: passgrad measure --model smollm2-135m --prompts conventions --samples 32 --out /tmp/m

    Over several processes or GPUs: torchrun --standalone --nproc_per_node 2 -m passgrad.cli measure
    with the same options.
    """
    from passgrad.cli.progress import Bars
    from passgrad.lm.distributed import processes
    from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET
    from passgrad.measurement.report import write_report
    from passgrad.measurement.report.measured import content_of
    from passgrad.measurement.run import measure as run_measurement

    with processes() as group, Bars() as bars:
        made = run_measurement(
            model, prompts, out=out, rollouts=rollouts, samples=samples, ks=orders(ks),
            engine=engine, base_url=base_url, verifier=verifier,  # type: ignore[arg-type]
            verifier_seconds=verifier_seconds, verifier_memory=verifier_memory, stop=stop,
            max_new_tokens=max_new_tokens, reading=reading, level=level, seed=seed,  # type: ignore[arg-type]
            parts=parts, adam=adam, step=step, step_size=step_size, verify_step=verify_step,
            token_budget=token_budget or DEFAULT_TOKEN_BUDGET, resume=resume, progress=bars,
        )  # fmt: skip
        group.from_main(lambda: write_report(content_of(made), out / "report.html"))
        if not group.is_main:
            return
        for text in made.remarks:
            bars.note(f"note: {text}")
    typer.echo(made.estimate.verdict)
    if made.step is not None:
        typer.echo(made.step.verdict)
    typer.echo(str(out / "report.html"))


def orders(text: str | None) -> Orders | None:
    """The orders of ``--ks``."""
    return None if text is None else Orders.parse(text, "--ks")
