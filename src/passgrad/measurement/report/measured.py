"""The report of a measurement that ``passgrad measure`` made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from passgrad.lm.rollouts import Rollouts
from passgrad.measurement.advice import advice, chosen_order
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.parts import PartsEstimate
from passgrad.measurement.realised import TakenStep
from passgrad.measurement.report.content import (
    UNKNOWN,
    CurveRow,
    LayerRow,
    PromptRow,
    ReportContent,
    StepRow,
)
from passgrad.measurement.run import Measurement
from passgrad.measurement.step import StepPrediction
from passgrad.stats.interval import Interval

_SMALL = (
    "Steps that are not small: the inner product is the slope of pass@1 along the gradient of "
    "pass@k, at the weights as they are."
)
_METRIC = (
    "The metric of an optimiser: Adam and its like scale the parameters one by one, and the "
    "inner product of what they apply may have another sign."
)
_PARTS = "The parts of the model: how much of the product lies in which layers."


def content_of(measurement: Measurement) -> ReportContent:
    """What the report of a measurement shows; the parts are those of its chosen order."""
    estimate, record = measurement.estimate, measurement.record
    curve = [
        CurveRow(
            float(k),
            _possible(estimate.interval[place]) if k == 1 else estimate.interval[place],
            estimate.cosines[place],
            float(estimate.unsolved_weight[place]),
        )
        for place, k in enumerate(estimate.ks)
    ]
    following = advice(estimate, measurement.folder)
    chosen, step = chosen_order(estimate), measurement.step
    prediction = step.prediction if isinstance(step, TakenStep) else step
    return ReportContent(
        verdict=estimate.verdict,
        curve=curve,
        prompts=_prompts(measurement.rollouts, estimate, chosen),
        chosen_k=float(chosen),
        threshold=estimate.crossing,
        line=[(float(k), float(y)) for k, y in zip(estimate.curve_ks, estimate.curve, strict=True)],
        layers=_layers(measurement.parts),
        step=_steps(step),
        step_k=float("nan") if prediction is None else float(prediction.along),
        step_verdict="" if step is None else step.verdict,
        settings=_flat(
            {
                k: v
                for k, v in record["settings"].items()
                if v is not None and not k.endswith("_digest")
            }
        ),
        provenance=_flat(record["provenance"]),
        not_measured=_not_measured(measurement),
        warnings=measurement.remarks,
        next_step=following.text,
        next_command=following.command,
        level=estimate.level,
    )


def _possible(squared_norm: Interval) -> Interval:
    """The ends of a squared norm, which is not negative; the page says so beside them."""
    names = ("low", "high", "band_low", "band_high")
    return replace(squared_norm, **{x: max(0.0, float(getattr(squared_norm, x))) for x in names})


def _not_measured(measurement: Measurement) -> list[str]:
    parts = measurement.parts
    found = []
    if not isinstance(measurement.step, TakenStep):
        found.append(_SMALL)
    if parts is None:
        found.append(_PARTS)
    if parts is None or len(parts.metrics) == 1:
        found.append(_METRIC)
    return found


def _layers(parts: PartsEstimate | None) -> list[LayerRow]:
    if parts is None:
        return []
    return [
        LayerRow(part.name, parts.interval[place], part.kind, float(parts.cosine[place]), metric)
        for place in np.ndindex(parts.inner_product.shape)
        for metric, part in [(parts.metrics[place[0]], parts.parts[place[2]])]
    ]


def _steps(step: StepPrediction | TakenStep | None) -> list[StepRow]:
    changes = {}
    if isinstance(step, TakenStep):
        realised, step = step.realised, step.prediction
        changes = {k: realised.change[place] for place, k in enumerate(realised.ks.tolist())}
    if step is None:
        return []
    return [
        StepRow(
            float(k), float(step.first.value[place]), float(step.second.value[place]),
            step.total[place], changes.get(k, UNKNOWN),
        )
        for place, k in enumerate(step.ks.tolist())
    ]  # fmt: skip


def _prompts(rollouts: Rollouts, estimate: ConflictEstimate, chosen: int) -> list[PromptRow]:
    texts: dict[str, tuple[str, str]] = {}
    examples: dict[tuple[str, bool], str] = {}
    columns = ("prompt_id", "prompt", "group", "completion", "reward")
    for name, text, group, answer, reward in zip(
        *(rollouts.table[column].to_pylist() for column in columns), strict=True
    ):
        texts.setdefault(name, (text, group))
        examples.setdefault((name, reward == 1), answer)
    return [
        PromptRow(
            id=name,
            prompt=texts[name][0],
            group=texts[name][1] or "",
            num_samples=rollouts.num_samples,
            num_correct=int(count),
            agreement=float(agreement),
            agreement_error=float(error),
            contribution=float(part),
            right=examples.get((name, True)),
            wrong=examples.get((name, False)),
        )
        for name, count, agreement, error, part in zip(
            rollouts.prompt_ids,
            rollouts.num_correct,
            estimate.agreement,
            estimate.agreement_error,
            estimate.contribution[estimate.ks.tolist().index(chosen)],
            strict=True,
        )
    ]


def _flat(content: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    """One level of names: the report shows a table of two columns."""
    rows: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{lead}{name}, ")
        else:
            rows[lead + name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return rows
