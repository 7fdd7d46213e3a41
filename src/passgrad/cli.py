"""The command line: ``passgrad models``, ``run``, ``book``, ``doctor``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import passgrad
from passgrad.errors import UserError

# typer carries its own copy of click from 0.27 on; its public BadParameter leads to the base
# classes.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="passgrad",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Measure when ascending pass@k costs pass@1, and build the book that explains it.",
    epilog="First time here? `passgrad doctor` says whether this machine is ready, "
    "`make book` does the rest.",
)
models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch and check the embedded models.",
)
app.add_typer(models_app, name="models")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"passgrad {passgrad.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    pass


@models_app.command("list")
def models_list() -> None:
    """Show the models by name, and whether each is in the cache."""
    from passgrad.lm import models

    for name, entry in models.MODELS.items():
        state = "in the cache" if models.is_fetched(name) else "not fetched"
        note = getattr(entry, "description", "")
        typer.echo(f"{name:16}  {state:14}  {note}".rstrip())
    typer.echo("Any name on the Hugging Face hub or any local folder can be loaded too.")


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A name of `passgrad models list`.")],
) -> None:
    """Fetch a model into the cache.

    Does nothing when it is there and intact, mends it when it is not.
    """
    from passgrad.lm import models

    models.fetch(name, progress=True)
    typer.echo(f"{name}: present and intact")


@models_app.command("check")
def models_check(
    name: Annotated[str, typer.Argument(help="A name of `passgrad models list`.")],
) -> None:
    """Check a model in the cache.

    Its files are compared with their hashes; exit 1 when something is wrong.
    """
    from passgrad.lm import models

    problems = models.check(name)
    for problem in problems:
        typer.echo(f"[fail] {problem}")
    if problems:
        raise UserError(f"{name} is not in order; run passgrad models fetch {name}")
    typer.echo(f"[ok]   {name}: present and intact")


@app.command()
def run(
    notebook: Annotated[
        str,
        typer.Argument(
            help="A notebook of the project, by path, name or number: "
            "notebooks/04_toy.py, 04_toy, 04."
        ),
    ],
    profile: Annotated[
        str,
        typer.Option(
            help="Set of parameter values in notebooks/profiles: smoke (seconds), cpu, gpu."
        ),
    ] = "cpu",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="One parameter; may be given several times."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the executed notebook.  [default: _build/notebooks/PROFILE]"),
    ] = None,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="List the parameters and their values, and run nothing."),
    ] = False,
) -> None:
    """Execute a notebook with the parameters of a profile.

    The executed notebook gets its name only when every cell has run. A cell that fails leaves
    NAME.failed.ipynb and exit status 1. An unknown parameter is an error.

    Example: passgrad run 04_toy --profile smoke -p small_steps=50 --out /tmp
    """
    from passgrad import notebooks

    path = notebooks.find(notebook)
    known = notebooks.parameters_of(path)
    given = {}
    for item in parameter or []:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(
                f"-p {item!r} is not NAME=VALUE; known parameters: {', '.join(known) or 'none'}"
            )
        # An unknown name is left for resolve(), which lists the known ones.
        given[name] = notebooks.parse_value(text, known[name]) if name in known else text
    values = notebooks.resolve(path, profile, given)
    if parameters:
        for name, value in values.items():
            typer.echo(
                f"{name} = {value!r}  # {known[name].annotation}: {known[name].comment}".rstrip(
                    ": "
                )
            )
        return
    typer.echo(f"{path.name}, profile {profile}", err=True)
    made = notebooks.run_notebook(path, profile, given, output_dir=out)
    typer.echo(str(made))


@app.command()
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


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="Profile that the chapters run in.")] = "cpu",
) -> None:
    """Execute the chapters that changed, then build the pages.

    A chapter is executed again when its text, the code that it uses, the lock file or the stored
    results changed. Nothing changed: nothing is executed.
    """
    from passgrad import notebooks, paths
    from passgrad.results import PROFILE_VARIABLE

    start = time.perf_counter()
    os.environ[PROFILE_VARIABLE] = profile
    chapters = notebooks.sources()
    ran = 0
    for number, chapter in enumerate(chapters, start=1):
        lead = f"[{number}/{len(chapters)}] {paths.relative(chapter)}"
        if notebooks.executed_path(chapter, profile).is_file():
            typer.echo(f"{lead}: unchanged, not executed")
            continue
        typer.echo(f"{lead}: executing ({profile} profile)")
        notebooks.ensure_executed(chapter, profile)
        ran += 1
    typer.echo("Building the pages")
    root = paths.root()
    # jupyter-book 1.x cannot be run as a module; its script lies beside the interpreter.
    script = Path(sys.executable).with_name("jupyter-book")
    if not script.is_file():
        raise UserError("jupyter-book is not installed in this environment; run make env")
    done = subprocess.run([str(script), "build", ".", "-n", "-W", "--keep-going"], cwd=root)
    if done.returncode:
        # Sphinx would not repeat its warnings for pages that it has read: the next build must read
        # all.
        shutil.rmtree(paths.build() / ".doctrees", ignore_errors=True)
        raise UserError("the pages were not built: the first WARNING or ERROR above says why")
    index = paths.build() / "html" / "index.html"
    if not index.is_file():
        raise UserError(
            "the build ended without _build/html/index.html; remove _build and run make book again"
        )
    minutes, seconds = divmod(int(time.perf_counter() - start), 60)
    typer.echo(
        f"{ran} of {len(chapters)} chapters executed, pages built, in {minutes}:{seconds:02d}."
    )
    typer.echo(f"Open {index.as_uri()}")


@app.command()
def doctor() -> None:
    """Say whether this machine is ready.

    Looks at versions, processor, memory, disk, model, vLLM and results; exit 1 when something is
    wrong.
    """
    from passgrad import doctor as module

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``passgrad``: one line and status 1 for a user's error, status 2 for a wrong
    call.
    """
    command = typer.main.get_command(app)
    try:
        status = command.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="passgrad",
            standalone_mode=False,
        )
    except UserError as error:
        typer.echo(f"passgrad: {error}", err=True)
        sys.exit(1)
    except _ClickException as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if message.startswith("Usage:"):  # called without arguments: the help, not a complaint
            typer.echo(message)
        elif isinstance(error, _UsageError):
            context = getattr(error, "ctx", None)
            where = context.command_path if context is not None else "passgrad"
            typer.echo(
                f"passgrad: {' '.join(message.split()).rstrip('.')}; see {where} --help", err=True
            )
        else:
            typer.echo(f"passgrad: {message}", err=True)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("passgrad: stopped", err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
