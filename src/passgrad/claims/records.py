"""The results that ship, as files: what a record must hold, and whether it is of this code."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, StringConstraints, ValidationError

from passgrad import paths, provenance, results
from passgrad.claims import columns
from passgrad.claims.schema import Strict
from passgrad.errors import UserError
from passgrad.stats.binomial import success_interval

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
    """The JSON file of one result; ``gpu``, ``model_sha256`` and ``sources`` where they apply."""

    layout: Literal[1] = Field(alias="schema")
    experiment: Label
    profile: Label
    name: Label
    notebook: Annotated[
        str, StringConstraints(pattern=r"^(notebooks/)?[0-9]{2}_[a-z0-9_]+(\.py)?$")
    ]
    parameters: dict[str, Any]
    seed: int | None = None
    modules: Annotated[list[str], Field(min_length=1)]
    digest: Digest
    sources: dict[str, str] | None = None
    model_sha256: Digest | None = None
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
    for source in sorted(paths.notebooks().glob("*.py")) if not notebook else ():
        if f'"{entry.get("experiment")}"' in source.read_text(encoding="utf-8"):
            notebook = f"notebooks/{source.name}"
            break
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
    return found


def stale(entry: Mapping[str, Any]) -> str | None:
    """Why a result is not of this code, None if it is: names the modules that changed."""
    try:
        if _digest(tuple(entry["modules"]), _stamp()) == entry["digest"]:
            return None
        now = results.source_digests(entry["modules"])
    except UserError as error:
        return f"a module of it is gone ({error})"
    before = entry.get("sources") or _sources_at(entry.get("commit"), tuple(now))
    if before is None:
        return "the code changed where it matters; the record does not say which modules"
    changed = sorted(
        {one for one in now if before.get(one) != now[one]} | (before.keys() - now.keys())
    )
    short = ", ".join(one.removeprefix("passgrad.") for one in changed[:4])
    more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
    return f"changed since: {short or 'modules that it no longer imports'}{more}"


def _stamp() -> tuple[tuple[str, int], ...]:
    """Changes when a source file does."""
    files = sorted(paths.source().rglob("*.py"))
    return tuple((str(file), file.stat().st_mtime_ns) for file in files)


@functools.lru_cache(maxsize=64)
def _digest(modules: tuple[str, ...], stamp: tuple[tuple[str, int], ...]) -> str:
    """Many results share their modules, and a digest takes half a second."""
    return provenance.digest(modules)


@functools.lru_cache(maxsize=32)
def _sources_at(commit: str | None, modules: tuple[str, ...]) -> dict[str, str] | None:
    """The digests of modules at a commit, for records that do not hold them; None without git."""
    if not commit:
        return None
    revision = commit.partition("-")[0]
    found = {}
    for module in modules:
        base = "src/" + module.replace(".", "/")
        for file in (f"{base}.py", f"{base}/__init__.py"):
            try:
                text = subprocess.run(
                    ["git", "-C", str(paths.root()), "show", f"{revision}:{file}"],
                    capture_output=True, text=True, check=True, timeout=20,
                ).stdout  # fmt: skip
            except (OSError, subprocess.SubprocessError):
                continue
            found[module] = provenance.code_digest(text)[:12]
            break
    return found or None


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
    """Gaps of all that the stored columns must satisfy: see :mod:`passgrad.claims.columns`.

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
