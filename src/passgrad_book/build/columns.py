"""Identities that the stored columns of every prompt must satisfy with the stored curves.

A result with a table of prompts (mass, success, agreement, weight_k) and a table of orders (k,
inner_product, ...) holds each number of the second twice: it follows from the first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

#: largest gap that is arithmetic: gradients of language models are float32; 2.4e-4 was the largest
#: in a model of 630 million weights
TOLERANCE = 3e-4

_PROMPTS = {"mass", "success", "agreement"}
_ORDERS = {"k", "inner_product"}


def pair(tables: Mapping[str, pd.DataFrame]) -> tuple[str, str] | None:
    """Names of the table of prompts and of the table of orders, None where a result has not both.

    Where several tables have the columns of orders, the one without a column of estimates counts.
    Both or neither may have a column of steps.
    """
    prompts = [name for name, one in tables.items() if set(one.columns) >= _PROMPTS]
    orders = [
        name
        for name, one in tables.items()
        if set(one.columns) >= _ORDERS and "standard_error" not in one.columns
    ]
    if len(prompts) != 1 or len(orders) != 1:
        return None
    steps = ["step"] if "step" in tables[orders[0]] else []
    if bool(steps) != ("step" in tables[prompts[0]]):
        return None
    return None if tables[orders[0]].duplicated([*steps, "k"]).any() else (prompts[0], orders[0])


def gaps(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Largest gap of each identity; empty for a result without these tables.

    ``inner_product``: E[w_k a] over the product of the norms. ``cosine``, ``mean_weight``,
    ``pass_at_k``, ``weight``: as they are. ``mean_agreement``: E[a] over ||grad J_1||^2.
    """
    names = pair(tables)
    if names is None:
        return {}
    prompts, orders = (tables[name] for name in names)
    if "step" in orders:
        return _worst_of_steps(prompts, orders)
    mass, p, a = (prompts[name].to_numpy(float) for name in ("mass", "success", "agreement"))
    k = orders["k"].to_numpy(float)
    weights = k[:, None] * (1 - p) ** (k[:, None] - 1)
    products = orders["inner_product"].to_numpy(float)
    at_1 = products[k == 1]
    norm = orders["norm"].to_numpy(float) if "norm" in orders else None
    found: dict[str, float] = {}
    if norm is not None and len(at_1):
        scale = norm * at_1[0] ** 0.5
        found["cosine"] = _gap(orders["cosine"], products / scale)
        found["mean_agreement"] = abs(float(mass @ a) / float(at_1[0]) - 1)
    else:
        scale = np.abs(weights) @ (mass * np.abs(a))
    found["inner_product"] = float(np.abs((weights @ (mass * a) - products) / scale).max())
    if "mean_weight" in orders:
        found["mean_weight"] = _gap(orders["mean_weight"], weights @ mass, relative=True)
    if "pass_at_k" in orders:
        found["pass_at_k"] = _gap(orders["pass_at_k"], (1 - (1 - p) ** k[:, None]) @ mass)
    columns = [f"weight_{order:g}" for order in k]
    if set(columns) <= set(prompts.columns):
        stored = prompts[columns].to_numpy(float).T
        found["weight"] = float((np.abs(stored - weights) / np.maximum(k, 1)[:, None]).max())
    found["mass"] = abs(float(mass.sum()) - 1)
    return found


def _worst_of_steps(prompts: pd.DataFrame, orders: pd.DataFrame) -> dict[str, float]:
    """The gaps of every step of an ascent, and of them the largest."""
    worst: dict[str, float] = {}
    for step, own in orders.groupby("step"):
        rows = prompts[prompts["step"] == step]
        tables = {"prompts": rows.drop(columns="step"), "orders": own.drop(columns="step")}
        for name, gap in gaps(tables).items():
            worst[name] = max(worst.get(name, 0.0), gap)
    return worst


def along_a_path(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The same for results along an ascent: a row a step and order, with the parts of families.

    ``parts``: they add up to the inner product, over the product of the norms. ``path_cosine``: it
    is the inner product over that. Rows in which a gradient has vanished have no cosine and are
    left out.
    """
    orders, path = tables.get("orders"), tables.get("path")
    needed = {"step", "inner_product", "norm", "cosine"}
    if orders is None or path is None or not needed <= set(orders.columns):
        return {}
    if not {"step", "norm_at_1"} <= set(path.columns):
        return {}
    orders = orders.dropna(subset="cosine")
    scale = orders["norm"] * orders["step"].map(path.set_index("step")["norm_at_1"])
    product = orders["inner_product"]
    found = {"path_cosine": float(((product / scale).clip(-1, 1) - orders["cosine"]).abs().max())}
    names = [name for name in orders.columns if name.startswith("part_")]
    if names:
        found["parts"] = float(((orders[names].sum(axis=1) - product) / scale).abs().max())
    return found


def along_a_training(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The same for training runs that keep p and agreement of every prompt at every step, with
    equal masses: ``training_pass_at_k``, and ``training_agreement``, E[a] less ||grad J_1||^2 over
    E|a|.
    """
    steps, prompts = tables.get("steps"), tables.get("prompts")
    if steps is None or prompts is None or not {"step", "p", "agreement"} <= set(prompts.columns):
        return {}
    found = {"training_pass_at_k": 0.0, "training_agreement": 0.0}
    for place, step in enumerate(steps["step"]):
        own = prompts[prompts["step"] == step]
        p = own["p"].to_numpy(float)
        for column in (one for one in steps.columns if one.startswith("pass@")):
            value = float((1 - (1 - p) ** float(column.removeprefix("pass@"))).mean())
            gap = abs(value - float(steps[column].iloc[place]))
            found["training_pass_at_k"] = max(found["training_pass_at_k"], gap)
        if "norm pass@1" in steps:
            a = own["agreement"].to_numpy(float)
            gap = abs(float(a.mean()) - float(steps["norm pass@1"].iloc[place]) ** 2)
            scale = float(np.abs(a).mean()) or 1.0
            found["training_agreement"] = max(found["training_agreement"], gap / scale)
    return found


def at_the_ends(tables: Mapping[str, pd.DataFrame], k: float | None) -> dict[str, float]:
    """The same for results that keep every prompt's success before and after several methods.

    ``start`` and ``end``: largest gap between pass@1 and pass@k of the path and of the prompts.
    """
    prompts, path = tables.get("prompts"), tables.get("path")
    columns = {"method", "mass", "success_start", "success_end"}
    if prompts is None or path is None or k is None or not columns <= set(prompts.columns):
        return {}
    if not {"method", "step", "pass_at_1", "pass_at_k"} <= set(path.columns):
        return {}
    found = {"start": 0.0, "end": 0.0}
    for method, rows in path.sort_values("step").groupby("method"):
        own = prompts[prompts["method"] == method]
        for place, name in ((0, "start"), (-1, "end")):
            success = own[f"success_{name}"].to_numpy(float)
            for order, column in ((1.0, "pass_at_1"), (k, "pass_at_k")):
                value = float(own["mass"].to_numpy(float) @ (1 - (1 - success) ** order))
                found[name] = max(found[name], abs(value - float(rows[column].iloc[place])))
    return found


def _gap(stored: pd.Series, computed: np.ndarray, relative: bool = False) -> float:
    gap = np.abs(stored.to_numpy(float) - computed)
    return float((gap / np.abs(computed)).max() if relative else gap.max())
