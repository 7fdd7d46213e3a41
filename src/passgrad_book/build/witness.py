"""Does the code of today give the numbers that are stored?

Every experiment has a witness: a small run whose numbers lie in ``data/witnesses``. Code that was
seen before, on a processor and with packages that were seen before, is known by a line of
``data/attestations.jsonl``, and nothing runs. Other code runs the witness. The same numbers within
the tolerances of the columns add a line; other numbers are a failure that names the experiment and
the column: raise the version and compute the results again, or undo the change.
"""

from __future__ import annotations

import fcntl
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.progress import Progress, Silent
from passgrad_book.build import paths, results, sources
from passgrad_book.build.experiment import EXACT, HOMES, Experiment, Tolerance, find
from passgrad_book.build.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd

    Tables = Mapping[str, pd.DataFrame]

#: packages whose version can change a number of a witness
_PACKAGES = ("torch", "transformers", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class Attested:
    """What was found of one experiment.

    ``ran`` says whether the witness had to run, ``largest`` the largest gap as a share of what is
    allowed, in ``column``; ``failure`` is one line, None when all is in order.
    """

    experiment: str
    ran: bool
    largest: float = 0.0
    column: str = ""
    seconds: float = 0.0
    failure: str | None = None


# --- the stored numbers ---------------------------------------------------------------------------


def witness_path(name: str) -> Path:
    """The file of a witness."""
    return paths.witnesses() / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """The content of a witness; UserError where there is none or it cannot be read."""
    path = witness_path(name)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{paths.relative(path)} cannot be read ({error}); restore it with git, or write it: "
            f"passgrad witness {name} --write"
        ) from None


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(dict(columns))


def values_of(series: pd.Series) -> list[Any]:
    """A column as JSON holds it; numbers that are not finite, and values that miss, as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | list | tuple):
            return [plain(entry) for entry in value]
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:  # a parquet file gives None back where a frame had nan, and the reverse
            return "nan"
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    return [plain(value) for value in series.tolist()]


def _tolerance(experiment: Experiment, table: str, column: str, series: pd.Series) -> Tolerance:
    assert experiment.witness is not None
    named = experiment.witness.columns.get(f"{table}.{column}")
    if named is not None:
        return named
    return experiment.witness.tolerance if series.dtype.kind == "f" else EXACT


def write(name: str) -> dict[str, Any]:
    """Run the witness of an experiment and store its numbers; what was kept to replay stays."""
    experiment = find(name)
    if experiment.witness is None:
        raise UserError(f"experiment {name} has no witness: its tables are times")
    results.require_commit("a witness", "or undo them")
    old = read(name) if witness_path(name).is_file() else {}
    kept: dict[str, Any] = {}
    if experiment.witness.keep is not None:
        kept = old.get("kept") if old.get("version") == experiment.version else None  # type: ignore[assignment]
        kept = kept or {
            table: {column: values_of(frame[column]) for column in frame}
            for table, frame in experiment.witness.keep().items()
        }
    tables = run(experiment, {"kept": kept})
    content = {
        "experiment": name,
        "version": experiment.version,
        "parameters": experiment.witness.parameters,
        "kept": kept,
        "tables": {
            table: {
                str(column): {
                    "values": values_of(frame[column]),
                    **asdict(_tolerance(experiment, table, str(column), frame[column])),
                }
                for column in frame
            }
            for table, frame in tables.items()
        },
    }
    if old.get("version") == experiment.version and "coverage" in old:
        content["coverage"] = old["coverage"]
    store(name, content)
    return content


def store(name: str, content: Mapping[str, Any]) -> None:
    """Write the file of a witness; UserError where the code is not committed."""
    results.require_commit("a witness", "or undo them")
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    witness_path(name).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(witness_path(name), (text + "\n").encode())


# --- comparing ------------------------------------------------------------------------------------


def compare(
    expected: Mapping[str, Mapping[str, Any]], tables: Tables
) -> Iterator[tuple[str, float, float]]:
    """Column by column: ``table.column``, the gap, and the gap that is allowed.

    The gap of numbers is the largest difference as a share of the largest absolute value of the
    column; of everything else it is 0 for equal and infinite for different. Tables and columns that
    are on one side only have an infinite gap.
    """
    for table in sorted(expected.keys() | tables.keys()):
        if table not in expected or table not in tables:
            yield table, math.inf, 0.0
            continue
        columns, frame = expected[table], tables[table]
        for column in sorted(columns.keys() | {str(name) for name in frame.columns}):
            name = f"{table}.{column}"
            if column not in columns or column not in frame.columns:
                yield name, math.inf, 0.0
                continue
            entry = columns[column]
            yield name, _gap(entry["values"], values_of(frame[column])), float(entry["tolerance"])


def _gap(before: list[Any], after: list[Any]) -> float:
    if before == after:
        return 0.0
    if len(before) != len(after) or not _are_numbers(before) or not _are_numbers(after):
        return math.inf
    old, new = np.array(before, dtype=float), np.array(after, dtype=float)
    finite = np.isfinite(old)
    if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
        return math.inf
    scale = np.abs(old[finite]).max(initial=0.0) or 1.0
    gap = float(np.abs(old[finite] - new[finite]).max(initial=0.0) / scale)
    if gap == 0 and all(type(x) is int for x in before + after):
        return math.inf  # whole numbers that float64 cannot tell apart
    return gap if math.isfinite(gap) else math.inf


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(x, int | float) or x in ("nan", "inf", "-inf") for x in values)


# --- attesting ------------------------------------------------------------------------------------


def state(experiment: Experiment) -> dict[str, Any]:
    """What an attestation is of: the code, the packages, and the features of the processor."""
    versions = provenance.versions()
    return {
        "experiment": experiment.name,
        "version": experiment.version,
        "digest": sources.digest([experiment.module]),
        "versions": {name: versions[name] for name in _PACKAGES if name in versions},
        "cpu_flags": provenance.cpu()["flags"],
    }


def attestations() -> list[dict[str, Any]]:
    """The lines of the log; UserError for one that cannot be read."""
    path = paths.attestations()
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(dict(json.loads(line)))
        except ValueError as error:
            raise UserError(
                f"{paths.relative(path)}, line {number}: {error}; restore it with git"
            ) from None
    return lines


@contextmanager
def _locked() -> Iterator[None]:
    """Two processes that meet the same new code run its witness once."""
    paths.build().mkdir(parents=True, exist_ok=True)
    with (paths.build() / "witness.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def attest(name: str, *, again: bool = False) -> Attested:
    """Whether the code of today gives the numbers of an experiment; runs its witness if need be.

    :param again: Run the witness also where the code is known.
    """
    experiment = find(name)
    if experiment.timing:
        return Attested(name, ran=False)
    if experiment.witness is None:
        return Attested(name, ran=False, failure=f"experiment {name} has no witness")
    now = state(experiment)

    def known() -> bool:
        return any(now.items() <= line.items() for line in attestations())

    if not again and known():
        return Attested(name, ran=False)
    with _locked():
        if not again and known():
            return Attested(name, ran=False)
        return _run(experiment, now)


def run(experiment: Experiment, content: Mapping[str, Any]) -> Tables:
    """The tables of a witness, computed by the code of today; ``content`` is its file."""
    if experiment.witness is None:
        raise UserError(f"experiment {experiment.name} has no witness: its tables are times")
    kept = {name: _frame(rows) for name, rows in content["kept"].items()}
    with one_thread():
        return experiment.witness.run(kept)


def _run(experiment: Experiment, now: Mapping[str, Any]) -> Attested:
    assert experiment.witness is not None
    name, mend = experiment.name, f"passgrad witness {experiment.name} --write"
    try:
        content = read(name)
    except UserError as error:
        return Attested(name, ran=False, failure=str(error))
    if content["version"] != experiment.version:
        return Attested(
            name,
            ran=False,
            failure=f"the witness of {name} is of version {content['version']}, the experiment of "
            f"{experiment.version}: {mend}",
        )
    if content["parameters"] != json.loads(json.dumps(experiment.witness.parameters)):
        return Attested(
            name, ran=False, failure=f"the witness of {name} has other parameters now: {mend}"
        )
    start = time.perf_counter()
    try:
        tables = run(experiment, content)
    except Exception as error:
        return Attested(
            name,
            ran=True,
            seconds=round(time.perf_counter() - start, 1),
            failure=f"experiment {name}: its witness stopped with {type(error).__name__}: {error}",
        )
    seconds = round(time.perf_counter() - start, 1)
    column, gap, allowed = max(
        compare(content["tables"], tables), key=lambda found: _share(found[1], found[2])
    )
    if not gap <= allowed:
        return Attested(
            name,
            True,
            _share(gap, allowed),
            column,
            seconds,
            f"experiment {name}: the code of today gives another {column}, off by "
            f"{gap:.2g} of its size where {allowed:.2g} is allowed: undo the change, or raise the "
            "version and compute its results again",
        )
    line = dict(now) | {
        "largest_gap": gap,
        "column": column,
        "seconds": seconds,
        "time": provenance.now(),
    }
    with paths.attestations().open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, sort_keys=True) + "\n")
    return Attested(name, True, _share(gap, allowed), column, seconds)


def _share(gap: float, allowed: float) -> float:
    return 0.0 if gap == 0 else gap / allowed if allowed > 0 else math.inf


def attest_all(progress: Progress | None = None, *, again: bool = False) -> list[Attested]:
    """:func:`attest` for every experiment."""
    progress, outcomes = progress or Silent(), []
    progress.stage("witnesses", len(HOMES))
    for name in HOMES:
        progress.note(f"witness of {name}")
        outcomes.append(attest(name, again=again))
        progress.advance()
    return outcomes
