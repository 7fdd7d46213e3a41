"""Tables with the columns of :data:`passgrad.rollouts.foreign_logs.PLAIN`."""

from __future__ import annotations

import re
from typing import Any

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import PLAIN, Log, Row, Sample, reward_of
from passgrad.rollouts.logged import LAW, check_law
from passgrad.rollouts.readers.values import ids, label, missing, number, refuse, setting, whole
from passgrad.tasks.json_lines import kind_of

_QUANTISED = re.compile(
    r"fp8|fp4|int8|int4|nf4|awq|gptq|bnb|bitsandbytes|gguf|w[48]a\d+|(?<![a-z])q[2-8](_|\b)", re.I
)


_LAW = (*LAW, "seed", "max_new_tokens")


def read_plain(log: Log) -> list[Sample]:
    """One sample a row."""
    weights = log.weights("reward")
    unknown = [name for name in log.columns if name not in (*PLAIN, *weights)]
    if unknown:
        raise UserError(
            f"{log.name}: unknown columns {', '.join(map(repr, unknown))}; the columns are "
            f"{', '.join(PLAIN)}, or --layout (layout=) names a program that wrote the file"
        )
    if not {"prompt", "messages"} & set(log.columns) and not log.lookup.by_id:
        log.need("prompt")
    if not {"completion", "completion_ids"} & set(log.columns):
        log.need("completion")
    return [_sample(log, row, weights) for row in log.rows]


def _sample(log: Log, row: Row, weights: dict[str, float]) -> Sample:
    cells, where = row.cells, row.where
    key = label(cells.get("id"), where, "id")
    engine = cells.get("engine")
    quantization = cells.get("quantization")
    token_ids = ids(cells.get("completion_ids"), where, text=row.text)
    completion = completion_text(cells.get("completion"), where)
    if completion == "" and token_ids is None:
        refuse(where, "an empty completion; give its token ids, or take it out")
    sample = Sample(
        where,
        key,
        prompt_of(log, row, key),
        completion,
        token_ids,
        reward_of(row, weights),
        answer_of(cells.get("answer"), where),
        label(cells.get("group"), where, "group") or "",
        number(cells.get("logprob"), where, "logprob", text=row.text),
        step=whole(cells.get("step"), where, "step", text=row.text),
        law=law_of(row),
        engine=None if missing(engine) else str(engine),
        quantised=precision(quantization, engine, said=not missing(quantization)),
    )
    if sample.logprob is not None and sample.logprob != sample.logprob:
        sample.logprob = None
    return log.ended(sample, cells.get("finish_reason"))


def prompt_of(log: Log, row: Row, key: str | None) -> str:
    """The prompt of a row, its chat as text, or that of the task with this id."""
    prompt = row.cells.get("prompt")
    if missing(prompt):
        prompt = row.cells.get("messages")
    if missing(prompt):
        known = log.lookup.by_id.get(key or "")
        if known is None:
            refuse(row.where, "no prompt; give prompt or messages, or an id of the task")
        return known.text
    return log.text(prompt, row.where, "prompt")


def completion_text(value: Any, where: str) -> str | None:
    """The text of a completion, None where there is none."""
    if missing(value):
        return None
    if not isinstance(value, str):
        refuse(where, f"completion is {kind_of(value)}; give its text or its token ids")
    return value


def answer_of(value: Any, where: str) -> str | None:
    """The reference of a row."""
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        refuse(where, f"answer is {kind_of(value)}; give text or a number")
    return value if isinstance(value, str) else repr(value)


def law_of(row: Row) -> dict[str, Any]:
    """The sampling law that a row states."""
    law: dict[str, Any] = {}
    for name in _LAW:
        cell = row.cells.get(name)
        if cell is not None:
            read = setting if name in ("temperature", "top_p") else whole
            law[name] = read(cell, row.where, name, text=row.text)
    if law:
        check_law(law, row.where)
    return law


def precision(quantization: Any, engine: Any, *, said: bool) -> bool | None:
    """Whether the engine was quantised: None where nothing says so."""
    if said and str(quantization).lower() not in ("", "none", "false"):
        return True
    if engine and _QUANTISED.search(str(engine)):
        return True
    return False if said else None
