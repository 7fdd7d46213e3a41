"""From the files of a run to its visits, a batch of rows at a time.

A row is a prompt at a step with one reward (``reward``), several (a list), or counts of answers
(``num_samples`` and ``num_correct``). What trainers write is known by its columns: TRL's
``completions_00001.parquet``, verl's ``1.jsonl``, the rollouts of passgrad, and plain tables.
Texts are read for telling prompts apart alone, so that memory does not grow with the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from passgrad.errors import UserError
from passgrad.measurement.logs.batches import batches
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.progress import Progress, Silent
from passgrad.rollouts.readers.files import files_of
from passgrad.tasks.tables import PANDAS_INDEX

PROMPT = (
    "prompt_id", "uid", "question_id", "task_id", "prompt", "messages", "input", "question",
    "problem", "id",
)  # fmt: skip
STEP = ("step", "global_step", "global_steps", "training_step", "iteration", "visit")
SAMPLES = ("num_samples", "samples", "n")
CORRECT = ("num_correct", "correct_count", "c")
REWARD = ("reward", "rewards", "score", "scores", "acc", "correct", "is_correct")
GROUP = ("group", "data_source", "source", "subject")
LAW = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens", "model")
# Columns of numbers that are no reward, in the logs of trainers.
_OTHER = ("advantage", "advantages", "logprob", "length", "seed", "index", "rank", "epoch")
_TEXT = 600


@dataclass(frozen=True)
class Columns:
    """What the columns of a log are called; None lets the name be found.

    ``threshold``: an answer is right where its reward is above it. Without one, rewards must be
    0 or 1.
    """

    prompt: str | None = None
    step: str | None = None
    reward: str | None = None
    group: str | None = None
    threshold: float | None = None


@dataclass
class _Counted:
    """What was read so far."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    laws: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    rows: int = 0


def read_visits(
    paths: str | Path | Sequence[str | Path],
    columns: Columns | None = None,
    progress: Progress | None = None,
) -> Visits:
    """The visits of a run from its log: a file, a folder of files, a pattern, or several of them.

    :raises UserError: For a file that is missing, cannot be read or has a column that is not
        understood, and for a row without prompt, step or reward: file and row are named.
    """
    columns, progress = columns or Columns(), progress or Silent()
    files = files_of(paths)
    counted = _Counted()
    progress.stage("counting right answers", len(files))
    for path in files:
        first = 1
        for batch in batches(path):
            _add(counted, batch, columns, _Place(path, first))
            first += batch.num_rows
        progress.advance()
    if not counted.rows:
        raise UserError(f"{files[0]}: no rows; give the log of a run")
    table = _merged(counted.tables)
    names = pd.Index(table["prompt"].unique())
    laws = {
        name: {value: Window(*steps) for value, steps in values.items()}
        for name, values in counted.laws.items()
    }
    step, n, c = (table[name].to_numpy(np.int64) for name in ("step", "n", "c"))
    visits = Visits(
        names.get_indexer(table["prompt"]).astype(np.int64),
        step,
        n,
        c,
        list(names),
        [counted.groups.get(name, "") for name in names] if counted.groups else [],
        [counted.texts.get(name, name) for name in names],
        laws,
    )
    if len(np.unique(visits.step)) < 2:
        raise UserError(
            f"{files[0]}: the log has one step; a change needs at least 2 "
            "(name the column of the steps by step_column, --step-column)"
        )
    return visits


def _merged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables).groupby(["prompt", "step"], sort=False, as_index=False).sum()


@dataclass(frozen=True)
class _Place:
    """Where a batch stands."""

    path: Path
    first: int

    def fail(self, row: int, text: str) -> NoReturn:
        raise UserError(f"{self.path}, row {self.first + row}: {text}")


def _add(counted: _Counted, batch: pa.RecordBatch, columns: Columns, place: _Place) -> None:
    """Count the rows of one batch."""
    if not batch.num_rows:
        return
    names = [name for name in batch.schema.names if not PANDAS_INDEX.fullmatch(name)]
    prompt_name = _chosen(names, columns.prompt, PROMPT, "prompt", place.path)
    prompt = _keys(batch.column(prompt_name), place, prompt_name)
    steps = _steps(batch, names, columns.step, place)
    n, c = _counts(batch, names, columns, place)
    frame = pd.DataFrame({"prompt": prompt, "step": steps, "n": n, "c": c})
    counted.tables.append(_merged([frame]))
    if len(counted.tables) >= 64:
        counted.tables = [_merged(counted.tables)]
    counted.rows += batch.num_rows
    fresh = frame.drop_duplicates("prompt").index
    group_name = columns.group or next((name for name in GROUP if name in names), None)
    if group_name is not None and group_name not in names:
        _no_column(group_name, names, place.path, "group")
    text_name = next((x for x in ("prompt", "messages", "input", "question") if x in names), None)
    for row in fresh:
        name = prompt[row]
        if name in counted.texts:
            continue
        shown = batch.column(text_name)[int(row)].as_py() if text_name else name
        counted.texts[name] = _shown(shown)
        if group_name:
            counted.groups[name] = str(batch.column(group_name)[int(row)].as_py() or "")
    _note_laws(counted, batch, names, steps)


def _shown(value: Any) -> str:
    """The beginning of a prompt: its text, or what the last message says."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return str(value)[:_TEXT]


def _note_laws(
    counted: _Counted, batch: pa.RecordBatch, names: Sequence[str], steps: np.ndarray
) -> None:
    for name in LAW:
        if name not in names:
            continue
        values = pd.Series(batch.column(name).to_pylist()).astype(str).to_numpy()
        seen = counted.laws.setdefault(name, {})
        for value in np.unique(values):
            at = steps[values == value]
            low, high = seen.get(value, [int(at.min()), int(at.max())])
            seen[value] = [min(low, int(at.min())), max(high, int(at.max()))]


def _chosen(
    names: Sequence[str], given: str | None, known: Sequence[str], what: str, path: Path
) -> str:
    name = given or next((name for name in known if name in names), None)
    if name is None or name not in names:
        _no_column(name or " or ".join(known[:3]), names, path, what)
    return name


def _no_column(name: str, names: Sequence[str], path: Path, what: str) -> NoReturn:
    raise UserError(
        f"{path}: no column {name}; name it by {what}_column (--{what}-column); the columns are "
        f"{', '.join(names)}"
    )


def _keys(column: pa.Array, place: _Place, name: str) -> np.ndarray:
    """What tells prompts apart, as text: (R,)."""
    if column.null_count:
        place.fail(int(np.flatnonzero(column.is_null())[0]), f"{name} is missing")
    if pa.types.is_nested(column.type):
        return np.array(
            [json.dumps(value, sort_keys=True) for value in column.to_pylist()], dtype=object
        )
    if pa.types.is_floating(column.type):
        return np.array([f"{value:g}" for value in column.to_pylist()], dtype=object)
    return np.asarray(pc.cast(column, pa.string()).to_numpy(zero_copy_only=False), dtype=object)


def _steps(
    batch: pa.RecordBatch, names: Sequence[str], given: str | None, place: _Place
) -> np.ndarray:
    """(R,) the step of each row: its column, or the number in the name of the file."""
    name = given or next((name for name in STEP if name in names), None)
    if name is None:
        numbers = re.findall(r"\d+", place.path.name.split(".")[0])
        if not numbers:
            _no_column(" or ".join(STEP[:3]), names, place.path, "step")
        return np.full(batch.num_rows, int(numbers[-1]), dtype=np.int64)
    if name not in names:
        _no_column(name, names, place.path, "step")
    values = _numbers(batch.column(name), place, name)
    wrong = ~np.isfinite(values) | (values != np.floor(values)) | (values < 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        place.fail(row, f"{name} is {batch.column(name)[row].as_py()!r}; give a whole number")
    return values.astype(np.int64)


def _counts(
    batch: pa.RecordBatch, names: Sequence[str], columns: Columns, place: _Place
) -> tuple[np.ndarray, np.ndarray]:
    """(R,) answers and right ones of each row."""
    samples = next((name for name in SAMPLES if name in names), None)
    correct = next((name for name in CORRECT if name in names), None)
    if columns.reward is None and samples and correct:
        n, c = (_numbers(batch.column(name), place, name) for name in (samples, correct))
        wrong = ~((n >= 1) & (c >= 0) & (c <= n) & (n % 1 == 0) & (c % 1 == 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            place.fail(row, f"{correct} is {c[row]:g} of {samples} {n[row]:g}; give whole numbers "
                       "0 <= right <= answers, and at least 1 answer")  # fmt: skip
        return n.astype(np.int64), c.astype(np.int64)
    name = _reward_column(batch, names, columns, place)
    column = batch.column(name)
    if pa.types.is_nested(column.type):
        if column.null_count:
            place.fail(int(np.flatnonzero(column.is_null())[0]), f"{name} is missing")
        sizes = np.asarray(pc.list_value_length(column).to_numpy(zero_copy_only=False), np.int64)
        if (sizes == 0).any():
            place.fail(int(np.flatnonzero(sizes == 0)[0]), f"{name} is an empty list")
        owner = np.repeat(np.arange(len(sizes)), sizes)
        right = _right(column.flatten(), columns, place, name, owner)
        return sizes, np.bincount(owner, weights=right, minlength=len(sizes)).astype(np.int64)
    right = _right(column, columns, place, name, np.arange(batch.num_rows))
    return np.ones(batch.num_rows, dtype=np.int64), right.astype(np.int64)


def _right(
    column: pa.Array, columns: Columns, place: _Place, name: str, row_of: np.ndarray
) -> np.ndarray:
    """Whether each reward counts as right, as 0 and 1."""
    values = _numbers(column, place, name, row_of)
    if not np.isfinite(values).all():
        row = int(row_of[np.flatnonzero(~np.isfinite(values))[0]])
        place.fail(row, f"{name} is missing or not finite; leave such rows out")
    if columns.threshold is not None:
        return (values > columns.threshold).astype(np.int64)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        bad = int(np.flatnonzero(wrong)[0])
        place.fail(
            int(row_of[bad]),
            f"{name} is {values[bad]:g}, neither 0 nor 1; say by threshold (--threshold) above "
            "which reward an answer is right",
        )
    return values.astype(np.int64)


def _reward_column(
    batch: pa.RecordBatch, names: Sequence[str], columns: Columns, place: _Place
) -> str:
    if columns.reward is not None:
        if columns.reward not in names:
            _no_column(columns.reward, names, place.path, "reward")
        return columns.reward
    known = next((name for name in REWARD if name in names), None)
    if known is not None:
        return known
    others = {*PROMPT, *STEP, *LAW, *GROUP, *_OTHER, *SAMPLES, *CORRECT}
    numbers = [
        name
        for name in names
        if name not in others
        and (
            pa.types.is_floating(batch.schema.field(name).type)
            or pa.types.is_integer(batch.schema.field(name).type)
            or pa.types.is_boolean(batch.schema.field(name).type)
        )
    ]
    if len(numbers) == 1:
        return numbers[0]
    if not numbers:
        _no_column("reward", names, place.path, "reward")
    raise UserError(
        f"{place.path}: {len(numbers)} columns may be the reward ({', '.join(numbers)}); name it "
        "by reward_column (--reward-column)"
    )


def _numbers(
    column: pa.Array, place: _Place, name: str, row_of: np.ndarray | None = None
) -> np.ndarray:
    """A column as float64, nan where it is null."""
    try:
        cast = pc.cast(column, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        for number, value in enumerate(column.to_pylist()):
            try:
                float(value)
            except (TypeError, ValueError):
                row = number if row_of is None else int(row_of[number])
                if value is not None:
                    place.fail(row, f"{name} is {str(value)[:60]!r}; give a number")
        raise UserError(
            f"{place.path}: {name} is {column.type}, not numbers; name another column by "
            "reward_column (--reward-column)"
        ) from None
    return np.asarray(cast.to_numpy(zero_copy_only=False), dtype=np.float64)
