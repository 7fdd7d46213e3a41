"""What a reader of a measurement has to know beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from passgrad.measurement.estimate import ConflictEstimate

#: below so many standard errors of ||grad J_1||^2 the intervals may be too short
WEAK = 3.0
#: the t law of an interval has so few degrees of freedom when few prompts carry its error
FEW = 5.0


def remarks(estimate: ConflictEstimate, incidents: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Sentences, the gravest first; none if nothing stands out."""
    return [
        *_signal(estimate),
        *_incidents(incidents),
        *_solved(estimate),
        *_carried(estimate),
    ]


def _signal(estimate: ConflictEstimate) -> list[str]:
    """The first order is that of pass@1 in every measurement that asks for it."""
    if estimate.ks[0] != 1 or not estimate.standard_error[0] > 0:
        return []
    ratio = float(estimate.inner_product[0] / estimate.standard_error[0])
    if ratio >= WEAK:
        return []
    return [
        f"The gradient of pass@1 is hardly seen: its squared norm is {ratio:.1f} standard errors "
        f"from 0. Below {WEAK:g} the intervals may hold the truth less often than they say, and "
        "cosines mean little; more prompts or more samples help."
    ]


def _incidents(incidents: Sequence[Mapping[str, Any]]) -> list[str]:
    if not incidents:
        return []
    reasons = list(dict.fromkeys(str(one["reason"]) for one in incidents))
    more = f", and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
    return [
        f"{len(incidents)} completions had no ordinary verdict and count as wrong: "
        f"{reasons[0]}{more}."
    ]


def _solved(estimate: ConflictEstimate) -> list[str]:
    total = len(estimate.success)
    never, always = int((estimate.success == 0).sum()), int((estimate.success == 1).sum())
    found = []
    if never:
        found.append(
            f"{never} of {total} prompts have no right answer: they are counted, "
            "with an estimated gradient of 0; more samples would show more of them."
        )
    if always:
        found.append(
            f"{always} of {total} prompts have right answers only: they are "
            "counted, with an estimated gradient of 0."
        )
    return found


def _carried(estimate: ConflictEstimate) -> list[str]:
    """Where the error of an order rests on a handful of prompts."""
    with np.errstate(invalid="ignore"):
        few = estimate.ks[estimate.degrees < FEW]
    if not few.size:
        return []
    return [
        f"The error at k = {', '.join(f'{k:g}' for k in few)} rests on a handful of prompts "
        "(variance_share in prompts.parquet names them); its interval is that much longer."
    ]
