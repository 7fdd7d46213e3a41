"""EvalPlus: the file of results, and the file of samples that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Log, Row, Sample
from passgrad.rollouts.readers.values import label, missing, refuse, shown
from passgrad.tasks.json_lines import kind_of

_STATUS = ("base_status", "plus_status")


def read_evalplus(log: Log) -> list[Sample]:
    """One sample a solution; the samples' own text where their file is given too."""
    results: list[Row] = []
    drawn: list[Row] = []
    for row in log.rows:
        if "eval" in row.cells:
            results += _results(row)
        else:
            (results if row.cells.keys() & set(_STATUS) else drawn).append(row)
    columns = _columns(log, results)
    verdicts: dict[tuple[str, str], float] = {}
    for row in results:
        solution = row.cells.get("solution")
        if isinstance(solution, str):
            reward = _reward(row, columns)
            if verdicts.setdefault((_task(row), solution), reward) != reward:
                refuse(row.where, "the same solution has two verdicts; give one file of results")
    return [_sample(log, row, verdicts) for row in drawn or results]


def _results(row: Row) -> Iterator[Row]:
    """The rows of a file of results: under ``eval`` a list for each task."""
    tasks = row.cells["eval"]
    if not isinstance(tasks, dict):
        refuse(row.where, f"eval is {kind_of(tasks)}; give the file as EvalPlus wrote it")
    for task, rows in tasks.items():
        where = f"{row.where.rpartition(', ')[0]}, {task}"
        if not isinstance(rows, list) or not all(isinstance(cells, dict) for cells in rows):
            refuse(where, "no list of results; give a file of EvalPlus 0.2 or later")
        for number, cells in enumerate(rows, start=1):
            yield Row(f"{where}, result {number}", {"task_id": task, **cells})


def _columns(log: Log, results: list[Row]) -> list[str]:
    """The verdicts that count: both for ``plus_status``, as EvalPlus does."""
    named = log.asked.weights(_STATUS)
    unknown = [name for name in named if name not in _STATUS]
    if unknown:
        raise UserError(
            f"{log.name}: the reward {unknown[0]!r} is none of EvalPlus; name base_status or "
            "plus_status by --reward (reward=)"
        )
    if named:
        return list(_STATUS) if "plus_status" in named else ["base_status"]
    if any(not missing(row.cells.get("plus_status")) for row in results):
        raise UserError(
            f"{log.name}: 2 columns may be the reward (base_status, plus_status); name it by "
            "--reward (reward=)"
        )
    return ["base_status"]


def _reward(row: Row, columns: list[str]) -> float:
    states = [row.cells.get(name) for name in columns]
    for name, state in zip(columns, states, strict=True):
        if not isinstance(state, str) or state.lower() not in ("pass", "fail", "timeout"):
            refuse(row.where, f"{name} is {shown(state)}; give pass, fail or timeout")
    return float(all(str(state).lower() == "pass" for state in states))


def _task(row: Row) -> str:
    task = label(row.cells.get("task_id"), row.where, "task_id")
    if task is None:
        refuse(row.where, "no task_id; give the file as EvalPlus wrote it")
    return task


def _sample(log: Log, row: Row, verdicts: Mapping[tuple[str, str], float]) -> Sample:
    task, where = _task(row), row.where
    known = log.lookup.by_id.get(task)
    if known is None:
        refuse(
            where,
            f"the prompt of {task!r} is not in the file; give --prompts (prompts=) with one of "
            "this id",
        )
    completion, solution = row.cells.get("completion"), row.cells.get("solution")
    for name, text in (("completion", completion), ("solution", solution)):
        if not missing(text) and not isinstance(text, str):
            refuse(where, f"{name} is {kind_of(text)}; give text")
    if missing(solution):
        solution = known.text + completion if isinstance(completion, str) else None
    if missing(completion) and isinstance(solution, str):
        if not solution.startswith(known.text):
            refuse(
                where,
                "the solution does not begin with the prompt, so what the model wrote is not known "
                "(EvalPlus cleans its answers); give samples with their completion",
            )
        completion = solution.removeprefix(known.text)
    if not isinstance(completion, str):
        refuse(where, "no completion and no solution; give the samples as they were drawn")
    reward = verdicts.get((task, str(solution)))
    return Sample(where, task, known.text, completion, reward=reward, engine="evalplus")
