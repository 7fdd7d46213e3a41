"""From a model and prompts to <grad J_k, grad J_1> with intervals: ``passgrad measure``."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.foreign_logs import RetokenisedWarning, SamplingLawWarning
from passgrad.lm.foreign_rollouts import read_foreign
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET
from passgrad.lm.models import load_model, load_tokenizer, resolve
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.lm.sampling import Engine
from passgrad.measurement.drawing import Drawing
from passgrad.measurement.estimate import ConflictEstimate, check_plan, estimate_conflict
from passgrad.measurement.failures import explained
from passgrad.measurement.folder import Folder
from passgrad.measurement.progress import Progress, Silent
from passgrad.measurement.prompts import GivenPrompts, as_task, digest
from passgrad.measurement.remarks import remarks
from passgrad.measurement.stored import StoredPasses
from passgrad.stats.intervals import Prompts
from passgrad.tasks.base import Task
from passgrad.tasks.verifiers import Verifier


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was estimated, from which completions, under which circumstances."""

    estimate: ConflictEstimate
    rollouts: Rollouts
    remarks: tuple[str, ...]
    """What stands out, a sentence each."""
    record: dict[str, Any]
    """The content of ``measurement.json``."""
    folder: Path


def default_ks(num_samples: int) -> list[int]:
    """1, 2, 4, ... up to half of the samples, which every way to split them allows."""
    return [2**j for j in range(max(1, num_samples // 2).bit_length())]


def measure(
    model: str | Path,
    prompts: GivenPrompts | None = None,
    *,
    out: str | Path,
    rollouts: str | Path | None = None,
    samples: int = 64,
    ks: Iterable[int] | None = None,
    engine: Engine = "auto",
    verifier: str | Callable[[str, str], Any] = "exact",
    verifier_seconds: float = 5.0,
    verifier_memory: int = 1024,
    stop: str | None = None,
    max_new_tokens: int = 512,
    reading: Prompts = "new",
    estimator: str = "pkpo-loo1",
    level: float = 0.95,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    resume: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure the conflict of pass@k and pass@1 of a model on prompts.

    :param model: An embedded name, a local folder or a hub name.
    :param prompts: A file of JSON lines (``prompt`` or ``messages``, ``answer``; optional ``id``,
        ``group``), the name of a task, a task, or prompts. With ``rollouts`` it may be left out if
        these have prompts and rewards.
    :param out: The folder of the measurement.
    :param rollouts: Completions drawn elsewhere (:mod:`passgrad.lm.foreign_logs`), from this model.
    :param samples: n, completions a prompt; with ``rollouts`` it is theirs.
    :param ks: Orders with intervals; by default powers of two up to n / 2.
    :param verifier, verifier_seconds, verifier_memory: How a completion is judged, and what a
        verdict may take in seconds and MiB; for a file and for prompts.
    :param stop: What ends a completion, for a file and for prompts; None is the model's end token.
    :param max_new_tokens: Where it is cut off otherwise; a completion without its stop is wrong.
    :param reading: Whether the prompts stand for others like them ("new") or for themselves
        ("fixed").
    :param estimator: Of the gradients of pass@k; an unbiased one.
    :param seed: Of the completions and of their halves.
    :param token_budget: Tokens a packed row; less takes less memory.
    :param resume: Go on with what ``out`` holds. Completions and passes that are there are not
        made again.
    :raises UserError: If ``out`` holds a measurement and ``resume`` is not set, or one with other
        settings; for a lack of memory or disk space; and for all that reading, sampling and
        estimation refuse.
    """
    begun = time.perf_counter()
    show = progress or Silent()
    load_tokenizer(resolve(model))  # a model that is not there leaves no folder behind
    task = None
    if prompts is not None:
        task = as_task(
            prompts, model, verifier=verifier, verifier_seconds=verifier_seconds,
            verifier_memory=verifier_memory, stop=stop, max_new_tokens=max_new_tokens,
        )  # fmt: skip
    elif rollouts is None:
        raise UserError("neither prompts nor rollouts are given: name one of them")
    given: Rollouts | None = None
    doubts: list[str] = []
    if rollouts is not None:
        given, doubts = _given(rollouts, model, task, stop, max_new_tokens)
    num_prompts = len(given.prompt_ids) if given else len(task.prompts)  # type: ignore[union-attr]
    n = given.num_samples if given else samples
    orders = default_ks(n) if ks is None else sorted(set(ks))
    check_plan(num_prompts, n, orders, estimator=estimator, prompts=reading, level=level)
    law = Sampling(seed=seed)
    asked = {
        "model": str(model),
        "prompts": None if task is None else task.name,
        "prompts_digest": None if task is None else digest(task),
        "rollouts": None if rollouts is None else Path(rollouts).name,
        "rollouts_digest": None if rollouts is None else _file_digest(Path(rollouts)),
        "samples": n, "ks": orders, "engine": engine if given is None else None,
        "sampling": asdict(law) if given is None else None,
        "reading": reading, "estimator": estimator, "level": level, "seed": seed,
    }  # fmt: skip
    folder = Folder(Path(out))
    folder.claim(asked, resume=resume)
    incidents: list[dict[str, Any]] = []
    if given is None:
        assert task is not None
        drawing = Drawing(str(model), task, n, engine, law, folder.rollouts)
        with explained(folder.path, "lower max_new_tokens, or take another engine"):
            _draw(drawing, show)
        drawn, incidents = drawing.rollouts(), drawing.incidents()
    else:
        drawn = given
    with explained(folder.path, f"lower token_budget (now {token_budget})"):
        estimate = _estimate(
            model, drawn, orders, folder, show, token_budget=token_budget, estimator=estimator,
            reading=reading, level=level, seed=seed,
        )  # fmt: skip
    found = tuple(doubts + remarks(estimate, incidents))
    record = {
        "verdict": estimate.verdict,
        "threshold": _plain(estimate.threshold),
        "threshold_interval": [_plain(estimate.threshold_low), _plain(estimate.threshold_high)],
        "curve": _rows(estimate),
        "remarks": found,
        "incidents": incidents,
        "settings": asked,
        "rollouts": {"prompts": num_prompts, "samples": n},
        "provenance": provenance.record(seed=seed)
        | {"seconds": round(time.perf_counter() - begun, 1)},
    }
    with explained(folder.path, "close other programs"):
        folder.write_table("curve", estimate.to_frame())
        folder.write_table("prompts", _prompts_frame(estimate, drawn))
        drawn.write(folder.path / "rollouts.parquet")
        folder.finish(record)
    return Measurement(estimate, drawn, found, record, folder.path)


def _given(
    path: str | Path, model: str | Path, task: Task | None, stop: str | None, max_new_tokens: int
) -> tuple[Rollouts, list[str]]:
    """Rollouts from elsewhere, and what is doubtful about their law."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_foreign(
            path, tokenizer=load_tokenizer(resolve(model)), task=task, stop=stop,
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
    doubts = []
    for one in caught:
        if issubclass(one.category, SamplingLawWarning | RetokenisedWarning):
            doubts.append(str(one.message).removeprefix(f"{path}: "))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return found, doubts


def _draw(drawing: Drawing, show: Progress) -> None:
    judge = drawing.task.verify
    if not isinstance(judge, Verifier):
        drawing.draw(range(drawing.num_blocks), show)
        return
    with judge:  # a function that cannot be imported is not found after an hour of drawing
        drawing.draw(range(drawing.num_blocks), show)


def _estimate(
    model: str | Path, drawn: Rollouts, orders: list[int], folder: Folder, show: Progress, *,
    token_budget: int, estimator: str, reading: Prompts, level: float, seed: int,
) -> ConflictEstimate:  # fmt: skip
    loaded, tokenizer = load_model(model)
    completions = Completions.from_rollouts(drawn, tokenizer)
    passes = CompletionPasses(
        loaded, completions, torch.as_tensor(drawn.rewards), token_budget=token_budget
    )
    show.note(
        f"{len(completions.sequences)} distinct completions of {drawn.rewards.size}, "
        f"{drawn.num_correct.sum() / drawn.rewards.size:.1%} right"
    )
    # Two halves, each with a gradient and its derivatives for every order and for order 1.
    show.stage("gradients and derivatives along them", 2 * len({1, *orders}))
    stored = StoredPasses(passes, folder.passes, show.advance)
    return estimate_conflict(
        stored, orders, estimator=estimator, prompts=reading, level=level, seed=seed
    )


def _prompts_frame(estimate: ConflictEstimate, drawn: Rollouts) -> Any:
    groups = dict(
        zip(*(drawn.table[name].to_pylist() for name in ("prompt_id", "group")), strict=True)
    )
    frame = estimate.prompts_frame()
    frame.insert(0, "prompt_id", drawn.prompt_ids)
    frame.insert(1, "group", [groups[name] for name in drawn.prompt_ids])
    frame.insert(2, "num_correct", drawn.num_correct)
    return frame


def _rows(estimate: ConflictEstimate) -> list[dict[str, float | None]]:
    return json.loads(estimate.to_frame().to_json(orient="records", double_precision=15))


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:20]


def _plain(value: float) -> float | None:
    """JSON has no nan and no infinity."""
    return float(value) if torch.isfinite(torch.tensor(value)) else None
