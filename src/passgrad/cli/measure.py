"""``passgrad measure``: the conflict of a model on prompts of the user's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from passgrad.cli.config import read_config
from passgrad.orders import Orders

if TYPE_CHECKING:
    from passgrad.measurement.options import Options

# As the groups of passgrad.measurement.options, whose defaults a test compares with those here.
_DRAWING, _JUDGING, _ESTIMATING = "Drawing completions", "Judging them", "Estimating"
_LOGGED = "Completions drawn elsewhere"
_STEP, _RUNNING = "The step", "Running"


def measure(
    model: Annotated[
        str, typer.Option(help="smollm2-135m, a local folder, or a name on the Hugging Face hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the measurement.")],
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file (JSON lines, JSON, CSV, parquet; prompt or messages, answer; optional id, "
            "group), or a task: conventions, arithmetic, counting, gsm8k, gym:NAME."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Completions a prompt.", rich_help_panel=_DRAWING)
    ] = 64,
    engine: Annotated[
        str,
        typer.Option(help="auto, vllm, transformers or server.", rich_help_panel=_DRAWING),
    ] = "auto",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of an OpenAI-compatible vLLM server that serves the model, such as "
            "http://127.0.0.1:8000/v1; the key, if it wants one, in PASSGRAD_API_KEY or "
            "OPENAI_API_KEY. Its completions are compared with the model before they are used.",
            rich_help_panel=_DRAWING,
        ),
    ] = None,
    rollouts: Annotated[
        list[str] | None,
        typer.Option(
            help="A file, a folder or a pattern of completions drawn elsewhere from this model: "
            "logs of verl, TRL, vLLM, SGLang, OpenAI's batches, lm-evaluation-harness, EvalPlus, "
            "or columns prompt, completion (or completion_ids), reward. May be given several "
            "times.",
            rich_help_panel=_LOGGED,
        ),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="The column of rewards; given several times, their weighted sum.",
            rich_help_panel=_LOGGED,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A reward above this is right.  [default: rewards are 0 and 1]",
            rich_help_panel=_LOGGED,
        ),
    ] = None,
    rollout_step: Annotated[
        int | None,
        typer.Option(
            help="Take the completions of this training step alone.", rich_help_panel=_LOGGED
        ),
    ] = None,
    per_prompt: Annotated[
        int | None,
        typer.Option(
            help="Take the first so many completions of each prompt, and leave out prompts with "
            "fewer.",
            rich_help_panel=_LOGGED,
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="Who wrote the log: plain, verl, trl, batch, generate, lm-eval, evalplus, "
            "passgrad; auto tells by the columns.",
            rich_help_panel=_LOGGED,
        ),
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|FILE",
            help="What the log was drawn with and does not say, such as temperature=1 or "
            "quantised=false; a YAML or JSON file of these.",
            rich_help_panel=_LOGGED,
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="The input file of a batch: its prompts and settings.", rich_help_panel=_LOGGED
        ),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(
            help="For a file: what ends an answer.  [default: the model's end tokens]",
            rich_help_panel=_DRAWING,
        ),
    ] = None,
    end_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--end-token",
            help="A token that ends a completion, such as '<|im_end|>'; may be repeated.  "
            "[default: all that the model's files declare]",
            rich_help_panel=_DRAWING,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="For a file: tokens after which a completion is cut off; with --rollouts where "
            "theirs were.  [default: 512; with --rollouts unknown]",
            rich_help_panel=_DRAWING,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the samples and of their halves.", rich_help_panel=_DRAWING)
    ] = 0,
    verifier: Annotated[
        str,
        typer.Option(
            help="For a file: exact; math, which compares what stands in the last box, or else the "
            "last expression; gsm8k; gym:NAME; package.module:function or FILE.py:f, a function "
            "of (completion, answer), or one as verl or TRL want it.",
            rich_help_panel=_JUDGING,
        ),
    ] = "exact",
    think: Annotated[
        str | None,
        typer.Option(
            help="Where the answer begins in a completion that thinks first, such as '</think>'; "
            "what is behind it is judged, and a completion without it is wrong.",
            rich_help_panel=_JUDGING,
        ),
    ] = None,
    verifier_seconds: Annotated[
        float,
        typer.Option(
            help="A verdict that takes longer counts as wrong, and is reported.",
            rich_help_panel=_JUDGING,
        ),
    ] = 5.0,
    verifier_memory: Annotated[
        int,
        typer.Option(
            help="MiB that a verifier may take; beyond it the verdict is wrong.",
            rich_help_panel=_JUDGING,
        ),
    ] = 1024,
    ks: Annotated[
        str | None,
        typer.Option(
            help="Orders with intervals, such as 1,2,8.  [default: 1,2,4,... to half]",
            rich_help_panel=_ESTIMATING,
        ),
    ] = None,
    reading: Annotated[
        str,
        typer.Option(
            help="new: the prompts stand for others like them; fixed: for themselves.",
            rich_help_panel=_ESTIMATING,
        ),
    ] = "new",
    estimator: Annotated[
        str,
        typer.Option(
            help="Of the gradients of pass@k; an unbiased one.", rich_help_panel=_ESTIMATING
        ),
    ] = "pkpo-loo1",
    level: Annotated[
        float,
        typer.Option(help="Confidence of intervals and of the band.", rich_help_panel=_ESTIMATING),
    ] = 0.95,
    parts: Annotated[
        bool,
        typer.Option(
            help="Split the product by layer and group, at the k where it is most negative; one "
            "more pass.",
            rich_help_panel=_ESTIMATING,
        ),
    ] = True,
    adam: Annotated[
        Path | None,
        typer.Option(
            help="Safetensors file with Adam's second moments: the parts in its metric too.",
            rich_help_panel=_ESTIMATING,
        ),
    ] = None,
    step: Annotated[
        bool,
        typer.Option(
            help="Predict what a step along that k's gradient does to pass@k.",
            rich_help_panel=_STEP,
        ),
    ] = True,
    step_size: Annotated[
        str,
        typer.Option(
            help="points=1: the step that raises pass@k by one point to first order; length=1e-5: "
            "of the length of the weights; eta=0.02: of the gradient.",
            rich_help_panel=_STEP,
        ),
    ] = "points=1",
    verify_step: Annotated[
        bool,
        typer.Option(
            "--verify-step",
            help="Take the step, and draw as many completions before and after it; not with a "
            "server.",
            rich_help_panel=_STEP,
        ),
    ] = False,
    token_budget: Annotated[
        int,
        typer.Option(
            help="Tokens of a packed row; less takes less memory.", rich_help_panel=_RUNNING
        ),
    ] = 1024,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with what the folder holds.", rich_help_panel=_RUNNING
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            help="float32 or bfloat16, which takes half of the memory; in drawing too.",
            rich_help_panel=_RUNNING,
        ),
    ] = "float32",
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:1.  [default: a GPU where there is one]",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Under torchrun: spread weights, gradient and direction over the processes.",
            rich_help_panel=_RUNNING,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what it would take, in memory, tokens and time, and stop; what does not fit "
            "is refused with what would.",
            rich_help_panel=_RUNNING,
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of these options, by their names; what the command line gives goes "
            "before it.",
            callback=read_config,
            is_eager=True,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
) -> None:
    """Will pass@k training cost pass@1 on this model and these prompts?

    Draws completions, judges them, and estimates the inner product of the gradients of pass@k and
    pass@1 over all parameters, without bias and with intervals. Leaves measurement.json, tables
    and report.html. What is done is kept: after a stop, go on with --resume.

    Example: passgrad measure --model smollm2-135m --prompts conventions --samples 32 --out /tmp/m

    Over several processes or GPUs: torchrun --standalone --nproc_per_node 2 -m passgrad.cli measure
    with the same options.
    """
    from passgrad.measurement.options import (
        Drawing,
        Estimating,
        Judging,
        Logged,
        Options,
        Running,
        Stepping,
        check_no_step,
    )

    if not step:
        check_no_step(step_size, verify_step)
    asked = Options(
        Drawing(
            samples=samples, engine=engine, base_url=base_url, rollouts=rollouts, stop=stop,  # type: ignore[arg-type]
            end_tokens=end_tokens, max_new_tokens=max_new_tokens, seed=seed,
        ),
        Judging(
            verifier=verifier, think=think, verifier_seconds=verifier_seconds,
            verifier_memory=verifier_memory,
        ),
        Estimating(
            ks=orders(ks), reading=reading, estimator=estimator, level=level, parts=parts,  # type: ignore[arg-type]
            adam=adam,
        ),
        Stepping(step_size=step_size, verify_step=verify_step) if step else None,
        Running(
            token_budget=token_budget, resume=resume, dtype=dtype, device=device, shard=shard,  # type: ignore[arg-type]
        ),
        Logged(
            reward=reward, threshold=threshold, rollout_step=rollout_step, per_prompt=per_prompt,
            layout=layout, settings=settings, requests=requests,  # type: ignore[arg-type]
        ),
    )  # fmt: skip
    if dry_run:
        from passgrad.lm.distributed import processes
        from passgrad.measurement.forecast import forecast

        with processes(device=device) as group:
            found = forecast(
                model, prompts, drawing=asked.drawing, judging=asked.judging,
                estimating=asked.estimating, step=asked.step, running=asked.running,
                logged=asked.logged,
            )  # fmt: skip
            if group.is_main:
                typer.echo(str(found))
        return
    _run(model, prompts, out, asked)


def _run(model: str, prompts: str | None, out: Path, asked: Options) -> None:
    """Measure with bars, write the report, and say what was found."""
    from passgrad.cli.progress import Bars
    from passgrad.lm.distributed import processes
    from passgrad.measurement.report import write_report
    from passgrad.measurement.report.measured import content_of
    from passgrad.measurement.run import measure as run_measurement

    with processes(device=asked.running.device) as group, Bars() as bars:
        measured = run_measurement(
            model, prompts, out=out, drawing=asked.drawing, judging=asked.judging,
            estimating=asked.estimating, step=asked.step, logged=asked.logged,
            running=replace(asked.running, progress=bars),
        )  # fmt: skip
        group.from_main(lambda: write_report(content_of(measured), out / "report.html"))
        if not group.is_main:
            return
        for text in measured.remarks:
            bars.note(f"note: {text}")
    typer.echo(measured.estimate.verdict)
    if measured.step is not None:
        typer.echo(measured.step.verdict)
    following = measured.record["next"]
    typer.echo(" ".join(["Next:", following["text"], following["command"]]).strip())
    typer.echo(str(out / "report.html"))


def orders(text: str | None) -> Orders | None:
    """The orders of ``--ks``."""
    return None if text is None else Orders.parse(text, "--ks")
