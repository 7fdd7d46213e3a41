"""What a measurement leaves: its tables, and the record that says what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from passgrad import provenance
from passgrad.lm.rollouts import Rollouts
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.folder import Folder
from passgrad.measurement.parts import PartsEstimate
from passgrad.measurement.step import StepPrediction
from passgrad.rollouts.same_law import LawComparison

if TYPE_CHECKING:
    from pandas import DataFrame


def record_of(
    estimate: ConflictEstimate,
    step: StepPrediction | None,
    settings: Mapping[str, Any],
    remarks: Sequence[str],
    incidents: Sequence[Mapping[str, Any]],
    law: LawComparison | None,
    *,
    seconds: float,
    num_processes: int,
) -> dict[str, Any]:
    """The content of ``measurement.json``; numbers that are not finite are null.

    :param law: How the completions compare with the model, if that was looked at.
    """
    compared = None if law is None else {k: _plain(v) for k, v in asdict(law).items()}
    return {
        "verdict": estimate.verdict,
        "step": None if step is None else step.verdict,
        "threshold": _plain(estimate.threshold),
        "threshold_interval": [_plain(estimate.threshold_low), _plain(estimate.threshold_high)],
        "curve": _rows(estimate.to_frame()),
        "remarks": list(remarks),
        "incidents": list(incidents),
        "law": compared,
        "settings": dict(settings),
        "rollouts": {"prompts": len(estimate.success), "samples": settings["samples"]},
        "provenance": provenance.record(seed=settings["seed"])
        | {"seconds": round(seconds, 1), "processes": num_processes},
    }


def write_tables(
    folder: Folder,
    estimate: ConflictEstimate,
    parts: PartsEstimate | None,
    step: StepPrediction | None,
    rollouts: Rollouts,
    record: Mapping[str, Any],
) -> None:
    """All tables, and behind them the record."""
    folder.write_table("curve", estimate.to_frame())
    folder.write_table("prompts", prompts_frame(estimate, rollouts))
    if parts is not None:
        folder.write_table("parts", parts.to_frame())
    if step is not None:
        folder.write_table("step", step.to_frame())
    rollouts.write(folder.path / "rollouts.parquet")
    folder.finish(record)


def prompts_frame(estimate: ConflictEstimate, rollouts: Rollouts) -> DataFrame:
    """The table of prompts with their names and groups."""
    columns = (rollouts.table[name].to_pylist() for name in ("prompt_id", "group"))
    groups = dict(zip(*columns, strict=True))
    frame = estimate.prompts_frame()
    frame.insert(0, "prompt_id", rollouts.prompt_ids)
    frame.insert(1, "group", [groups[name] for name in rollouts.prompt_ids])
    frame.insert(2, "num_correct", rollouts.num_correct)
    return frame


def _rows(frame: DataFrame) -> Any:
    return json.loads(frame.to_json(orient="records", double_precision=15))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
