"""Times of passes and of drawing on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from passgrad_book.build.experiment import experiment, model_input
from passgrad_book.experiments.cost.runs import depth_tables, machine_tables

if TYPE_CHECKING:
    from pandas import DataFrame


@experiment(version=1, label="layers-{layers}", inputs=model_input, timing=True)
def cost_passes(
    *, model: str, layers: int, sizes: Sequence[Sequence[int]]
) -> Mapping[str, DataFrame]:
    """Seconds of the passes of the first ``layers`` layers of a model: table ``passes``."""
    return depth_tables(model, layers, [tuple(size) for size in sizes])  # type: ignore[misc]


@experiment(version=1, label="machine", inputs=model_input, timing=True)
def cost_machine(
    *, model: str, batches: Sequence[int], prompt_tokens: int, new_tokens: int
) -> Mapping[str, DataFrame]:
    """Seconds of drawing, and the rates of the machine: tables ``decoding`` and ``machine``."""
    return machine_tables(model, batches, prompt_tokens, new_tokens)
