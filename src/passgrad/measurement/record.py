"""What a measurement leaves: its tables, the record that says what it is, and remarks, which are
what a reader has to know beside the numbers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from passgrad import provenance
from passgrad.lm.rollouts import Rollouts
from passgrad.lm.rounding import LIMIT
from passgrad.measurement.advice import chosen_order
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.parts import PartsEstimate
from passgrad.measurement.realised import TakenStep
from passgrad.measurement.step import StepPrediction
from passgrad.measurement.store import Folder
from passgrad.rollouts.same_law import LawComparison

if TYPE_CHECKING:
    from pandas import DataFrame

#: below so many standard errors of ||grad J_1||^2 the intervals may be too short
WEAK = 3.0
#: from this share of the weight on prompts that were never solved on, it is said
UNSOLVED = 0.5
#: the t law of an interval has so few degrees of freedom when few prompts carry its error
FEW = 5.0


def record_of(
    estimate: ConflictEstimate,
    step: StepPrediction | TakenStep | None,
    settings: Mapping[str, Any],
    remarks: Sequence[str],
    incidents: Sequence[Mapping[str, Any]],
    law: LawComparison | None,
    *,
    seconds: float,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``measurement.json``; numbers that are not finite are null.

    :param law: How the completions compare with the model, if that was looked at.
    :param machine: Processes, device and what else of where it was computed.
    """
    compared = None if law is None else {k: _plain(v) for k, v in asdict(law).items()}
    return {
        "verdict": estimate.verdict,
        "step": None if step is None else step.verdict,
        "threshold": _plain(estimate.threshold),
        "threshold_interval": [_plain(estimate.threshold_low), _plain(estimate.threshold_high)],
        "chosen": {
            "k": chosen_order(estimate),
            "among": [int(k) for k in estimate.ks],
            "as": "the most negative product in units of its error; its band allows for the "
            "choice, its interval does not",
        },
        "curve": _rows(estimate.to_frame()),
        "remarks": list(remarks),
        "incidents": list(incidents),
        "law": compared,
        "settings": dict(settings),
        "rollouts": {"prompts": len(estimate.success), "samples": settings["samples"]},
        "provenance": provenance.record(seed=settings["seed"])
        | {"seconds": round(seconds, 1)}
        | {name: _plain(value) for name, value in machine.items()},
    }


def write_tables(
    folder: Folder,
    estimate: ConflictEstimate,
    parts: PartsEstimate | None,
    step: StepPrediction | TakenStep | None,
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


def remarks(
    estimate: ConflictEstimate,
    incidents: Sequence[Mapping[str, Any]] = (),
    rollouts: Rollouts | None = None,
) -> list[str]:
    """Sentences, the gravest first; none if nothing stands out."""
    return [
        *_signal(estimate),
        *_incidents(incidents),
        *([] if rollouts is None else _cut_off(rollouts)),
        *_solved(estimate),
        *_unsolved(estimate),
        *_carried(estimate),
    ]


def rounding_remark(share: float) -> list[str]:
    """What the rounding of bfloat16 does here, by :func:`passgrad.lm.rounding.rounding_of`."""
    if math.isnan(share):
        return []
    text = (
        f"In bfloat16 the squared length of a gradient and the derivatives along it differ by "
        f"{share:.1%}"
    )
    if share <= LIMIT:
        return [f"{text}: about so far the products may be off by rounding."]
    return [
        f"{text}, which is too much: a product that is small beside the two norms may have the "
        "wrong sign. Measure with dtype float32, over several devices with shard."
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
    reasons = Counter(str(incident["reason"]) for incident in incidents)
    [(first, times)] = reasons.most_common(1)
    others = len(reasons) - 1
    more = f" ({times} times), and {others} other reason{'s' * (others > 1)}" if others else ""
    return [
        f"{len(incidents)} completions had no ordinary verdict and count as wrong: {first}{more}."
    ]


def _cut_off(rollouts: Rollouts) -> list[str]:
    """Right answers that the limit of tokens cut off."""
    columns = (rollouts.table[name].to_pylist() for name in ("reward", "finish_reason"))
    ends = [end for reward, end in zip(*columns, strict=True) if reward == 1]
    cut = ends.count("length")
    if not cut:
        return []
    return [
        f"{cut / len(ends):.0%} of the right answers were cut off by the limit of tokens ({cut} of "
        f"{len(ends)}): what was judged is an unfinished text, and the rest might have taken it "
        "back. Raise --max-new-tokens (max_new_tokens=), or name a --stop (stop=)."
    ]


def _solved(estimate: ConflictEstimate) -> list[str]:
    total = len(estimate.success)
    never, always = int((estimate.success == 0).sum()), int((estimate.success == 1).sum())
    sentences = []
    if never:
        sentences.append(
            f"{never} of {total} prompts have no right answer: they are counted, "
            "with an estimated gradient of 0; more samples would show more of them."
        )
    if always:
        sentences.append(
            f"{always} of {total} prompts have right answers only: they are "
            "counted, with an estimated gradient of 0."
        )
    return sentences


def _unsolved(estimate: ConflictEstimate) -> list[str]:
    """Where most of the weight of an order lies on prompts that say nothing."""
    share = estimate.unsolved_weight
    most = [
        f"{s:.0%} at k = {k:g}" for k, s in zip(estimate.ks, share, strict=True) if s > UNSOLVED
    ]
    if not most:
        return []
    return [
        "Of the weight k(1 - p)^(k - 1) of pass@k an estimated "
        f"{', '.join(most)} lies on prompts without a right answer, which give no gradient here: "
        "the product is that of the others, and may change as these are solved."
    ]


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
