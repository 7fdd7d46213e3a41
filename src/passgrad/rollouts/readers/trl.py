"""TRL's logs of completions, ``log_completions=True``."""

from __future__ import annotations

from typing import Any

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Log, Sample, reward_of
from passgrad.rollouts.readers.values import missing, number, refuse, whole
from passgrad.tasks.prompt_files import content_text

_COLUMNS = ("step", "mode", "prompt", "completion", "advantage", "image", "images")


def read_trl(log: Log) -> list[Sample]:
    """One sample a row."""
    log.need("prompt", "completion")
    weights = log.weights(None) or log.weights(_reward_column(log))
    samples = []
    for row in log.rows:
        cells, where = row.cells, row.where
        sample = Sample(
            where,
            None,
            log.text(cells.get("prompt"), where, "prompt"),
            log.text(_completion(cells.get("completion"), where), where, "completion"),
            reward=reward_of(row, weights),
            step=whole(cells.get("step"), where, "step", text=row.text),
        )
        samples.append(log.ended(sample, cells.get("finish_reason")))
    return samples


def _completion(value: Any, where: str) -> Any:
    """A conversational completion is one message of the assistant; more are turns of tools."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        refuse(
            where,
            f"completion has {len(value)} messages; give samples of a single turn of the model",
        )
    [message] = value
    if not isinstance(message, dict) or message.get("role") not in (None, "assistant"):
        refuse(where, "completion is no message of the assistant; give what the model wrote")
    split = [
        name
        for name, part in message.items()
        if name not in ("role", "content", "name") and not missing(part) and part not in ([], "")
    ]
    if split:
        refuse(
            where,
            f"completion is split into content and {', '.join(split)}, so the text that the model "
            "wrote is not known; log completions that are not parsed",
        )
    return content_text(message.get("content"), f"{where}: completion")


def _reward_column(log: Log) -> str | None:
    if "reward" in log.columns:
        return "reward"
    numeric = [name for name in log.columns if name not in _COLUMNS and _is_numeric(log, name)]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric and log.lookup.by_id:
        return None
    raise UserError(
        f"{log.name}: {len(numeric)} columns may be the reward ({', '.join(numeric) or 'none'}); "
        "name it by --reward (reward=), several to sum them, or give --prompts (prompts=) to judge"
    )


def _is_numeric(log: Log, name: str) -> bool:
    """Whether a column has numbers and nothing else."""
    some = False
    for row in log.rows:
        cell = row.cells.get(name)
        try:
            some |= number(cell, row.where, name, text=row.text) is not None
        except UserError:
            return False
    return some
