"""Results that are kept: tables with the circumstances that they were made in.

One result is one JSON record and one parquet file a table. Results that ship with the project lie
in ``data/results/<experiment>/<profile>/``; results that were computed here lie in
``_build/results``. ``data/manifest.json`` holds the hash of every file that ships, and of every
result the notebook that made it, its parameters, versions and device.

A result that ships is found by its :class:`Key`: experiment, version, parameters and inputs. The
code is not part of it: :mod:`passgrad_book.build.witness` says whether the code still gives the
numbers. A result that was computed here is read again as long as the code is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad_book.build import paths, sources

if TYPE_CHECKING:
    import pandas as pd

#: version of the layout of a record
SCHEMA = 2

#: names the profile that a notebook runs in, set by
#: :func:`passgrad_book.build.notebooks.run_notebook`
PROFILE_VARIABLE = "PASSGRAD_PROFILE"
#: names the notebook that runs, such as ``notebooks/toy.py``, set likewise
NOTEBOOK_VARIABLE = "PASSGRAD_NOTEBOOK"
#: names a file to which each result that is given out adds a line, set likewise where a run is kept
LOG_VARIABLE = "PASSGRAD_RESULT_LOG"
#: names a folder that stands for both places of results: what ships is then neither read nor
#: replaced (``passgrad reproduce``)
RESULTS_VARIABLE = "PASSGRAD_RESULTS"


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, such as those above, of this process and of those that it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class DamagedResult(UserError):
    """A file of a stored result that was edited, is missing, or cannot be read."""


@dataclass(frozen=True)
class Result:
    """Tables and the record of how they were made.

    ``origin`` is "stored" for a result that ships with the project and "computed" for one made
    here.
    """

    tables: dict[str, pd.DataFrame]
    record: dict[str, Any]
    origin: Literal["stored", "computed"]

    def __getitem__(self, table: str) -> pd.DataFrame:
        """A table by its name."""
        if table not in self.tables:
            raise UserError(
                f"no table {table!r} in this result; it has: {', '.join(sorted(self.tables))}"
            )
        return self.tables[table]

    def _repr_markdown_(self) -> str:
        entry = self.record
        where = {
            "stored": "read from the results that ship with the project",
            "computed": "computed here, since no stored result has these parameters",
        }[self.origin]
        if entry.get("asked"):
            where = "computed here, as asked"
        device = device_of(entry)
        inputs = "".join(
            f", {name} `{value[:12]}`" for name, value in entry["inputs"].items() if value
        )
        return (
            f"*Result `{entry['experiment']}/{entry['name']}` ({entry['profile']} profile): "
            f"{where}. "
            f"Made on {entry['time'][:10]} in {_duration(entry['wall_seconds'])} on {device}; "
            f"version {entry['version']}{inputs}.*"
        )

    def _repr_html_(self) -> None:
        return None


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min"


def _plain(value: Any) -> Any:
    """The value as JSON reads it back, so that parameters can be compared (tuples become lists)."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"a result's parameters must be plain JSON values, got {value!r}: {error}"
        ) from None


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


# --- the manifest ---------------------------------------------------------------------------------


def manifest_path() -> Path:
    """File with the hash and the size of every result that ships with the project."""
    return paths.results().parent / "manifest.json"


def manifest() -> dict[str, dict[str, Any]]:
    """Path relative to ``data/`` -> {"sha256", "bytes"}; empty when nothing is kept yet."""
    path = manifest_path()
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["files"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"data/manifest.json cannot be read ({error}); restore it with git"
        ) from None


#: what the manifest repeats of a record
_FACTS = (
    "schema",
    "version",
    "notebook",
    "parameters",
    "inputs",
    "versions",
    "commit",
    "time",
    "wall_seconds",
)


def facts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a result beside the hashes of its files."""
    return {name: entry.get(name) for name in _FACTS} | {"device": device_of(entry)}


def device_of(entry: Mapping[str, Any]) -> str:
    """The GPU of a record, or its processor and the number of its cores."""
    if entry.get("gpu"):
        return str(entry["gpu"])
    cpu = entry.get("cpu") or {}
    return f"{cpu.get('model')}, {cpu.get('cores')} cores"


def records() -> dict[str, dict[str, Any]]:
    """Path relative to ``data/`` -> record, of every result that ships and can be read."""
    base = manifest_path().parent
    found = {}
    for path in sorted(paths.results().rglob("*.json")) if paths.results().is_dir() else ():
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            continue  # verify() names it
        if isinstance(entry, dict):
            found[path.relative_to(base).as_posix()] = entry
    return found


@contextmanager
def _manifest_locked() -> Iterator[None]:
    """Two runs that store results at the same time write the manifest one after the other."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    paths.build().mkdir(parents=True, exist_ok=True)
    with (paths.build() / "manifest.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _update_manifest(changed: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
    with _manifest_locked():
        files = manifest()
        for name in removed:
            files.pop(name, None)
        for name, content in changed.items():
            files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        known = {name: facts(entry) for name, entry in records().items() if name in files}
        content = _json_bytes({"schema": SCHEMA, "files": files, "results": known})
        if not manifest_path().is_file() or manifest_path().read_bytes() != content:
            write_atomic(manifest_path(), content)


def refresh_manifest() -> None:
    """Write again what the manifest says of the results; the hashes of files stay as they are."""
    _update_manifest({})


def remove(name: str) -> list[str]:
    """Take results that ship out of the folder and the manifest; returns the names of the files.

    ``name`` is a path below ``data/results``: an experiment, a profile of it, or one result without
    its suffix. Raises UserError when the manifest has none of that name.
    """
    start = f"results/{name.strip('/')}"
    gone = [file for file in manifest() if file.startswith((f"{start}/", f"{start}."))]
    if not gone:
        raise UserError(f"data/manifest.json has no result {name!r}; see data/results")
    for file in gone:
        (manifest_path().parent / file).unlink(missing_ok=True)
    _update_manifest({}, removed=gone)
    return gone


def verify() -> list[str]:
    """What is wrong with the results that ship: one line a fault, empty when all files are as
    recorded.
    """
    base = manifest_path().parent
    listed = manifest()
    problems = []
    for name, entry in listed.items():
        path = base / name
        if not path.is_file():
            problems.append(f"data/{name} is missing: restore it with git, or run make results")
        elif provenance.file_sha256(path) != entry["sha256"]:
            problems.append(
                f"data/{name} was changed by hand: restore it with git, or run make results"
            )
    if paths.results().is_dir():
        for path in sorted(paths.results().rglob("*")):
            name = path.relative_to(base).as_posix()
            if path.is_file() and name not in listed:
                problems.append(
                    f"data/{name} is not in data/manifest.json: remove it, or run make results"
                )
    return problems


# --- one result -----------------------------------------------------------------------------------


def _locate(base: Path, experiment: str, profile: str, name: str) -> Path:
    for part in (experiment, profile, name):
        if not part or "/" in part or part.startswith("."):
            raise UserError(f"{part!r} cannot name a result: use letters, digits, - and _")
    return base / experiment / profile / f"{name}.json"


def _read_record(path: Path, *, expected: str | None) -> dict[str, Any]:
    content = path.read_bytes()
    where = paths.relative(path)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedResult(
            f"{where} was changed by hand: restore it with git, or recompute it (make results)"
        )
    try:
        entry = json.loads(content)
    except json.JSONDecodeError as error:
        raise DamagedResult(
            f"{where} is not JSON (line {error.lineno}); recompute it (make results)"
        ) from None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        raise DamagedResult(
            f"{where} has another layout than this version reads; recompute it (make results)"
        )
    return entry


def _read_tables(path: Path, entry: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    tables = {}
    for table, facts in entry["tables"].items():
        file = path.with_name(facts["file"])
        where = paths.relative(file)
        if not file.is_file():
            raise DamagedResult(
                f"{where} is missing: restore it with git, or recompute it (make results)"
            )
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise DamagedResult(
                f"{where} was changed by hand: restore it with git, or recompute it (make results)"
            )
        tables[table] = pd.read_parquet(io.BytesIO(content))
    return tables


@dataclass(frozen=True)
class Key:
    """What a stored result is of.

    ``inputs`` maps a name (model, problems, verifier) to the SHA-256 or the version of what was
    read, None for what is not at hand and so cannot be compared. ``modules`` hold the code that
    computes, which is compared for results of this machine alone.
    """

    experiment: str
    version: int
    name: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    modules: Sequence[str] = ()

    def fits(self, entry: Mapping[str, Any]) -> bool:
        """Whether a record is of this version, these parameters and these inputs."""
        kept = entry["inputs"]
        return (
            entry["version"] == self.version
            and entry["parameters"] == _plain(self.parameters)
            and kept.keys() == self.inputs.keys()
            and all(value is None or value == kept[name] for name, value in self.inputs.items())
        )


def _write(path: Path, entry: dict[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    files: dict[str, bytes] = {}
    entry["tables"] = {}
    for table, frame in tables.items():
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False, compression="zstd")
        file = f"{path.stem}.{table}.parquet"
        files[file] = buffer.getvalue()
        entry["tables"][table] = {
            "file": file,
            "rows": len(frame),
            "bytes": len(files[file]),
            "sha256": hashlib.sha256(files[file]).hexdigest(),
        }
    old = (
        {p.name for p in path.parent.glob(f"{path.stem}.*.parquet")}
        if path.parent.is_dir()
        else set()
    )
    for file, content in files.items():
        write_atomic(path.with_name(file), content)
    # The record comes last: it is what makes the tables a result.
    files[path.name] = _json_bytes(entry)
    write_atomic(path, files[path.name])
    for file in old - files.keys():
        path.with_name(file).unlink()
    data = manifest_path().parent
    if path.is_relative_to(data):
        folder = path.parent.relative_to(data).as_posix()
        _update_manifest(
            {f"{folder}/{file}": content for file, content in files.items()},
            removed=[f"{folder}/{file}" for file in old - files.keys()],
        )


def _asked_folder() -> Path | None:
    folder = os.environ.get(RESULTS_VARIABLE)
    return Path(folder) if folder else None


def _note(path: Path, origin: str, modules: Sequence[str] = ()) -> None:
    """A line in the log of :data:`LOG_VARIABLE`: where a record lies, or does not lie or does not
    fit ("absent"), and the code that computed it where that matters.
    """
    log = os.environ.get(LOG_VARIABLE)
    if log:
        entry = {"path": str(path.resolve()), "origin": origin, "modules": list(modules)}
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def load(experiment: str, name: str, *, profile: str = "cpu") -> Result:
    """A result that ships with the project, whatever the code is now; its files are checked by
    their hashes. Where ``PASSGRAD_RESULTS`` names a folder that holds it, it is read from there.
    """
    asked = _asked_folder()
    if asked is not None and (path := _locate(asked, experiment, profile, name)).is_file():
        entry = _read_record(path, expected=None)
        _note(path, "computed")
        return Result(_read_tables(path, entry), entry, "computed")
    path = _locate(paths.results(), experiment, profile, name)
    if not path.is_file():
        _note(path, "absent")
        raise UserError(
            f"no stored result {experiment}/{name} of the {profile} profile; run make results"
        )
    expected = manifest().get(path.relative_to(manifest_path().parent).as_posix(), {}).get("sha256")
    entry = _read_record(path, expected=expected)
    _note(path, "stored")
    return Result(_read_tables(path, entry), entry, "stored")


def obtain(
    key: Key,
    compute: Callable[[], Mapping[str, pd.DataFrame]],
    *,
    profile: str | None = None,
    recompute: bool = False,
) -> Result:
    """The result of a key: the one that ships, one that was computed here, or a new one.

    :param compute: Called without arguments when there is none; returns the tables by their names.
    :param profile: The profile of the run; by default the one that the notebook runs in, "cpu"
        outside one.
    :param recompute: Compute in any case, and replace the result that ships with the project.
    :returns: ``origin`` says where it came from. A result computed here is kept in
        ``_build/results``, so the next run reads it. Where ``PASSGRAD_RESULTS`` names a folder,
        results are read from it and kept in it alone, and ``recompute`` computes them again there.
    :raises UserError: When a stored file was edited by hand or is missing, when parameters are not
        plain values, and when a result is to be stored from a tree with changes that are not
        committed.
    """
    profile = profile or os.environ.get(PROFILE_VARIABLE) or "cpu"
    parameters = _plain(key.parameters)
    asked = _asked_folder()
    if not recompute and (known := lookup(key, profile, asked)) is not None:
        return known
    # Taken before the computation: it describes the code that runs now.
    entry = provenance.record()
    if recompute and asked is None:
        require_commit("a result", "or compute without recompute=true")
    digest = sources.digest(key.modules) if key.modules else None
    start = time.perf_counter()
    tables = dict(compute())
    entry |= {
        "schema": SCHEMA,
        "experiment": key.experiment,
        "version": key.version,
        "name": key.name,
        "profile": profile,
        "notebook": os.environ.get(NOTEBOOK_VARIABLE),
        "parameters": parameters,
        "inputs": dict(key.inputs),
        "digest": digest,
        "wall_seconds": round(time.perf_counter() - start, 3),
    }
    base = asked or (paths.results() if recompute else paths.local_results())
    path = _locate(base, key.experiment, profile, key.name)
    _write(path, entry, tables)
    _note(path, "computed", key.modules)
    return Result(tables, entry | {"asked": recompute}, "computed")


def require_commit(what: str, otherwise: str) -> None:
    """UserError unless the code that runs is that of a commit, from which alone ``what`` is stored;
    ``otherwise`` says what to do beside committing.
    """
    commit = provenance.git_commit()
    if commit is None or commit.endswith("-dirty"):
        raise UserError(
            f"{what} is stored from a commit alone, and src or notebooks hold changes that are not "
            f"committed: commit them, {otherwise}"
        )


def lookup(key: Key, profile: str, asked: Path | None) -> Result | None:
    """The stored or the computed result of a key, None where there is none."""
    files = manifest()
    places = [(paths.results(), "stored"), (paths.local_results(), "computed")]
    for base, origin in places if asked is None else [(asked, "computed")]:
        path = _locate(base, key.experiment, profile, key.name)
        if not path.is_file():
            _note(path, "absent")
            continue
        name = path.relative_to(manifest_path().parent).as_posix() if origin == "stored" else ""
        try:
            entry = _read_record(path, expected=files.get(name, {}).get("sha256"))
            fits = key.fits(entry)
            if fits and origin == "computed" and key.modules:
                fits = entry["digest"] == sources.digest(key.modules)
            if fits:
                result = Result(_read_tables(path, entry), entry, origin)  # type: ignore[arg-type]
                _note(path, origin, key.modules if origin == "computed" else ())
                return result
            _note(path, "absent")
        except (UserError, KeyError):
            # What ships must be sound. What was made here can simply be made again.
            if origin == "stored":
                raise
    return None
