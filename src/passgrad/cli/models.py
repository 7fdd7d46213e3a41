"""``passgrad models``: the embedded models."""

from __future__ import annotations

from typing import Annotated

import typer

from passgrad.errors import UserError

models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch and check the embedded models.",
)


@models_app.command("list")
def models_list() -> None:
    """Show the models by name, and whether each is in the cache."""
    from passgrad.lm import models

    for name, entry in models.MODELS.items():
        state = "in the cache" if models.is_fetched(name) else "not fetched"
        note = getattr(entry, "description", "")
        typer.echo(f"{name:20}  {state:14}  {note}".rstrip())
    typer.echo("Any name on the Hugging Face hub or any local folder can be loaded too;")
    typer.echo("which architectures have been tried, and how they run: book/architectures.md.")


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A name of `passgrad models list`.")],
) -> None:
    """Fetch a model into the cache.

    Does nothing when it is there and intact, mends it when it is not.
    """
    from passgrad.cli.progress import Bars
    from passgrad.lm import models

    with Bars() as bars:
        models.fetch(name, progress=bars)
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
