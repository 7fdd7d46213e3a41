"""The report of a measurement that ``passgrad measure`` made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from passgrad.lm.rollouts import Rollouts
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.run import Measurement
from passgrad.report.content import CurveRow, PromptRow, ReportContent, Threshold

_NOT_MEASURED = (
    "Steps that are not small: the inner product is the slope of pass@1 along the gradient of "
    "pass@k, at the weights as they are.",
    "The metric of an optimiser: Adam and its like scale the parameters one by one, and the "
    "inner product of what they apply may have another sign.",
    "The parts of the model: how much of the product lies in which layers.",
)


def content_of(measurement: Measurement) -> ReportContent:
    """What the report of a measurement shows.

    ``chosen_k`` is the order with the most negative product, in units of its standard error.
    """
    estimate, record = measurement.estimate, measurement.record
    error = np.where(estimate.standard_error > 0, estimate.standard_error, np.inf)
    chosen = float(estimate.ks[int((estimate.inner_product / error).argmin())])
    curve = [
        CurveRow(**{name: float(row[name]) for name in CurveRow.__dataclass_fields__})
        for row in estimate.to_frame().to_dict("records")
    ]
    return ReportContent(
        verdict=estimate.verdict,
        curve=curve,
        prompts=_prompts(measurement.rollouts, estimate),
        chosen_k=chosen,
        threshold=Threshold(
            float(estimate.threshold), float(estimate.threshold_low), float(estimate.threshold_high)
        ),
        line=[(float(k), float(y)) for k, y in zip(estimate.curve_ks, estimate.curve, strict=True)],
        settings=_flat(
            {
                k: v
                for k, v in record["settings"].items()
                if v is not None and not k.endswith("_digest")
            }
        ),
        provenance=_flat(record["provenance"]),
        not_measured=_NOT_MEASURED,
        warnings=measurement.remarks,
        level=estimate.level,
    )


def _prompts(rollouts: Rollouts, estimate: ConflictEstimate) -> list[PromptRow]:
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
            right=examples.get((name, True)),
            wrong=examples.get((name, False)),
        )
        for name, count, agreement, error in zip(
            rollouts.prompt_ids,
            rollouts.num_correct,
            estimate.agreement,
            estimate.agreement_error,
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
