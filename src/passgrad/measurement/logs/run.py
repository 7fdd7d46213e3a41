"""From the reward log of a run to what it did to pass@k: ``passgrad logs``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.measurement.logs.compared import WindowChange, compare
from passgrad.measurement.logs.counting import Columns, read_visits
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.measurement.logs.weighing import selected, silent_table, weight_table
from passgrad.orders import Orders
from passgrad.progress import Progress, Silent
from passgrad.rollouts.readers.files import files_of
from passgrad.stats.binomial import check_level
from passgrad.stats.intervals import Prompts

#: windows of a log that has answers enough, and of one that has few
WINDOWS, FEW_WINDOWS = 4, 2
# Answers a prompt and window that four windows need.
_ENOUGH = 16
# Prompts that the largest order may leave out, as a share, before it is remarked on.
_FEW_LEFT_OUT = 0.1
#: with fewer prompts intervals at large k are too short
FEW_PROMPTS = 100


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """What a log says of a run."""

    visits: Visits
    whole: WindowChange
    """From the first window to the last; the verdict is about it."""
    changes: Sequence[WindowChange]
    """From each window to the next; of two windows there is one."""
    weights: pd.DataFrame
    """How pass@k weighs the prompts in the first window."""
    silent: pd.DataFrame
    """Groups without a gradient, by order."""
    remarks: tuple[str, ...]
    record: dict[str, Any]
    """The content of ``logs.json``."""

    @property
    def verdict(self) -> str:
        """One sentence."""
        return str(self.whole)

    def curve(self) -> pd.DataFrame:
        """One row a pair of windows and an order; the first pair is from first to last."""
        rows = [self.whole, *(self.changes if len(self.changes) > 1 else ())]
        return pd.concat([change.to_frame() for change in rows], ignore_index=True)


def logs(
    run: str | Path | Sequence[str | Path] | Visits,
    *,
    ks: int | Iterable[int] | None = None,
    windows: int | Sequence[Window] | None = None,
    out: str | Path | None = None,
    columns: Columns | None = None,
    reading: Prompts = "new",
    level: float = 0.95,
    false_discoveries: float = 0.05,
    resume: bool = False,
    progress: Progress | None = None,
) -> LoggedRun:
    """What a run did to pass@k at every k, from the rewards that it logged.

    :param run: A file, a folder or a pattern of what a trainer leaves, several of them, or visits.
    :param ks: Orders; by default powers of two up to half of the answers a prompt and window.
    :param windows: How many windows of equally many answers, or windows; 4, or 2 of a short log.
    :param out: A folder for the tables, the record and ``report.html``.
    :param columns: What the columns are called, where they are not known by name.
    :param reading: Whether the prompts stand for others like them ("new") or for themselves
        ("fixed").
    :param level: Confidence of the intervals and of the band.
    :param resume: Go on with what the folder holds: the counts are not read again.
    :raises UserError: For what the log lacks, windows of different sampling laws, an order beyond
        the answers, and a folder that holds something else.

    >>> import passgrad as pg
    >>> from passgrad.measurement.logs.visits import Visits
    >>> prompts, answers = list(range(20)), 8
    >>> run = Visits.of(prompts * 2, [0] * 20 + [1] * 20, answers, [2] * 20 + [4] * 20)
    >>> pg.logs(run, ks=[1]).whole.product.value.round(3)
    array([0.25])
    """
    begun = time.perf_counter()
    check_level(level)
    if not 0 < false_discoveries < 1:
        raise UserError(f"false_discoveries is {false_discoveries!r}; give a share in (0, 1)")
    progress = progress or Silent()
    settings = _settings(run, columns)
    folder = None if out is None else _claimed(Path(out), settings, resume)
    visits = _visits(run, columns, folder, progress)
    chosen = _windows(visits, windows)
    orders = Orders.of(ks) if ks is not None else _default_orders(visits, chosen)
    pairs = list(pairwise(chosen))
    progress.stage("comparing windows", len(pairs) + 1)

    def change(before: Window, after: Window) -> WindowChange:
        compared = compare(
            visits, before, after, orders, reading=reading, level=level,
            false_discoveries=false_discoveries,
        )  # fmt: skip
        progress.advance()
        return compared

    changes = [change(*pair) for pair in pairs]
    whole = changes[0] if len(pairs) == 1 else change(chosen[0], chosen[-1])
    n, c = visits.counts(chosen[0])
    enough = n >= max(orders)
    weights = weight_table(n[enough], c[enough], orders, level=level)
    silent = silent_table(visits, orders)
    result = LoggedRun(
        visits, whole, changes, weights, silent,
        tuple(_remarks(visits, whole, weights, silent, reading)), {},
    )  # fmt: skip
    result.record.update(
        _record(
            result,
            settings,
            chosen,
            {"reading": reading, "level": level, "false_discoveries": false_discoveries},
            time.perf_counter() - begun,
        )
    )
    if folder is not None:
        _write(folder, result)
    return result


def _visits(
    run: str | Path | Sequence[str | Path] | Visits,
    columns: Columns | None,
    folder: Path | None,
    progress: Progress,
) -> Visits:
    stored = None if folder is None else folder / "counts.parquet"
    if stored is not None and stored.is_file():
        return stored_visits(stored)
    visits = run if isinstance(run, Visits) else read_visits(run, columns, progress)
    if stored is not None:
        _store(stored, visits)
    return visits


def _store(path: Path, visits: Visits) -> None:
    table = pd.DataFrame(
        {
            "prompt": visits.prompt, "step": visits.step,
            "num_samples": visits.num_samples, "num_correct": visits.num_correct,
        }
    )  # fmt: skip
    prompts = {
        "prompt_ids": list(visits.prompt_ids),
        "groups": list(visits.groups),
        "texts": list(visits.texts),
        "laws": {
            name: {value: [steps.first, steps.last] for value, steps in values.items()}
            for name, values in visits.laws.items()
        },
    }
    write_atomic(path.with_name("prompts.json"), json.dumps(prompts, ensure_ascii=False).encode())
    write_atomic(path, table.to_parquet(index=False))


def stored_visits(path: Path) -> Visits:
    """The visits that a reading left in ``counts.parquet``."""
    try:
        table = pd.read_parquet(path)
        prompts = json.loads(path.with_name("prompts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): name another folder") from None
    laws = {
        name: {value: Window(*steps) for value, steps in values.items()}
        for name, values in prompts["laws"].items()
    }
    names = ("prompt", "step", "num_samples", "num_correct")
    prompt, step, n, c = (table[name].to_numpy(np.int64) for name in names)
    return Visits(
        prompt, step, n, c, prompts["prompt_ids"], prompts["groups"], prompts["texts"], laws,
    )  # fmt: skip


def _windows(visits: Visits, windows: int | Sequence[Window] | None) -> list[Window]:
    """The windows that are compared, in their order."""
    if windows is None:
        steps = len(np.unique(visits.step))
        answers = np.bincount(visits.prompt, weights=visits.num_samples)
        plenty = float(np.median(answers)) >= WINDOWS * _ENOUGH
        windows = min(WINDOWS if plenty else FEW_WINDOWS, steps)
    if isinstance(windows, int):
        return visits.split(windows)
    chosen = list(windows)
    if len(chosen) < 2:
        raise UserError("one window has no change; give at least 2, such as 0:11,24:35")
    return chosen


def _default_orders(visits: Visits, windows: Sequence[Window]) -> Orders:
    """Powers of two up to half of the answers that nearly every prompt has in a window."""
    least = []
    for before, after in pairwise(windows):
        n, n_after = visits.counts(before)[0], visits.counts(after)[0]
        shared = n[(n > 0) & (n_after > 0)]
        if not len(shared):
            raise UserError(
                f"no prompt has answers in both {before} and {after}; take fewer or wider windows "
                "(--windows)"
            )
        least.append(int(np.quantile(shared, _FEW_LEFT_OUT / 2)))
    largest = max(1, min(least) // 2)
    return Orders.of([2**j for j in range(largest.bit_length())])


def _remarks(
    visits: Visits,
    whole: WindowChange,
    weights: pd.DataFrame,
    silent: pd.DataFrame,
    reading: Prompts,
) -> list[str]:
    """What stands out, a sentence each."""
    remarks = []
    if selected(visits):
        remarks.append(
            "No group of the log is all right or all wrong, though many should be: such groups "
            "were left out. Rates from what is left are biased, and so is all that is said here; "
            "log every group that was drawn."
        )
    both = whole.num_prompts + whole.left_out
    if whole.left_out > _FEW_LEFT_OUT * both:
        remarks.append(
            f"{whole.left_out} of {both} prompts have no {max(whole.ks)} answers in {whole.before} "
            f"or none in {whole.after}: the change is that of the other {whole.num_prompts}. If a "
            "curriculum chose them by their outcome, it is not that of all."
        )
    if reading == "new" and whole.num_prompts < FEW_PROMPTS and max(whole.ks) > 1:
        remarks.append(
            f"With {whole.num_prompts} prompts, fewer than {FEW_PROMPTS}, the intervals at large k "
            "are somewhat too short."
        )
    heavy = weights[weights["never_solved"] > 0.5]
    if len(heavy):
        row = heavy.iloc[0]
        remarks.append(
            f"At k = {int(row['k'])} prompts without a right answer in {whole.before} carry "
            f"{row['never_solved']:.0%} of the weight of pass@k: they give no gradient, and what "
            "they will do is not seen here."
        )
    steep = silent[silent["silent"] > 0.75]
    if len(steep):
        row = steep.iloc[0]
        remarks.append(
            f"{row['silent']:.0%} of the groups would have no gradient of pass@{int(row['k'])}."
        )
    return remarks


def _settings(run: Any, columns: Columns | None) -> dict[str, Any]:
    """What the counts depend on: the files by name and size, and the columns."""
    if isinstance(run, Visits):
        shape = hashlib.sha256()
        for column in (run.prompt, run.step, run.num_samples, run.num_correct):
            shape.update(np.ascontiguousarray(column).tobytes())
        return {"visits": shape.hexdigest()[:20]}
    files = files_of(run)
    return {
        "files": [[path.name, path.stat().st_size] for path in files],
        "columns": asdict(columns or Columns()),
    }


def _claimed(path: Path, settings: dict[str, Any], resume: bool) -> Path:
    """The folder, which is made one of these settings, or found to be.

    :raises UserError: If it holds something else, or a reading and ``resume`` is not set.
    """
    known = path / "settings.json"
    if known.is_file():
        if not resume:
            raise UserError(
                f"{path} holds a reading of a log already: go on with it by resume (--resume), or "
                "name another folder"
            )
        if json.loads(known.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
            raise UserError(f"{path} was read from another log: name another folder")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is not empty and holds no reading of a log: name another folder")
    else:
        try:
            write_atomic(known, json.dumps(settings, indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): name another folder"
            ) from None
    return path


def _record(
    result: LoggedRun,
    settings: dict[str, Any],
    windows: Sequence[Window],
    options: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    findings = result.whole.prompts["finding"].value_counts()
    return {
        "kind": "logs",
        "verdict": result.verdict,
        "remarks": list(result.remarks),
        "windows": [[window.first, window.last] for window in windows],
        "ks": list(result.whole.ks),
        **options,
        "prompts": result.visits.num_prompts,
        "compared_prompts": result.whole.num_prompts,
        "visits": len(result.visits.step),
        "answers": int(result.visits.num_samples.sum()),
        "rose": int(findings.get("rose", 0)),
        "fell": int(findings.get("fell", 0)),
        "seconds": round(seconds, 2),
        "settings": settings,
        "provenance": provenance.record(),
    }


def _write(folder: Path, result: LoggedRun) -> None:
    from passgrad.measurement.logs.report import write_report

    tables = {
        "changes": result.curve(),
        "groups": result.whole.groups,
        "prompts": result.whole.prompts,
        "weights": result.weights,
        "silent": result.silent,
    }
    for name, table in tables.items():
        write_atomic(folder / f"{name}.parquet", table.to_parquet(index=False))
    write_report(result, folder / "report.html")
    content = json.dumps(result.record, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomic(folder / "logs.json", content.encode())
