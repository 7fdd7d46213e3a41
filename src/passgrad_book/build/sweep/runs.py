"""The runs of a sweep: one for each combination that its file names."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad_book.build import notebooks, paths
from passgrad_book.build.sweep.file import Entry, SweepFile


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One run of a sweep.

    ``given``: the values that the file names, in the types of the notebook's parameters; ``name``:
    of the folder of the run, the same for the same notebook, profile and values.
    """

    notebook: str
    profile: str
    given: dict[str, Any]
    name: str
    digest: str

    def record(self, folder: Path) -> Path:
        """The file that says that the run is done, where ``folder`` is that of the run."""
        return folder / f"{Path(self.notebook).stem}.json"

    def is_done(self, folder: Path) -> bool:
        """Whether the run has ended well there, with this code and these values."""
        try:
            entry = json.loads(self.record(folder).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(entry.get("exit") == 0 and entry.get("digest") == self.digest)


def runs_of(content: SweepFile, name: str) -> list[SweepRun]:
    """The runs of a sweep file, in its order; ``name`` of the file, for messages.

    :raises UserError: An unknown notebook, profile or parameter, a value of another type, a grid
        without values, and a run that the file names twice.
    """
    made: dict[str, SweepRun] = {}
    for number, entry in enumerate(content.runs):
        for run in _of_entry(entry, f"{name}: runs.{number}"):
            if run.name in made:
                raise UserError(
                    f"{name}: runs.{number}: the run {_in_words(run)} is there twice; remove one"
                )
            made[run.name] = run
    if not made:
        raise UserError(f"{name}: runs: there is no run; add an entry with a notebook")
    return list(made.values())


def _of_entry(entry: Entry, where: str) -> Iterator[SweepRun]:
    for key, chosen in (("notebook", entry.notebook), ("profile", entry.profile)):
        if not chosen:
            raise UserError(f"{where}.{key}: there is none, so there is no run; name one")
    for key, values in entry.grid.items():
        if not values:
            raise UserError(f"{where}.grid.{key}: no values, so there is no run; add one")
    if entry.cases is not None and not entry.cases:
        raise UserError(f"{where}.list: it is empty, so there is no run; add an entry or remove it")
    cases = entry.cases or [{}]
    _check_once(entry, cases, where)
    combinations = [
        dict(zip(entry.grid, values, strict=True))
        for values in itertools.product(*entry.grid.values())
    ]
    for notebook, profile in itertools.product(_many(entry.notebook), _many(entry.profile)):
        for case, combination in itertools.product(cases, combinations):
            given = entry.parameters | case | combination
            try:
                yield _run(notebook, profile, given)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None


def _check_once(entry: Entry, cases: list[dict[str, Any]], where: str) -> None:
    """A value comes from one place."""
    listed = {key for case in cases for key in case}
    for one, other, keys in (
        ("parameters", "grid", entry.parameters.keys() & entry.grid.keys()),
        ("parameters", "list", entry.parameters.keys() & listed),
        ("grid", "list", entry.grid.keys() & listed),
    ):
        for key in sorted(keys):
            raise UserError(f"{where}: {key} is in {one} and in {other}; keep it in one of them")


def _run(notebook: str, profile: str, given: dict[str, Any]) -> SweepRun:
    path = notebooks.find(notebook)
    values = notebooks.resolve(path, profile, given)
    text = json.dumps(values, sort_keys=True).encode()
    name = f"{path.stem}-{profile}-{hashlib.sha256(text).hexdigest()[:8]}"
    # A notebook of the project goes by its name, so that another machine finds it too.
    known = path.parent == paths.notebooks().resolve()
    return SweepRun(
        notebook=path.name if known else str(path),
        profile=profile,
        given={key: values[key] for key in given},
        name=name,
        digest=notebooks.run_digest(path, profile, given),
    )


def _many(one: str | list[str]) -> list[str]:
    return [one] if isinstance(one, str) else one


def _in_words(run: SweepRun) -> str:
    values = ", ".join(f"{key}={value!r}" for key, value in run.given.items())
    return f"{Path(run.notebook).stem}, {run.profile}{', ' if values else ''}{values}"
