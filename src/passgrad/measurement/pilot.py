"""Plans from a pilot: parts of the variance as a small measurement found them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.measurement.estimate import ConflictEstimate
from passgrad.measurement.planning import Components, Model, Plan, plan
from passgrad.measurement.planning_models import advantage_moments
from passgrad.stats.bands import Array
from passgrad.stats.intervals import Prompts


def pilot_model(
    estimate: ConflictEstimate,
    num_samples: int,
    *,
    answer_error: Any = None,
    second_order: Any = None,
    effect: Any = None,
) -> Model:
    r"""Parts of the variance from a pilot of M prompts with ``num_samples`` each.

    :param answer_error: The standard error at each k that comes from the answers alone, (K,). For a
        pilot of "new" prompts without it, nothing is assumed to be gained by more samples, which
        asks for more prompts than needed; fewer samples than in the pilot are then refused. A pilot
        of fixed prompts has nothing else.
    :param second_order: tau at each k, (K,), of
        :func:`passgrad.measurement.kernel.conflict_of_kernel`. Without it the whole measured
        variance is scaled as 1 / M, which is too much for more prompts than half of those of the
        pilot, and too little for fewer.
    :param effect: <g_k, g_1> to be seen, (K,); by default as the pilot found it. A pilot that is
        too small to show a conflict has an effect that is mostly noise: say what matters instead.

    Within a prompt the variance is scaled with n as that of the gradient estimate at each k, under
    the law of success rates of the pilot with scores of equal variance, right and wrong.
    """
    return _pilot(
        tuple(int(k) for k in estimate.ks),
        np.asarray(estimate.inner_product if effect is None else effect, dtype=np.float64),
        estimate.standard_error,
        len(estimate.success),
        num_samples,
        estimate.success,
        estimate.prompts,
        estimate.estimator,
        estimate.degrees,
        answer_error,
        second_order,
    )


def _pilot(
    ks: tuple[int, ...],
    effect: Array,
    error: Array,
    num_prompts: int,
    num_samples: int,
    success: Array,
    prompts: Prompts,
    estimator: str,
    degrees: Array,
    answer_error: Any,
    second_order: Any,
) -> Model:
    chosen = get_estimator(estimator)
    known = answer_error is not None or prompts == "fixed"
    tau = np.zeros(len(ks)) if second_order is None else np.asarray(second_order, dtype=float)
    fixed = prompts == "fixed"
    pilot_n = num_samples // 2 if fixed else num_samples
    whole = np.asarray(error, dtype=float) ** 2 * num_prompts
    # Measured: first / M + 2 second / M^2, the second as in `_parts`.
    whole = np.maximum(whole - (1.0 if fixed else 4.0) * tau / num_prompts, 0.0)
    if fixed:
        within, between = 2 * whole, np.zeros(len(ks))
    elif answer_error is not None:
        within = np.minimum(np.asarray(answer_error, dtype=float) ** 2 * num_prompts, whole)
        between = whole - within
    else:
        within, between = np.zeros(len(ks)), whole
    # A rate of 0 or 1 in the sample is none of the prompt; Jeffreys' posterior mean.
    rates = torch.as_tensor((np.asarray(success) * num_samples + 0.5) / (num_samples + 1))

    def size(n: int) -> Array:
        moments = advantage_moments(chosen, rates, n, ks)
        noise = moments.along * (1 - rates).square() + moments.right + moments.wrong
        return np.asarray(torch.einsum("kkt->kt", noise).mean(-1))

    at_pilot = size(pilot_n)

    @lru_cache(maxsize=1024)
    def at(n: int) -> Components:
        ratio = size(n) / at_pilot if known and n != pilot_n else np.ones(len(ks))
        return Components(effect, between, within * ratio, tau, tau)

    source = f"From a pilot of {num_prompts} prompts with {num_samples} samples each."
    if not known:
        source += " It does not say what more samples a prompt would gain; nothing is assumed."
    dof = float(np.nanmedian(degrees)) if np.isfinite(degrees).any() else float(num_prompts)
    return Model(
        ks, at, source, chosen.spare, max(1.0, 3 * num_prompts / max(dof, 1.0)),
        2 if known else pilot_n,
    )  # fmt: skip


def pilot_from_folder(folder: str | Path, ks: Sequence[int] | None = None) -> Model:
    """:func:`pilot_model` of what ``passgrad measure`` has written.

    ``curve.parquet`` has k, inner_product, standard_error, degrees, and where they are there
    answer_error and second_order; ``prompts.parquet`` has success; ``measurement.json`` the
    settings. Raises UserError where there is no finished measurement, or not at these k.
    """
    import pandas as pd

    folder = Path(folder)
    path = folder / "measurement.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished measurement: run passgrad measure first")
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    curve = pd.read_parquet(folder / "curve.parquet")
    if ks is not None:
        missing = sorted(set(ks) - set(curve["k"].astype(int)))
        if missing:
            have = ", ".join(f"{k:g}" for k in curve["k"])
            raise UserError(f"the pilot was not measured at k = {missing[0]}: it has {have}")
        curve = curve[curve["k"].astype(int).isin(ks)]
    success = pd.read_parquet(folder / "prompts.parquet")["success"].to_numpy()
    columns = {name: curve[name].to_numpy() for name in curve.columns}
    return _pilot(
        tuple(int(k) for k in columns["k"]), columns["inner_product"], columns["standard_error"],
        len(success), int(settings["samples"]), success, settings["reading"],
        settings["estimator"], columns["degrees"], columns.get("answer_error"),
        columns.get("second_order"),
    )  # fmt: skip


def plan_from_pilot(
    pilot: str | Path,
    *,
    ks: Sequence[int] | None = None,
    power: float = 0.9,
    num_prompts: int | None = None,
    num_samples: int | None = None,
    tokens_per_completion: float = 1.0,
    effect: float | None = None,
    level: float = 0.95,
) -> Plan:
    """A plan from the folder of a measurement, in its reading of prompts: ``passgrad plan``.

    :param effect: The size of conflict to be seen as a share of ||grad J_1||^2, positive; by
        default what the pilot found.
    """
    model = pilot_from_folder(pilot, ks)
    text = (Path(pilot) / "measurement.json").read_text(encoding="utf-8")
    prompts: Prompts = json.loads(text)["settings"]["reading"]
    if effect is not None:
        one = pilot_from_folder(pilot, [1]).at(2).effect[0]
        if not (effect > 0 and one > 0):
            raise UserError(
                f"an effect of {effect:g} of a squared norm of {one:.3g}: both must be positive"
            )
        before = model.at
        size = np.full(len(model.ks), -effect * one)
        model = replace(model, at=lambda n: replace(before(n), effect=size))
    return plan(
        model, power=power, num_prompts=num_prompts, num_samples=num_samples,
        tokens_per_completion=tokens_per_completion, prompts=prompts, level=level,
    )  # fmt: skip
