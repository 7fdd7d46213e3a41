"""The command line: ``passgrad models``, ``measure``, ``logs``, ``plan``, ``run``, ``sweep``,
``book``, ``verify``, ``witness``, ``audit``, ``reproduce``, ``doctor``.

One module a command, or a family of them; this one puts them together and turns errors into lines.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import passgrad
from passgrad.cli.claims import audit, reproduce, verify, witness
from passgrad.cli.doctor import doctor
from passgrad.cli.headings import Headed
from passgrad.cli.logs import logs
from passgrad.cli.measure import measure
from passgrad.cli.models import models_app
from passgrad.cli.notebooks import book, run
from passgrad.cli.plan import plan
from passgrad.cli.sweep import sweep
from passgrad.cli.train import train
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
app.add_typer(models_app, name="models")
for command in (
    measure,
    logs,
    plan,
    train,
    run,
    sweep,
    book,
    verify,
    witness,
    audit,
    reproduce,
    doctor,
):
    app.command(cls=Headed)(command)


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


# How to go on with what was stopped.
_AFTER_A_STOP = {
    "measure": "; what is done is kept: call it again with --resume",
    "train": "; what is done is kept: call it again",
    "sweep": "; runs that are done are kept: call it again",
    "book": "; chapters that are done are kept: call it again",
    "reproduce": "; commands that are done are kept: call it again",
}
_INTERRUPTED = 130
_REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space on that disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def _in_a_line(error: OSError) -> str:
    """The path, the reason and what to do."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if error.filename is None:
        return f"{reason} ({type(error).__name__})"
    remedy = _REMEDIES.get(error.errno or 0, "name another path, or give yourself access to it")
    return f"{os.fsdecode(error.filename)}: {reason}; {remedy}"


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
        status = _INTERRUPTED
    except BrokenPipeError:  # who reads has closed, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        typer.echo(f"passgrad: {_in_a_line(error)}", err=True)
        sys.exit(1)
    if status == _INTERRUPTED:  # some versions of typer make it a status
        given = sys.argv[1:] if arguments is None else arguments
        after = next((_AFTER_A_STOP[word] for word in given if word in _AFTER_A_STOP), "")
        typer.echo(f"passgrad: stopped{after}", err=True)
    sys.exit(status if isinstance(status, int) else 0)
