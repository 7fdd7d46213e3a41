"""Memory a device, tokens and time of a measurement that is not made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes, processes
from passgrad.lm.models import is_adapter, load_model, load_tokenizer, resolve
from passgrad.lm.tokens import encode
from passgrad.measurement.estimate import estimate_conflict
from passgrad.measurement.forecast.clock import Pace, pace_of
from passgrad.measurement.forecast.counted import Counted
from passgrad.measurement.forecast.memory import Setting, Sizes
from passgrad.measurement.options import Drawing, Estimating, Judging, Options, Running, Stepping
from passgrad.measurement.parts import Folding, Reading, estimate_parts
from passgrad.measurement.prompts import GivenPrompts
from passgrad.measurement.run import Work, folds_of, plan_measurement
from passgrad.measurement.step import StepSize, predict_step
from passgrad.rollouts.logged import Logged

# So many prompts stand for all of them where completions are not there yet.
_PROMPTS = 32
# What libraries and a CUDA context take beside tensors; of the first this process knows its own.
_CONTEXT = 600 * 2**20
#: on a processor: what libraries read and keep when they first compute
PAGES = 150 * 2**20
_GIB = 2**30


@dataclass(frozen=True)
class Forecast:
    """What a measurement would take; bytes are a device's, and tokens those of packed rows."""

    parameters: int
    dtype: str
    device: str
    devices: int
    stages: dict[str, int]
    """The most bytes in each stage, those of the process beside the tensors included."""
    room: int
    """Bytes that the device has for this process."""
    prompts: int
    samples: int
    completion_tokens: str
    """How the lengths of completions are known."""
    forward_tokens: int
    """Read forward, a derivative along a vector as two passes."""
    backward_tokens: int
    """Read backward too."""
    seconds: float | None
    """Of the passes, drawing left out; None where the weights are not there to be timed."""
    timing: str
    """How it was timed, or why it was not."""

    @property
    def peak(self) -> int:
        """The most bytes on a device."""
        return max(self.stages.values())

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in self.stages.items())
        took = "unknown" if self.seconds is None else _duration(self.seconds)
        return "\n".join(
            [
                f"model: {self.parameters / 1e9:.3g} billion parameters in {self.dtype}, on "
                f"{self.devices} x {self.device}",
                f"completions: {self.prompts} prompts x {self.samples}, {self.completion_tokens}",
                f"memory: at most {self.peak / _GIB:.2f} GiB a device ({stages}); "
                f"{self.room / _GIB:.2f} GiB are there",
                f"tokens: {self.forward_tokens:,} forward, {self.backward_tokens:,} backward",
                f"time: {took} for the passes, drawing left out; {self.timing}",
            ]
        )


def forecast(
    model: str | Path,
    prompts: GivenPrompts | None = None,
    *,
    drawing: Drawing | None = None,
    judging: Judging | None = None,
    estimating: Estimating | None = None,
    step: Stepping | StepSize | bool | None = True,
    running: Running | None = None,
    logged: Logged | None = None,
    **options: Any,
) -> Forecast:
    """Memory, tokens and time of :func:`passgrad.measure` with the same arguments; nothing is
    drawn and nothing is written.

    Of rollouts the tokens are known. Of prompts completions are as long as ``max_new_tokens``, all
    of them distinct and half of them right, which is the most. The weights of the model need not be
    there: a folder with ``config.json`` and a tokenizer will do, without a time.

    :raises UserError: As ``measure`` before it draws; for an adapter; and for a setting that does
        not fit into memory, with one that does.
    """
    chosen = Options.sort(options, drawing, judging, estimating, step, running, logged)
    with processes(device=chosen.running.device) as group:
        plan = plan_measurement(model, prompts, chosen, group)
        place = resolve(model)
        if is_adapter(place):
            raise UserError(
                "an adapter has no forecast: that of its base model is the most that it takes"
            )
        completions, rewards, share, known = _completions(plan, place)
        sizes = Sizes(_config(place), completions)
        run = chosen.running
        setting = Setting(
            run.dtype, run.token_budget, group.size if run.shard else 1,
            chosen.estimating.parts and not run.shard, chosen.step is not None,
        )  # fmt: skip
        base, room = _room(group)
        stages = {name: size + base for name, size in sizes.stages(setting).items()}
        if max(stages.values()) > room:
            raise UserError(_refusal(sizes, setting, stages, base, room))
        counted = _count(plan, completions, rewards, run.token_budget, sizes)
        pace, timing = _timed(place, run, completions, group)
        gradient, derivative, bend = (
            round(tokens * share)
            for tokens in (
                counted.gradient_tokens, counted.derivative_tokens, counted.curvature_tokens,
            )
        )  # fmt: skip
        seconds = None
        if pace is not None:
            seconds = gradient * pace.gradient + derivative * pace.derivative
            seconds = (seconds + bend * pace.curvature) / group.size
        return Forecast(
            sizes.parameters, run.dtype, str(group.device), group.size, stages, room,
            round(len(completions.names) * share), plan.num_samples, known,
            gradient + 2 * derivative + 8 * bend, gradient, seconds, timing,
        )  # fmt: skip


def _completions(plan: Work, place: str) -> tuple[Completions, torch.Tensor, float, str]:
    """Completions, rewards, how many times as many there are, and how their lengths are known."""
    tokenizer = load_tokenizer(place)
    if plan.given is not None:
        made = Completions.from_rollouts(plan.given, tokenizer)
        rewards = torch.as_tensor(plan.given.rewards, dtype=torch.float64)
        return made, rewards, 1.0, "as long as they are"
    assert plan.task is not None
    every, n, length = plan.task.prompts, plan.num_samples, plan.task.max_new_tokens
    step = max(1, len(every) // _PROMPTS)
    some = every[::step]
    ids = [encode(tokenizer, prompt.text) for prompt in some]
    size = max(len(tokenizer), 2)
    # Distinct by their last tokens; one token is all that some have.
    ends = [[number // size % size, number % size] for number in range(n)]
    drawn = [[0] * (length - 2) + end if length > 1 else end[1:] for end in ends]
    made = Completions.from_tokens(ids, [drawn] * len(ids), [prompt.id for prompt in some])
    rewards = (torch.arange(n) % 2).double().expand(len(ids), n)
    known = f"each {length} tokens long, as max_new_tokens allows"
    return made, rewards, len(every) / len(some), known


def _config(place: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{place} has no configuration that can be read ({line})") from error


def _room(group: Processes) -> tuple[int, int]:
    """What a process takes without tensors, and what its device has for it, in bytes."""
    if group.device.type == "cuda":
        return _CONTEXT, torch.cuda.get_device_properties(group.device).total_memory
    import psutil

    own = psutil.Process().memory_info().rss + PAGES
    # Processes of one machine share its memory.
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if group.size > 1 else 1
    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = min(free, int(text) - used)
    return own, own + free // local


def _refusal(sizes: Sizes, setting: Setting, stages: dict[str, int], base: int, room: int) -> str:
    worst = max(stages, key=lambda name: stages[name])
    said = (
        f"this takes {stages[worst] / _GIB:.1f} GiB a device ({worst}), and "
        f"{room / _GIB:.1f} GiB are there: "
    )
    other = sizes.alternative(setting, room - base)
    if other is None:
        return said + "no setting fits this model here; take devices with more memory"
    return said + f"{other} takes {(sizes.peak(other) + base) / _GIB:.1f} GiB"


def _count(
    plan: Work, completions: Completions, rewards: torch.Tensor, budget: int, sizes: Sizes
) -> Counted:
    """The passes of the measurement, counted."""
    options = plan.options
    estimating, seed = options.estimating, options.drawing.seed

    masses = torch.full((len(rewards),), 1 / len(rewards), dtype=torch.float64)
    counted = Counted(completions, rewards, masses, partial(sizes.rows, budget=budget))
    shared = {"estimator": estimating.estimator, "prompts": estimating.reading, "seed": seed}
    estimate_conflict(counted, plan.orders, level=estimating.level, **shared)  # type: ignore[arg-type]
    along = max(k for k in plan.orders if k <= max(plan.num_samples // 4, 1))
    if estimating.parts and not options.running.shard:
        folding = Folding(folds_of(len(rewards), estimating.reading), seed=seed)
        reading = Reading(estimating.reading, estimating.level)
        estimate_parts(
            counted, along, estimator=estimating.estimator, reading=reading, folding=folding
        )
    if options.step is not None:
        predict_step(counted, along, plan.orders, level=estimating.level, **shared)  # type: ignore[arg-type]
    return counted


def _timed(
    place: str, run: Running, completions: Completions, group: Processes
) -> tuple[Pace | None, str]:
    if not list(Path(place).glob("*.safetensors")):
        return None, "the weights are not there to be timed"
    if run.shard:
        return None, "a sharded model is not timed: time one without --shard that fits"
    model, _ = load_model(place, dtype=getattr(torch, run.dtype))
    model.to(group.device)  # type: ignore[arg-type]
    pace = pace_of(model, completions, run.token_budget)
    return pace, f"{pace.tokens} tokens were timed"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
