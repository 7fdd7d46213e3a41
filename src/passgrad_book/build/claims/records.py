"""The results that ship, as files: what a record must hold, and whether it can be read today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, StringConstraints, ValidationError

from passgrad.errors import UserError
from passgrad.stats.binomial import success_interval
from passgrad_book.build import columns, experiment, paths, results
from passgrad_book.build.claims.schema import Strict

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


class Processor(Strict):
    """The processor: its name, the features that change kernels, the cores in use."""

    model: str
    flags: list[str]
    cores: Annotated[int, Field(ge=1)]


class Table(Strict):
    """One parquet file."""

    file: str
    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(gt=0)]
    sha256: Digest


class Record(Strict):
    """The JSON file of one result; ``gpu`` where it applies."""

    layout: Literal[2] = Field(alias="schema")
    experiment: Label
    version: Annotated[int, Field(ge=1)]
    profile: Label
    name: Label
    notebook: Annotated[str, StringConstraints(pattern=r"^notebooks/[a-z0-9_]+\.py$")]
    parameters: dict[str, Any]
    inputs: dict[str, str | None]
    digest: Digest | None
    versions: dict[str, str]
    platform: str
    cpu: Processor
    gpu: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    commit: str | None
    time: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    wall_seconds: Annotated[float, Field(ge=0)]
    tables: Annotated[dict[str, Table], Field(min_length=1)]


def recompute(entry: Mapping[str, Any]) -> str:
    """The command that makes a result again."""
    notebook = entry.get("notebook")
    if not notebook:
        return "recompute it with its notebook"
    return f"passgrad run {Path(notebook).stem} --profile {entry.get('profile')} -p recompute=true"


def faults(name: str, entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with a record: its form, its place, what the manifest says of it."""
    try:
        Record.model_validate(entry)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(step) for step in fault["loc"]).replace("layout", "schema")
        if where == "notebook":
            return [f"data/{name} names no notebook that made it: {recompute(entry)}"]
        return [f"data/{name}: {where}: {fault['msg'].lower()}; {recompute(entry)}"]
    found = []
    place = f"results/{entry['experiment']}/{entry['profile']}/{entry['name']}.json"
    if place != name:
        found.append(f"data/{name} calls itself {place}: rename it, or recompute it")
    if not (paths.notebooks() / f"{Path(entry['notebook']).stem}.py").is_file():
        found.append(f"data/{name} was made by {entry['notebook']}, which is not there")
    found += _other_key(name, entry)
    return found


def _other_key(name: str, entry: Mapping[str, Any]) -> list[str]:
    """A line where the experiment of today would not read this result; empty where it would."""
    try:
        known = experiment.find(entry["experiment"])
    except UserError as error:
        return [f"data/{name}: {error}: remove it"]
    if entry["version"] != known.version:
        return [
            f"data/{name} is of version {entry['version']} of {known.name}, which is at version "
            f"{known.version}: {recompute(entry)}"
        ]
    given = dict(entry["parameters"]) | dict.fromkeys(known.files, "")
    try:
        key = known.key(given)
    except UserError as error:
        return [f"data/{name}: {error}; {recompute(entry)}"]
    if key.name != entry["name"]:
        return [f"data/{name} is called {key.name} by {known.name} now: {recompute(entry)}"]
    if not key.fits(entry):
        return [f"data/{name} has other inputs than {known.name} reads now: {recompute(entry)}"]
    return []


def manifest_faults(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Results of which the manifest says something else than their records."""
    import json

    try:
        content = json.loads(results.manifest_path().read_text(encoding="utf-8"))
        known = dict(content["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return ["data/manifest.json says nothing of the results: passgrad verify --write"]
    wrong = sorted(
        name
        for name in known.keys() | entries.keys()
        if known.get(name) != (results.facts(entries[name]) if name in entries else None)
    )
    return [
        f"data/manifest.json does not fit the record data/{name}: passgrad verify --write"
        for name in wrong
    ]


def identities(tables: Mapping[str, pd.DataFrame], entry: Mapping[str, Any]) -> dict[str, float]:
    """Gaps of all that the stored columns must satisfy: see
    :mod:`passgrad_book.build.columns`.

    ``interval``: the ends of the interval of a measured coverage, from it and the replications.
    """
    k = entry.get("parameters", {}).get("k")
    found = columns.gaps(tables) | columns.along_a_path(tables)
    found |= columns.at_the_ends(tables, k) | columns.along_a_training(tables)
    coverage = tables.get("coverage")
    count = entry.get("parameters", {}).get("replications")
    if coverage is not None and count and {"coverage", "low", "high"} <= set(coverage.columns):
        held = np.rint(coverage["coverage"].to_numpy(float) * count)
        ends = success_interval(held, np.full(len(held), count))
        stored = coverage[["low", "high"]].to_numpy(float).T
        found["interval"] = float(np.abs(np.stack(ends) - stored).max())
    return found
