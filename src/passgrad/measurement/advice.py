"""What to look at in a measurement, and what to do after it: a sentence, and what to type."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from passgrad.measurement.estimate import ConflictEstimate

#: a share of ||grad J_1||^2: what a plan looks for unless it is told otherwise
EFFECT = 0.1
_TRAINER = "PassKGRPOTrainer(..., k={})"


@dataclass(frozen=True)
class Advice:
    """``text`` says what and why; ``command`` is to be typed or written, or empty."""

    text: str
    command: str = ""


def advice(estimate: ConflictEstimate, folder: Path) -> Advice:
    """What the measurement in this folder leads to.

    A conflict: what to train instead. None at any order: plain pass@k. An open sign: how much more
    to measure, and of what.
    """
    if estimate.against.size:
        k = int(estimate.against[0])
        return Advice(
            f"A conflict is shown from k = {k} on. If pass@1 must not fall, train with the "
            'constrained update below; with "pcgrad" in its place both are to rise. If pass@1 does '
            f"not matter, plain pass@{k} will do. The recipe of the book compares them.",
            _TRAINER.format(f'ConflictFree({k}, "constrained")'),
        )
    largest = int(estimate.ks[-1])
    if not estimate.open_ks.size and largest > 1:
        return Advice(
            f"No conflict up to k = {largest}: train plain pass@k for any k up to there, and "
            "measure again later, since a conflict may come up along the way.",
            _TRAINER.format(largest),
        )
    return _more(estimate, folder)


def _more(estimate: ConflictEstimate, folder: Path) -> Advice:
    """The sign is open: what would settle it."""
    k = int(estimate.open_ks[-1]) if estimate.open_ks.size else 1
    if k == 1 or not estimate.squared_norm_at_1 > 0 or 1 not in estimate.ks:
        return Advice(
            "Too little is seen of the gradient of pass@1 to plan from: measure with several times "
            "as many prompts, k = 1 among the orders, and prompts that are solved now and then."
        )
    return Advice(
        f"The sign at k = {k} is open: the estimate is {_guess(estimate, k)}. "
        f"This says what it takes to see a conflict of {EFFECT:.0%} "
        f"of the squared length of the gradient of pass@1; {_of_what(estimate, k)}.",
        f"passgrad plan {shlex.quote(str(folder))} --ks {k} --effect {EFFECT:g}",
    )


def _guess(estimate: ConflictEstimate, k: int) -> str:
    """What an estimate whose band holds 0 leans to."""
    row = estimate.ks.tolist().index(k)
    value, error = float(estimate.inner_product[row]), float(estimate.standard_error[row])
    side = "negative" if value < 0 else "positive"
    if not error > 0:
        return "without an error"
    return f"{side}, {abs(value) / error:.1f} standard errors from 0, a guess and no finding"


def _of_what(estimate: ConflictEstimate, k: int) -> str:
    """Whether prompts or samples are too few."""
    row = estimate.ks.tolist().index(k)
    unsolved = float(estimate.unsolved_weight[row])
    if unsolved > 0.5:
        return (
            f"{unsolved:.0%} of the weight lies on prompts that were never solved, so more samples "
            "a prompt, or a smaller k, come first"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (estimate.answer_error[row] / estimate.standard_error[row]) ** 2
    if estimate.prompts == "fixed" or not share < 0.5:
        return "more samples a prompt lower its error"
    return (
        f"only {share:.0%} of the variance comes from the samples, so more prompts help, "
        "not more samples a prompt"
    )


def chosen_order(estimate: ConflictEstimate, largest: float = math.inf) -> int:
    """The order whose parts and step are of interest: that with the most negative product, in
    units of its standard error; not 1 where there is another. At most ``largest``, if there is one.
    """
    error = torch.as_tensor(estimate.standard_error)
    ratio = torch.as_tensor(estimate.inner_product) / error.where(error > 0, torch.inf)
    ks = torch.as_tensor(estimate.ks)
    ratio[ks > max(largest, float(ks[0]))] = torch.inf
    if ratio.isfinite().sum() > 1:
        ratio[ks == 1] = torch.inf
    return int(estimate.ks[int(ratio.argmin())])
