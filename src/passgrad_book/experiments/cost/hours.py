r"""From operations and bytes to hours, on machines that are described and not run.

A pass over completions is bound by operations: its time is their number over ``peak`` times
``utilisation``. A step of decoding reads every weight once for the whole batch and the cache of
every sequence, and computes 2 N operations a sequence; it takes the longer of the two times:

.. math:: t_{\text{step}} = \max\left(\frac{\text{weights} + B\,\text{cache}}
          {\text{bandwidth} \times \text{share}},\;
          \frac{B\, (2 N + 2 h V)}{\text{peak} \times \text{utilisation}}\right) .

What the machines say to each other is not in it, nor are starts, failures and the slowest sequence
of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from passgrad.errors import UserError
from passgrad_book.experiments.cost.operations import (
    SHAPES,
    Pass,
    Shape,
    Work,
    cache_bytes,
    forward_operations,
    measurement_units,
    training_units,
    vectors_bytes,
)

if TYPE_CHECKING:
    from pandas import DataFrame

_HOUR: Final = 3600.0
_GB: Final = 1e9


@dataclass(frozen=True)
class Machine:
    """Devices of one kind, and what is assumed of them.

    ``pass_peak``: operations a second of one device in the precision of the passes, of which
    ``pass_utilisation`` is reached (often called MFU). ``decode_peak``, ``decode_utilisation``: the
    same for sampling. ``bandwidth``: bytes a second of one device's memory, of which
    ``bandwidth_share`` is reached. ``memory``: bytes of one device.
    """

    name: str
    devices: int
    pass_peak: float
    pass_utilisation: float
    decode_peak: float
    decode_utilisation: float
    bandwidth: float
    bandwidth_share: float
    memory: float

    def __post_init__(self) -> None:
        shares = (self.pass_utilisation, self.decode_utilisation, self.bandwidth_share)
        if not all(0 < share <= 1 for share in shares):
            raise UserError(f"{self.name}: a share of a peak lies in (0, 1]; change it")
        if min(self.pass_peak, self.decode_peak, self.bandwidth, self.memory) <= 0:
            raise UserError(f"{self.name}: peaks, bandwidth and memory are positive; change them")
        if self.devices < 1:
            raise UserError(f"{self.name}: at least one device is needed")

    @property
    def pass_rate(self) -> float:
        """Operations a second in passes, all devices together."""
        return self.devices * self.pass_peak * self.pass_utilisation


#: one H100 SXM: peaks, bandwidth and memory of its data sheet, and shares that are assumed
H100: Final = Machine(
    "H100 80GB",
    devices=1,
    pass_peak=989e12,
    pass_utilisation=0.4,
    decode_peak=989e12,
    decode_utilisation=0.3,
    bandwidth=3.35e12,
    bandwidth_share=0.6,
    memory=80e9,
)


def pass_seconds(shape: Shape, work: Work, units: float, machine: Machine) -> float:
    """Wall seconds of ``units`` forward passes over these completions."""
    return units * forward_operations(shape, work) / machine.pass_rate


def largest_batch(
    shape: Shape, work: Work, machine: Machine, bytes_each: int = 2, share: float = 0.9
) -> int:
    """Sequences that one device decodes at once: what the weights leave of ``share`` of its memory
    over the cache of one whole sequence.

    Raises UserError where the weights leave no room for one.
    """
    room = share * machine.memory - vectors_bytes(shape, 1, bytes_each)
    each = cache_bytes(shape, 1, work.prompt_tokens + work.completion_tokens, bytes_each)
    if room < each:
        raise UserError(
            f"{shape.name} does not fit into {machine.memory / _GB:.0f} GB with one sequence; "
            "spread it over devices"
        )
    return int(room / each)


def decode_seconds(
    shape: Shape, work: Work, machine: Machine, batch: int | None = None, bytes_each: int = 2
) -> float:
    """Wall seconds to draw the completions: each device has all the weights and its share of the
    sequences, ``batch`` of them at a time (:func:`largest_batch` by default). Prompts are read in
    one pass, once each.
    """
    mine = math.ceil(work.completions / machine.devices)
    size = min(mine, largest_batch(shape, work, machine, bytes_each) if batch is None else batch)
    rate = machine.decode_peak * machine.decode_utilisation
    # On average, half of a completion is in the cache.
    seen = work.prompt_tokens + work.completion_tokens / 2
    moved = vectors_bytes(shape, 1, bytes_each) + cache_bytes(shape, size, seen, bytes_each)
    each = 2 * shape.matrices + 2 * shape.width * shape.vocabulary
    step = max(moved / (machine.bandwidth * machine.bandwidth_share), size * each / rate)
    rounds = mine / size
    prompts = 2 * shape.matrices * work.num_prompts * work.prompt_tokens
    return rounds * work.completion_tokens * step + prompts / (rate * machine.devices)


@dataclass(frozen=True)
class Memory:
    """Bytes a device, with the model spread over all of them for the passes and whole for
    decoding.
    """

    weights: float
    """Of the weights in the passes."""
    vectors: float
    """Of what a pass holds beside them: a gradient; a direction and a copy of the weights."""
    decoding: float
    """Weights and cache while completions are drawn."""


def memory(
    shape: Shape, work: Work, machine: Machine, *, batch: int, pass_bytes: int = 4
) -> Memory:
    """What a measurement holds on each device, activations left out."""
    share = 1 / machine.devices
    tokens = work.prompt_tokens + work.completion_tokens
    return Memory(
        weights=share * vectors_bytes(shape, 1, pass_bytes),
        vectors=share * vectors_bytes(shape, 2, pass_bytes),
        decoding=vectors_bytes(shape, 1, 2) + cache_bytes(shape, batch, tokens, 2),
    )


def job_hours(
    shape: Shape,
    work: Work,
    machine: Machine,
    *,
    units: float,
    steps: int = 1,
    batch: int | None = None,
) -> dict[str, float]:
    """Hours of the parts of a job that draws the completions of ``work`` and makes ``units``
    forward passes over them, ``steps`` times: ``samples``, ``passes``, and ``total``; ``tokens``
    that are drawn, and ``operations`` of the passes.

    :raises UserError: As :func:`largest_batch` does, where ``batch`` is not given.
    """
    drawn = steps * decode_seconds(shape, work, machine, batch) / _HOUR
    passed = steps * pass_seconds(shape, work, units, machine) / _HOUR
    return {
        "tokens": steps * work.predicted,
        "units": float(units),
        "operations": steps * units * forward_operations(shape, work),
        "samples": drawn,
        "passes": passed,
        "total": drawn + passed,
    }


def measurement_hours(
    shape: Shape,
    work: Work,
    machine: Machine,
    *,
    directions: int,
    method: Pass = "central",
    batch: int | None = None,
) -> dict[str, float]:
    """:func:`job_hours` of a measurement, with derivatives along ``directions`` gradients."""
    units = measurement_units(directions, method)
    return job_hours(shape, work, machine, units=units, batch=batch)


def training_hours(
    shape: Shape,
    work: Work,
    machine: Machine,
    *,
    steps: int,
    updates: int = 1,
    batch: int | None = None,
) -> dict[str, float]:
    """:func:`job_hours` of ``steps`` policy-gradient steps, each on ``work``."""
    units = training_units(updates)
    return job_hours(shape, work, machine, units=units, steps=steps, batch=batch)


def plan_table(models: Sequence[str], work: Work, machine: Machine, *, units: float) -> DataFrame:
    """What a job takes of models by their published names, a row each: :func:`job_hours`, and the
    GB that one device holds with the whole model on it: weights and caches in bfloat16 while it
    draws (:func:`largest_batch`), weights in bfloat16 and a gradient in float32 while it passes.

    :raises UserError: For a model whose shape is not known here (:data:`SHAPES`), and one that does
        not fit into the memory of a device.
    """
    import pandas as pd

    rows = []
    for name in models:
        short = name.rpartition("/")[2]
        if short not in SHAPES:
            raise UserError(f"no shape is known for {name!r}; known are {', '.join(SHAPES)}")
        shape = SHAPES[short]
        batch = largest_batch(shape, work, machine)
        hours = job_hours(shape, work, machine, units=units, batch=batch)
        tokens = work.prompt_tokens + work.completion_tokens
        gradient = vectors_bytes(shape, 1, 2) + vectors_bytes(shape, 1, 4)
        rows.append(
            {
                "model": short,
                "parameters (10^9)": shape.parameters / _GB,
                "weights (GB)": vectors_bytes(shape, 1, 2) / _GB,
                "answers at a time": batch,
                "their caches (GB)": cache_bytes(shape, batch, tokens) / _GB,
                "weights and gradient (GB)": gradient / _GB,
                "tokens (10^6)": hours["tokens"] / 1e6,
                "passes (F)": hours["units"],
                "sampling (h)": hours["samples"],
                "passes (h)": hours["passes"],
                "total (h)": hours["total"],
                "device hours": hours["total"] * machine.devices,
                "fits one device": gradient < machine.memory,
            }
        )
    return pd.DataFrame(rows)


def table(rows: Sequence[tuple[str, dict[str, float]]], machine: Machine) -> DataFrame:
    """A row a job: tokens, operations, hours of the parts, device hours."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"job": name, **hours, "device hours": hours["total"] * machine.devices}
            for name, hours in rows
        ]
    )
