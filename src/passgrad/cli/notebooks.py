"""``passgrad run`` and ``passgrad book``: chapters executed, and pages built from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from passgrad.errors import UserError
from passgrad.plain_yaml import read_mapping


def run(
    notebook: Annotated[
        str,
        typer.Argument(
            help="A notebook of the project, by path, name or number: notebooks/toy.py, toy, 04."
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
    parameter_file: Annotated[
        Path | None,
        typer.Option(
            "--parameters-file", "-f", help="A YAML file of parameters; -p goes before it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.  [default: _build/runs/NAME/PROFILE]"),
    ] = None,
    html: Annotated[bool, typer.Option(help="Write the run as a page, NAME.html, too.")] = True,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="List the parameters and their values, and run nothing."),
    ] = False,
) -> None:
    """Execute a notebook with the parameters of a profile, and keep the run in one folder.

    NAME.ipynb, NAME.html, NAME.json (parameters, versions, machine, results with their digests,
    time) and a parquet file for each table: the results that the run read or made, and the numbers
    behind its figures. They get their names only when every cell has run. A cell that fails leaves
    NAME.failed.ipynb and NAME.failed.json, exit status 1, and the reason in the last line. An
    unknown parameter is an error.

    Example: passgrad run toy --profile smoke -p small_steps=50 --out /tmp
    """
    from passgrad_book.build import notebooks

    path = notebooks.find(notebook)
    known = notebooks.parameters_of(path)
    trees: dict[str, Any] = {} if parameter_file is None else read_mapping(parameter_file)
    for item in parameter or []:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(
                f"-p {item!r} is not NAME=VALUE; known parameters: {', '.join(known) or 'none'}"
            )
        trees[name] = text
    # An unknown name is left for resolve(), which lists the known ones.
    given = {
        name: notebooks.parse_value(tree, known[name]) if name in known else tree
        for name, tree in trees.items()
    }
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
    made = notebooks.run_to_folder(path, profile, given, output_dir=out, html=html)
    for file in made:
        typer.echo(str(file))


def book(
    profile: Annotated[str, typer.Option(help="Profile that the chapters run in.")] = "cpu",
) -> None:
    """Execute the chapters that changed, then build the pages.

    A chapter is executed again when its text, the code that it uses, the lock file or the stored
    results changed. Nothing changed: nothing is executed.
    """
    from passgrad_book.build import notebooks, paths
    from passgrad_book.build.results import PROFILE_VARIABLE

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
