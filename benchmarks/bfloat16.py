"""How closely a measurement in bfloat16 agrees with one in float32.

What is measured: <grad J_k, grad J_1> of the embedded model on the two-conventions prompts, from
the same completions and the same halves of them, once with passes in float32 and once in bfloat16,
for several halves. The model in float32 has the rounded weights, as a checkpoint in bfloat16 has
when it is loaded in either: what differs is the arithmetic.

- gradient: the distance of the two gradients of pass@1, as a share of their length. The one in
  bfloat16 is added up in float32, row by row.
- slopes: the distance of the derivatives of all completions along the gradient, as a share of their
  length, and the factor between them, by method: forward mode, and central differences at several
  steps ||h v|| / ||theta||, each with weights that are rounded at random.
- product, by k: the mean of the difference of the two products (bias) and its standard deviation
  over the halves (noise), both as a share of the mean product in float32; and both in standard
  errors of the product, which are those of the prompts. ``limit`` is a tenth of a standard error.

Float32 is by central differences, which agree with forward mode to 1e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from _common import MODEL, Device, Figures, Model, Smoke, machine, progress, report

from passgrad import provenance
from passgrad.estimators import advantages
from passgrad.lm.central import Displacement
from passgrad.lm.completions import Completions
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.rollouts.sampling import sample
from passgrad.tasks.conventions import conventions

STEPS = (2e-6, 1e-5, 3e-5, 1e-4)


def halves(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """(M, n) bool: half of the completions of each prompt."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(shape, generator=generator).argsort(dim=1)
    return order < shape[1] // 2


def weights(rewards: torch.Tensor, half: torch.Tensor, k: int) -> torch.Tensor:
    """(M, n) coefficients of the gradient of pass@k from half of the completions."""
    made = torch.zeros_like(rewards)
    some = rewards[half].reshape(len(rewards), -1)
    made[half] = (advantages(some, k) / len(rewards)).flatten()
    return made


def differences(
    passes: CompletionPasses, vector: torch.Tensor, where: torch.Tensor, step: float
) -> torch.Tensor:
    """(M, n) central differences at one step, a share of the length of the weights."""
    along, origin = passes.lengths(vector)
    h = step * origin / along
    with Displacement(passes.moved(), passes.directions(vector)) as moved:
        ends = []
        for sign in (h, -h):
            moved.to(sign)
            ends.append(passes.logprobs(where))
    return (ends[0] - ends[1]) / (2 * h)


def compared(slopes: torch.Tensor, exact: torch.Tensor) -> dict[str, float]:
    """The distance of two vectors, and the factor between them."""
    return {
        "distance": float((slopes - exact).norm() / exact.norm()),
        "factor": float((slopes @ exact) / (exact @ exact)),
    }


def table(found: list[list[float]], exact: list[list[float]], error: list[list[float]], ks):
    """Bias and noise by k, from products (halves, K)."""
    made, true, spread = (torch.tensor(rows, dtype=torch.float64) for rows in (found, exact, error))
    away, size, unit = made - true, true.mean(0).abs(), spread.mean(0)
    columns = {
        "product": true.mean(0), "standard_error": unit,
        "bias": away.mean(0) / size, "noise": away.std(0) / size,
        "bias_in_errors": away.mean(0) / unit, "noise_in_errors": away.std(0) / unit,
    }  # fmt: skip
    return {str(k): {n: float(x[place]) for n, x in columns.items()} for place, k in enumerate(ks)}


def main(
    num_samples: Annotated[int, typer.Option(help="completions a prompt")] = 32,
    replications: Annotated[int, typer.Option(help="halves of the completions")] = 8,
    ks: str = "1,2,4,8,16",
    rollouts: Annotated[Path | None, typer.Option(help="completions drawn before")] = None,
    device: Device = "cpu",
    model_name: Model = MODEL,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Gradients, derivatives and products in bfloat16 against float32."""
    orders, steps = [int(k) for k in ks.split(",")], STEPS
    task = conventions()
    if smoke:
        task, num_samples, replications = conventions(num_prompts=(2, 2)), 8, 2
        orders, steps = [1, 2, 4], STEPS[:1]
    if rollouts is not None and rollouts.is_file():
        drawn = Rollouts.read(rollouts)
    else:
        progress("drawing")
        drawn = sample(
            model_name, task, num_samples=num_samples, engine="transformers",
            settings=Sampling(seed=0), device=device,
        )  # fmt: skip
        if rollouts is not None:
            drawn.write(rollouts)
    coarse, tokenizer = load_model(model_name, dtype=torch.bfloat16)
    fine, _ = load_model(model_name)
    fine.load_state_dict({name: one.float() for name, one in coarse.state_dict().items()})
    some = Completions.from_rollouts(drawn, tokenizer)
    rewards = torch.as_tensor(drawn.rewards, dtype=torch.float64)
    if smoke:  # a tiny model is never right
        rewards = (torch.arange(rewards.numel()).reshape(rewards.shape) % 3 == 0).double()
    low = CompletionPasses(coarse.to(device), some, rewards)
    high = CompletionPasses(fine.to(device), some, rewards)
    ways = ("forward", *(f"central {step:g}" for step in steps))
    products: dict[str, list[list[float]]] = {way: [] for way in ("float32", *ways)}
    errors: list[list[float]] = []
    figures: dict[str, Any] = {"gradient": [], "slopes": {way: [] for way in ways}}
    for number in range(replications):
        half = halves(rewards.shape, number)
        ones = weights(rewards, half, 1)
        g = {name: one.gradient(ones) for name, one in (("low", low), ("high", high))}
        figures["gradient"].append(float((g["low"] - g["high"]).norm() / g["high"].norm()))
        slopes = {"float32": high.directional(g["high"], "central", ~half)}
        slopes["forward"] = low.directional(g["low"], "forward", ~half)
        for step in steps:
            slopes[f"central {step:g}"] = differences(low, g["low"], ~half, step)
        for way in ways:
            pair = compared(slopes[way][~half], slopes["float32"][~half])
            figures["slopes"][way].append(pair)
        for way, values in slopes.items():
            each = [
                (weights(rewards, ~half, k) * values.nan_to_num()).sum(1).double() for k in orders
            ]
            products[way].append([float(one.sum()) for one in each])
            if way == "float32":
                errors.append([float(one.std() * len(one) ** 0.5) for one in each])
        progress(f"halves {number + 1}/{replications}")
    figures["logprobs"] = {
        "noise": float((low.logprobs() - high.logprobs()).std()),
        "tokens": sum(len(one.target) for one in some.sequences) / len(some.sequences),
    }
    figures["product"] = {
        way: table(products[way], products["float32"], errors, orders) for way in ways
    }
    worst = max(abs(row["bias_in_errors"]) for row in figures["product"]["forward"].values())
    noisiest = max(row["noise_in_errors"] for row in figures["product"]["forward"].values())
    figures["ratio"] = {"bias over a standard error": worst, "noise over one": noisiest}
    figures["limit"] = 0.1
    setting = {
        "model": model_name, "prompts": some.shape[0], "completions": some.shape[1],
        "distinct": len(some.sequences), "right": float(rewards.mean()), "device": device,
        "replications": replications,
    }  # fmt: skip
    report(
        {
            "machine": machine(), "smoke": smoke, "setting": setting, **figures,
            "provenance": provenance.record(seed=0),
        },
        json,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
