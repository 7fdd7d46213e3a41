"""What the chapter on conflict-free updates stores of SmolLM2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from passgrad.ascent.directions import AdamMetric, Euclidean, FisherMetric, Metric
from passgrad.ascent.frontier import frontier
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build.experiment import SINGLE, experiment, model_input
from passgrad_book.experiments.conflict_free.frontier import until_conflict
from passgrad_book.experiments.conflict_free.metrics import prices
from passgrad_book.experiments.small_models.witness_model import witness_model
from passgrad_book.experiments.two_conventions import two_conventions_world

if TYPE_CHECKING:
    from pandas import DataFrame


def _start(
    *,
    model: str,
    seed: int,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    warmup_cosine: float,
    k: float,
) -> tuple[LanguageWorld, Tensor, DataFrame]:
    """The world, the first point on the way up pass@1 with a conflict, and the way."""
    world = two_conventions_world(
        model=model, num_prompts=num_prompts, num_examples=num_examples,
        hard_fraction=hard_fraction, seed=seed,
    )  # fmt: skip
    theta, warmup = until_conflict(
        world, k=k, step_size=warmup_step_size, steps=warmup_steps, cosine=warmup_cosine
    )
    return world, theta, warmup


def _label(parameters: Mapping[str, Any]) -> str:
    prefix = "" if parameters["step_size"] is None else "one-step-size-"
    return f"{prefix}seed-{parameters['seed']}"


@experiment(version=1, label=_label, inputs=model_input)
def frontier_language(
    *,
    model: str,
    seed: int,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    warmup_cosine: float,
    methods: Sequence[str],
    k: float,
    steps: int,
    length: float | None = None,
    step_size: float | None = None,
) -> Mapping[str, DataFrame]:
    """:func:`~passgrad.ascent.frontier.frontier` in the world of two conventions, from a point of
    :func:`~passgrad_book.experiments.conflict_free.frontier.until_conflict`.

    Tables: those of ``frontier``, and ``warmup``.
    """
    world, theta, warmup = _start(
        model=model, seed=seed, num_prompts=num_prompts, num_examples=num_examples,
        hard_fraction=hard_fraction, warmup_steps=warmup_steps,
        warmup_step_size=warmup_step_size, warmup_cosine=warmup_cosine, k=k,
    )  # fmt: skip
    tables = frontier(world, theta, methods, k=k, steps=steps, length=length, step_size=step_size)
    return {**tables, "warmup": warmup}


@experiment(version=1, label="seed-{seed}", inputs=model_input)
def metrics_language(
    *,
    model: str,
    seed: int,
    num_prompts: int,
    num_examples: int,
    hard_fraction: float,
    warmup_steps: int,
    warmup_step_size: float,
    warmup_cosine: float,
    methods: Sequence[str],
    k: float,
    gain: float,
    dampings: Sequence[float],
) -> Mapping[str, DataFrame]:
    """:func:`~passgrad_book.experiments.conflict_free.metrics.prices` at the start of
    :data:`frontier_language`, in the plain metric, in Adam's at its first step, and in the natural
    one with each relative damping. One table, ``prices``.
    """
    world, theta, _ = _start(
        model=model, seed=seed, num_prompts=num_prompts, num_examples=num_examples,
        hard_fraction=hard_fraction, warmup_steps=warmup_steps,
        warmup_step_size=warmup_step_size, warmup_cosine=warmup_cosine, k=k,
    )  # fmt: skip
    metrics: dict[str, Metric] = {"plain": Euclidean(), "Adam": AdamMetric()}
    metrics |= {f"natural, {value:g}": FisherMetric(value, relative=True) for value in dampings}
    return {"prices": prices(world, theta, methods, metrics, k=k, gain=gain)}


_SMALL: dict[str, Any] = {
    "model": witness_model, "seed": 0, "num_prompts": 2, "num_examples": 2, "hard_fraction": 0.3,
    "warmup_steps": 6, "warmup_step_size": 1.0, "warmup_cosine": -0.1, "k": 1000,
}  # fmt: skip
frontier_language.witnessed(
    **_SMALL, methods=["pass@k", "pcgrad", "annealed", "constrained"], steps=1, length=0.004,
    tolerance=SINGLE,
)  # fmt: skip
metrics_language.witnessed(
    **_SMALL,
    methods=["pass@k", "pcgrad", "constrained"],
    gain=0.01,
    dampings=[0.1],
    tolerance=SINGLE,
)
