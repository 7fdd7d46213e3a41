"""One stored result computed again in full, and compared with what ships.

A witness is small; what it cannot see is a branch that the full run alone takes. An audit computes
a result as it was computed once, compares every column, and can note which share of the lines of
the full run the witness covers.
"""

from __future__ import annotations

import datetime
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad_book.build import paths, results, witness
from passgrad_book.build.experiment import Experiment, Tolerance, find
from passgrad_book.build.sources import module_file

#: file of src -> the lines that ran
Lines = dict[str, set[int]]


@dataclass(frozen=True)
class Audit:
    """What an audit found: for every column the gap and what is allowed, and the failures."""

    name: str
    seconds: float
    gaps: dict[str, tuple[float, float]]

    @property
    def failures(self) -> list[str]:
        """One line a column that differs by more than is allowed."""
        return [
            f"data/results/{self.name}: {column} computed again differs by {gap:.2g} of its size, "
            f"where {allowed:.2g} is allowed"
            for column, (gap, allowed) in self.gaps.items()
            if not gap <= allowed
        ]


def candidates(files: Mapping[str, str] | None = None) -> list[str]:
    """The stored results that can be computed again here: ``experiment/profile/name``.

    Times cannot be compared; a result that was made from a file of problems needs that file.

    :param files: Parameter, such as ``"gsm8k_path"``, or result and parameter
        (``"math_conflict/cpu/math.problems_path"``) -> its file.
    """
    found = []
    for path, entry in results.records().items():
        experiment = find(entry["experiment"])
        name = path.removeprefix("results/").removesuffix(".json")
        read = [one for one in experiment.files if entry["inputs"].get(one)]
        if not experiment.timing and all(
            _sha256(_file(name, one, files)) == entry["inputs"][one] for one in read
        ):
            found.append(name)
    return found


def _file(name: str, parameter: str, files: Mapping[str, str] | None) -> str:
    given = files or {}
    return given.get(f"{name}.{parameter}") or given.get(parameter) or ""


def _sha256(file: str) -> str | None:
    return provenance.file_sha256(Path(file)) if Path(file).is_file() else None


def of_the_day(names: Sequence[str], day: datetime.date) -> str:
    """The result whose turn it is: all of them come round, one a day."""
    if not names:
        raise UserError("no stored result can be computed again here")
    return names[day.toordinal() % len(names)]


def audit(name: str, files: Mapping[str, str] | None = None, *, note: bool = False) -> Audit:
    """Compute a stored result again and compare.

    :param name: ``experiment/profile/name``, as below ``data/results``.
    :param note: Store with the witness which share of the lines of this run it covers.
    :raises UserError: For a result that is not there or cannot be computed here.
    """
    experiment, parameters = _asked(name, files)
    if note:
        results.require_commit("a witness", "or audit without a note")
    _, profile, label = name.split("/")
    stored = results.load(experiment.name, label, profile=profile)
    small = _witness_lines(experiment) if note else {}
    start = time.perf_counter()
    full: Lines = {}
    if note:
        tables, full = _covered(lambda: experiment(**parameters))
    else:
        tables = experiment(**parameters)
    seconds = time.perf_counter() - start
    expected = {
        table: {
            str(column): {
                "values": witness.values_of(frame[column]),
                "tolerance": _allowed(experiment, f"{table}.{column}", frame[column].dtype.kind),
            }
            for column in frame
        }
        for table, frame in stored.tables.items()
    }
    gaps = {column: (gap, allowed) for column, gap, allowed in witness.compare(expected, tables)}
    if note:
        _note(experiment, name, small, full)
    return Audit(name, seconds, gaps)


def note_lines(name: str, files: Mapping[str, str] | None = None) -> float:
    """Store which share of the lines of a full run the witness covers, without the hours of one:
    the parameters of a stored result, through the model of two layers of the witnesses.

    Which lines run depends on the parameters and not on the weights, but for those that load the
    model, and for branches of a direction that the other model does not meet.

    :returns: The share.
    :raises UserError: As :func:`audit`.
    """
    from passgrad_book.experiments.small_models.witness_model import witness_model

    experiment, parameters = _asked(name, files)
    results.require_commit("a witness", "or leave the note out")
    if "model" not in parameters:
        raise UserError(f"{name} takes no model: audit it with --note")
    small = _witness_lines(experiment)
    _, full = _covered(lambda: experiment(**parameters | {"model": witness_model()}))
    return _note(experiment, name, small, full, model="witness model")


def _asked(name: str, files: Mapping[str, str] | None) -> tuple[Experiment, dict[str, Any]]:
    entry = results.records().get(f"results/{name}.json")
    if entry is None:
        raise UserError(f"there is no stored result {name!r}; see data/results")
    experiment = find(entry["experiment"])
    if experiment.timing:
        raise UserError(f"{name} holds times: they are not the same twice")
    parameters = dict(entry["parameters"])
    for one in experiment.files:
        parameters[one] = _file(name, one, files) if entry["inputs"].get(one) else ""
        if entry["inputs"].get(one) and not parameters[one]:
            raise UserError(f"{name} was made from a file of problems: give it, {one}=FILE")
    key = experiment.key(parameters)
    if not key.fits(entry):
        raise UserError(f"{name} was made from other inputs than those that are given")
    return experiment, parameters


def _allowed(experiment: Experiment, column: str, kind: str) -> float:
    full = experiment.full
    named: Tolerance | None = full.get(column) or full.get(column.split(".")[0])
    if named is not None:
        return named.tolerance
    return full["*"].tolerance if kind == "f" else 0.0


def _covered(run: Callable[[], Any]) -> tuple[Any, Lines]:
    """What ``run`` returns, and the lines of the project that it runs."""
    from coverage import Coverage

    tracer = Coverage(
        data_file=None, config_file=False, source=[str(paths.source())], concurrency="thread"
    )
    tracer.start()
    try:
        value = run()
    finally:
        tracer.stop()
    data = tracer.get_data()
    return value, {
        paths.relative(file): set(data.lines(file) or ()) for file in data.measured_files()
    }


def _witness_lines(experiment: Experiment) -> Lines:
    """The lines that the witness runs. It goes before the full run, which then imports nothing
    that the witness has imported: lines of imports are no lines of a computation.
    """
    for module in experiment.witness.replaces if experiment.witness else ():
        importlib.import_module(module)
    return _covered(lambda: witness.run(experiment, witness.read(experiment.name)))[1]


def _note(
    experiment: Experiment, name: str, small: Lines, full: Lines, model: str = "its own"
) -> float:
    """Keep with the witness which share of the lines of a full run it covers; returns it.

    Modules whose work a replay stands in for are left out, and named.
    """
    assert experiment.witness is not None
    left_out = {paths.relative(module_file(module)) for module in experiment.witness.replaces}
    counted = {file: lines for file, lines in full.items() if lines and file not in left_out}
    total = sum(len(lines) for lines in counted.values())
    missed = {
        file: len(lines - small.get(file, set()))
        for file, lines in sorted(counted.items())
        if lines - small.get(file, set())
    }
    share = 1 - sum(missed.values()) / total
    coverage = {
        "version": experiment.version,
        "result": name,
        "model": model,
        "lines": total,
        "share": round(share, 4),
        "missed": missed,
        "left_out": sorted(left_out),
    }
    witness.store(experiment.name, witness.read(experiment.name) | {"coverage": coverage})
    return share
