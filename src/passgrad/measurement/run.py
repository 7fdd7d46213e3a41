r"""``passgrad measure``: from a model and prompts to <grad J_k, grad J_1> with intervals, on disk.

A folder holds a measurement, finished or not: ``settings.json``, ``rollouts/`` (completions, a
part for some prompts), ``passes/`` (derivatives, a file a pass), and at the end
``measurement.json``, ``curve.parquet``, ``prompts.parquet`` and ``rollouts.parquet``. Every file
gets its name when it is whole, so a run that was killed is continued from what is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.lm.completions import Completions
from passgrad.lm.models import load_model, load_tokenizer, resolve
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.lm.sampling import Engine, sample
from passgrad.measurement.estimate import ConflictEstimate, check_plan, estimate_conflict
from passgrad.measurement.stored import StoredPasses
from passgrad.stats.intervals import Prompts
from passgrad.tasks.base import Task

#: prompts whose completions are drawn by one start of the engine, and lost together
BLOCK = 64


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was estimated, from which completions, under which circumstances."""

    estimate: ConflictEstimate
    rollouts: Rollouts
    record: dict[str, Any]
    folder: Path


def default_ks(num_samples: int) -> list[int]:
    """1, 2, 4, ... up to half of the samples, which every way to split them allows."""
    return [2**j for j in range(max(1, num_samples // 2).bit_length())]


def measure(
    model: str | Path,
    task: Task,
    *,
    out: str | Path,
    num_samples: int = 64,
    ks: Iterable[int] | None = None,
    engine: Engine = "auto",
    settings: Sampling | None = None,
    prompts: Prompts = "new",
    estimator: str = "pkpo-loo1",
    level: float = 0.95,
    seed: int = 0,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Measure the conflict of pass@k and pass@1 of a model on the prompts of a task.

    :param model: An embedded name, a local folder or a hub name.
    :param out: The folder of the measurement.
    :param num_samples: n, completions a prompt.
    :param ks: Orders with intervals; by default powers of two up to n / 2.
    :param settings: The sampling law; the policy itself by default. Its seed is replaced by
        ``seed``, which is also that of the split into halves.
    :param prompts: Whether the prompts stand for others like them ("new") or for themselves
        ("fixed").
    :param resume: Go on with what ``out`` holds. Completions and passes that are there are not
        made again.
    :param progress: Called with a line about what is going on.
    :raises UserError: If ``out`` holds a measurement and ``resume`` is not set, or one with other
        settings; for a sampling law that is not the policy's; and for all that sampling and
        estimation refuse.
    """
    say = progress or (lambda text: None)
    law = replace(settings or Sampling(), seed=seed)
    _check_law(law)
    orders = default_ks(num_samples) if ks is None else sorted(set(ks))
    check_plan(
        len(task.prompts), num_samples, orders, estimator=estimator, prompts=prompts, level=level
    )
    load_tokenizer(resolve(model))  # a model that is not there leaves no folder behind
    folder = Path(out)
    asked = {
        "model": str(model), "task": task.name, "prompt_ids": [x.id for x in task.prompts],
        "num_samples": num_samples, "ks": orders, "engine": engine, "sampling": asdict(law),
        "prompts": prompts, "estimator": estimator, "level": level, "seed": seed,
    }  # fmt: skip
    _claim(folder, asked, resume)
    begun = time.perf_counter()
    rollouts = _rollouts(model, task, num_samples, engine, law, folder / "rollouts", say)
    loaded, tokenizer = load_model(model)
    completions = Completions.from_rollouts(rollouts, tokenizer)
    passes = CompletionPasses(loaded, completions, torch.as_tensor(rollouts.rewards))
    say(
        f"{len(completions.sequences)} distinct completions of {rollouts.rewards.size}; "
        f"two passes for each of {len({1, *orders})} orders"
    )
    count = iter(range(1, 10**9))
    stored = StoredPasses(
        passes, folder / "passes", lambda size: say(f"pass {next(count)}: {size} completions")
    )
    estimate = estimate_conflict(
        stored, orders, estimator=estimator, prompts=prompts, level=level, seed=seed
    )
    record = {
        "verdict": estimate.verdict,
        "threshold": _plain(estimate.threshold),
        "threshold_interval": [_plain(estimate.threshold_low), _plain(estimate.threshold_high)],
        "curve": json.loads(estimate.to_frame().to_json(orient="records", double_precision=15)),
        "settings": asked,
        "rollouts": {"prompts": len(rollouts.prompt_ids), "samples": rollouts.num_samples},
        "provenance": provenance.record(seed=seed)
        | {"seconds": round(time.perf_counter() - begun, 1)},
    }
    _write(folder, estimate, rollouts, record)
    return Measurement(estimate, rollouts, record, folder)


def _check_law(law: Sampling) -> None:
    """Scores have mean zero under the policy itself and under no other law."""
    if (law.temperature, law.top_p, law.top_k) != (1.0, 1.0, 0):
        raise UserError(
            f"the completions would be drawn at temperature {law.temperature:g}, top_p "
            f"{law.top_p:g}, top_k {law.top_k}, but the gradients are those of the policy: "
            "leave all three at 1, 1 and 0"
        )


def _claim(folder: Path, asked: dict[str, Any], resume: bool) -> None:
    """Make the folder one of this measurement, or find that it is."""
    path = folder / "settings.json"
    if path.is_file():
        if not resume:
            raise UserError(
                f"{folder} holds a measurement already: set resume to go on with it, "
                "or name another folder"
            )
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in asked if before.get(name) != asked[name]]
        if other:
            raise UserError(
                f"{folder} was begun with another {', '.join(other)}: "
                "give the same, or name another folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no measurement: name another folder")
    else:
        write_atomic(path, json.dumps(asked, indent=2).encode())


def _rollouts(
    model: str | Path, task: Task, n: int, engine: Engine, law: Sampling, folder: Path,
    say: Callable[[str], None],
) -> Rollouts:  # fmt: skip
    """The completions of all prompts, a block at a time."""
    parts = []
    blocks = range(0, len(task.prompts), BLOCK)
    for number, start in enumerate(blocks):
        path = folder / f"part-{number:05d}.parquet"
        if not path.is_file():
            some = replace(task, prompts=task.prompts[start : start + BLOCK])
            say(
                f"drawing {n} completions of {len(some.prompts)} prompts "
                f"({number + 1}/{len(blocks)})"
            )
            # A block has a seed of its own, so that it does not matter which were drawn before.
            own = replace(law, seed=law.seed + number)
            sample(model, some, num_samples=n, engine=engine, settings=own).write(path)
        parts.append(Rollouts.read(path))
    return Rollouts(pa.concat_tables([part.table for part in parts]))


def _write(
    folder: Path, estimate: ConflictEstimate, rollouts: Rollouts, record: dict[str, Any]
) -> None:
    """All tables, and last the file that says that the measurement is done."""
    first: dict[str, tuple[str, str]] = {}
    for name, text, group in zip(
        *(rollouts.table[c].to_pylist() for c in ("prompt_id", "prompt", "group")), strict=True
    ):
        first.setdefault(name, (text, group))
    frame = estimate.prompts_frame()
    frame.insert(0, "prompt_id", rollouts.prompt_ids)
    frame.insert(1, "group", [first[name][1] for name in rollouts.prompt_ids])
    frame.insert(2, "num_correct", rollouts.num_correct)
    for name, table in (("curve", estimate.to_frame()), ("prompts", frame)):
        write_atomic(folder / f"{name}.parquet", table.to_parquet(index=False))
    rollouts.write(folder / "rollouts.parquet")
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / "measurement.json", content.encode())


def _plain(value: float) -> float | None:
    """JSON has no nan and no infinity."""
    return float(value) if torch.isfinite(torch.tensor(value)) else None
