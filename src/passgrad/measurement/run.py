"""From a model and prompts to <grad J_k, grad J_1> with intervals: ``passgrad measure``."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes, RemoteError, processes
from passgrad.lm.distributed_passes import DistributedPasses
from passgrad.lm.fsdp import ShardedPasses, load_sharded
from passgrad.lm.models import is_adapter, load_model, load_tokenizer, resolve
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.lm.rounding import rounding_of
from passgrad.measurement.advice import advice, chosen_order
from passgrad.measurement.drawing import Blocks
from passgrad.measurement.estimate import ConflictEstimate, check_plan, estimate_conflict
from passgrad.measurement.metric import PLAIN, Metric, read_adam_metric
from passgrad.measurement.options import (
    Drawing,
    Estimating,
    Judging,
    Options,
    Running,
    Stepping,
)
from passgrad.measurement.parts import ModelParts, PartsEstimate, estimate_parts
from passgrad.measurement.prompts import GivenPrompts, as_task, digest
from passgrad.measurement.realised import TakenStep, verify_step
from passgrad.measurement.record import record_of, remarks, rounding_remark, write_tables
from passgrad.measurement.second_order import ModelSteps
from passgrad.measurement.step import StepPrediction, StepSize, predict_step
from passgrad.measurement.store import Folder, Kept, StoredPasses, explained
from passgrad.orders import Orders
from passgrad.progress import Progress, Silent
from passgrad.rollouts.foreign_logs import RetokenisedWarning, SamplingLawWarning
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.rollouts.same_law import LawComparison, check_same_law
from passgrad.stats.intervals import Prompts
from passgrad.tasks.base import Task
from passgrad.tasks.verifiers import Verifier

# One process may draw for days while another has nothing to draw.
_DRAWING = timedelta(days=7)
# Of the prompts of a half, where there are enough of them.
_FOLDS = 16


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was estimated, from which completions, under which circumstances."""

    estimate: ConflictEstimate
    parts: PartsEstimate | None
    """The product at the chosen order by layer and group."""
    step: StepPrediction | TakenStep | None
    """What a step along the gradient of the chosen order would do, or did."""
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
    drawing: Drawing | None = None,
    judging: Judging | None = None,
    estimating: Estimating | None = None,
    step: Stepping | StepSize | bool | None = True,
    running: Running | None = None,
    **options: Any,
) -> Measurement:
    """Measure the conflict of pass@k and pass@1 of a model on prompts.

    Under torchrun the work is shared by its processes; the first writes and speaks.

    :param model: An embedded name, a local folder, a hub name, or the folder of an adapter, whose
        parameters alone are then differentiated.
    :param prompts: A file of JSON lines (``prompt`` or ``messages``, ``answer``; optional ``id``,
        ``group``), the name of a task, a task, or prompts. With rollouts drawn elsewhere it may be
        left out if these have prompts and rewards.
    :param out: The folder of the measurement.
    :param drawing, judging, estimating, running: Groups of options
        (:mod:`passgrad.measurement.options`).
    :param step: The step that is predicted, as a group or a size; False or None for none.
    :param options: Single options by the names of the fields of the groups: ``samples=32``,
        ``ks=[1, 2]``, ``verifier="math"``, ``resume=True``.
    :raises UserError: If ``out`` holds a measurement and ``resume`` is not set, or one with other
        settings; for an unknown option, and one that is given by itself and in a group; for a lack
        of memory or disk space; and for all that reading, sampling and estimation refuse.

    >>> import passgrad as pg
    >>> pg.measure("smollm2-135m", "conventions", out="conflict", samples=16)  # doctest: +SKIP
    """
    chosen = Options.sort(options, drawing, judging, estimating, step, running)
    with processes(device=chosen.running.device) as group:
        work = plan_measurement(model, prompts, chosen, group)
        _claim(work, Path(out))
        if work.given is None:
            _draw(work)
        remedy = f"lower token_budget (now {chosen.running.token_budget})"
        with explained(work.folder.path, remedy):
            for stage in (_load, _estimate, _split, _step):
                stage(work)
        return _write(work)


def folds_of(num_prompts: int, reading: Prompts) -> int:
    """Folds of the parts, for their errors."""
    return max(2, min(_FOLDS, num_prompts // (1 if reading == "fixed" else 2) // 2))


@dataclass(eq=False)
class Work:
    """A measurement in progress: what was asked for, and what the stages have found so far."""

    model: str | Path
    task: Task | None
    options: Options
    group: Processes
    show: Progress
    metrics: list[Metric]
    given: Rollouts | None
    """Rollouts drawn elsewhere."""
    num_samples: int
    orders: Orders
    settings: dict[str, Any]
    """The content of ``settings.json``."""
    doubts: list[str]
    begun: float
    folder: Folder = field(init=False)
    rollouts: Rollouts = field(init=False)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    compared: LawComparison | None = None
    passes: CompletionPasses = field(init=False)
    rounding: float | None = None
    """Of the passes in bfloat16, :func:`passgrad.lm.rounding.rounding_of`."""
    estimate: ConflictEstimate = field(init=False)
    parts: PartsEstimate | None = None
    step: StepPrediction | TakenStep | None = None


def plan_measurement(
    model: str | Path, prompts: GivenPrompts | None, options: Options, group: Processes
) -> Work:
    """Read what is given, and refuse what cannot be measured; nothing is written."""
    begun, doubts = time.perf_counter(), list[str]()
    drawing, estimating = options.drawing, options.estimating
    show = (options.running.progress if group.is_main else None) or Silent()
    show.stage("reading model and prompts", 1)
    metrics = [PLAIN] if estimating.adam is None else [PLAIN, read_adam_metric(estimating.adam)]
    group.from_main(lambda: resolve(model))  # fetched once
    load_tokenizer(resolve(model))  # a model that is not there leaves no folder behind
    if options.step is not None and options.step.verify_step:
        _check_verification(prompts, drawing, group)
        if options.running.dtype == "bfloat16":
            raise UserError(
                "a step is smaller than the last place of weights in bfloat16: verify it with "
                "dtype float32, or leave verify_step out"
            )
    if options.running.shard:
        _check_shard(model, options, group, doubts)
    task = None if prompts is None else as_task(prompts, model, options.judging, drawing)
    given = None if drawing.rollouts is None else _given(model, task, drawing, doubts)
    source = given.prompt_ids if given else task.prompts if task else None
    if source is None:
        raise UserError("neither prompts nor rollouts are given: name one of them")
    n = given.num_samples if given else drawing.samples
    orders = Orders.of(default_ks(n) if estimating.ks is None else estimating.ks)
    check_plan(
        len(source), n, orders, estimator=estimating.estimator, prompts=estimating.reading,
        level=estimating.level,
    )  # fmt: skip
    settings = _settings(model, task, n, orders, options)
    show.advance()
    return Work(
        model, task, options, group, show, metrics, given, n, orders, settings, doubts, begun
    )


def _claim(work: Work, out: Path) -> None:
    """Take the folder for this measurement."""
    work.folder = Folder(out)
    resume = work.options.running.resume
    work.group.from_main(lambda: work.folder.claim(work.settings, resume=resume))


def _check_verification(prompts: GivenPrompts | None, drawing: Drawing, group: Processes) -> None:
    if group.size > 1 or prompts is None:
        raise UserError(
            "a step is verified with prompts and in one process: give prompts, "
            "and go on with resume without torchrun"
        )
    if drawing.engine == "server":
        raise UserError(
            "a step cannot be verified with a server, which holds the weights before it; "
            "leave --verify-step out, or take the engine vllm or transformers"
        )


def _check_shard(model: str | Path, options: Options, group: Processes, doubts: list[str]) -> None:
    """Refuse what a sharded model does not have, and say what is left out."""
    if group.size == 1:
        raise UserError(
            "shard spreads a model over the processes of torchrun, and this one is alone: start "
            "several (torchrun --standalone --nproc_per_node 2 -m passgrad.cli measure ...), or "
            "leave shard out"
        )
    if is_adapter(resolve(model)):
        raise UserError(
            "an adapter is not sharded: leave shard out, and take dtype bfloat16 for less memory"
        )
    if options.estimating.adam is not None:
        raise UserError(
            "a sharded model has no parts, in Adam's metric neither: leave adam or shard out"
        )
    if options.estimating.parts:
        doubts.append(
            "The product is not split into parts of the model: that needs whole gradients, and "
            "this one was sharded."
        )


def _settings(
    model: str | Path, task: Task | None, num_samples: int, orders: Orders, options: Options
) -> dict[str, Any]:
    """All that the numbers depend on."""
    drawing, estimating = options.drawing, options.estimating
    path = None if drawing.rollouts is None else Path(drawing.rollouts)
    return {
        "model": str(model),
        "prompts": None if task is None else task.name,
        "prompts_digest": None if task is None else digest(task),
        "rollouts": None if path is None else path.name,
        "rollouts_digest": None if path is None else _file_digest(path),
        "samples": num_samples,
        "ks": list(orders),
        "engine": drawing.engine if path is None else None,
        "sampling": asdict(Sampling(seed=drawing.seed)) if path is None else None,
        "reading": estimating.reading,
        "estimator": estimating.estimator,
        "level": estimating.level,
        "seed": drawing.seed,
        "dtype": options.running.dtype,
    }


def _given(model: str | Path, task: Task | None, drawing: Drawing, doubts: list[str]) -> Rollouts:
    """Rollouts from elsewhere; what is doubtful about their law is added to the doubts."""
    assert drawing.rollouts is not None
    with _heard(doubts, f"{drawing.rollouts}: "):
        return read_foreign(
            drawing.rollouts, tokenizer=load_tokenizer(resolve(model)), task=task,
            stop=drawing.stop, max_new_tokens=drawing.max_new_tokens,
        )  # fmt: skip


@contextmanager
def _heard(doubts: list[str], lead: str = "") -> Iterator[None]:
    """Within it, warnings about the law of samples are added to the doubts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, SamplingLawWarning | RetokenisedWarning):
            doubts.append(str(warning.message).removeprefix(lead))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _draw(work: Work) -> None:
    """Completions of all prompts, those that are not in the folder yet."""
    assert work.task is not None
    drawing = work.options.drawing
    blocks = Blocks(
        str(work.model), work.task, work.num_samples, drawing.engine, Sampling(seed=drawing.seed),
        work.folder.rollouts, drawing.base_url, work.options.running.dtype, str(work.group.device),
    )  # fmt: skip
    # One process cannot load a sharded model for a look at it.
    if drawing.engine == "server" and not work.options.running.shard:
        _first_block(work, blocks)
    _draw_blocks(work, blocks, blocks.missing)
    work.rollouts, work.incidents = blocks.rollouts(), blocks.incidents()


def _first_block(work: Work, blocks: Blocks) -> None:
    """Draw one block, and refuse a server that has another model before it is asked for the rest.
    Doubts that do not refuse it are heard when all completions are there.
    """
    missing = work.group.from_main(blocks.missing)
    if 0 not in missing or len(missing) == 1:
        return
    _draw_blocks(work, blocks, lambda: [0])

    def compare() -> None:
        loaded, tokenizer = _loaded(work)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingLawWarning)
            check_same_law(loaded, Rollouts.read(blocks.path(0)), tokenizer, work.show)

    work.group.from_main(compare)


def _draw_blocks(work: Work, blocks: Blocks, wanted: Callable[[], list[int]]) -> None:
    """Draw these blocks, each process its share of them."""
    group = work.group
    with (
        group.together(limit=_DRAWING),
        explained(work.folder.path, "lower max_new_tokens, or take another engine"),
    ):
        missing = group.from_main(wanted)
        judge = blocks.task.verify
        # A function that cannot be imported is not found after an hour of drawing.
        with judge if isinstance(judge, Verifier) else nullcontext():
            blocks.draw(group.share(missing), work.show)


def _loaded(work: Work) -> tuple[Any, Any]:
    """The model where this process computes, and its tokenizer."""
    work.show.stage("loading the model", 1)
    dtype: torch.dtype = getattr(torch, work.options.running.dtype)
    if work.options.running.shard:
        place = resolve(work.model)
        model, tokenizer = load_sharded(place, work.group, dtype=dtype), load_tokenizer(place)
    else:
        model, tokenizer = load_model(work.model, dtype=dtype)
        model.to(work.group.device)  # type: ignore[arg-type]
    work.show.advance()
    return model, tokenizer


def _load(work: Work) -> None:
    """Passes over the completions, which are first compared with the model."""
    if work.given is not None:
        work.rollouts = work.given
    drawn = work.rollouts
    model, tokenizer = _loaded(work)
    if set(drawn.table["engine"].to_pylist()) != {"transformers"}:
        with _heard(work.doubts):
            work.compared = check_same_law(model, drawn, tokenizer, work.show)
    completions = Completions.from_rollouts(drawn, tokenizer)
    work.show.note(
        f"{len(completions.sequences)} distinct completions of {drawn.rewards.size}, "
        f"{drawn.num_correct.sum() / drawn.rewards.size:.1%} right"
    )
    running = work.options.running
    kind = ShardedPasses if running.shard else DistributedPasses
    work.passes = kind(
        model, completions, torch.as_tensor(drawn.rewards), group=work.group,
        token_budget=running.token_budget,
    )  # fmt: skip
    if running.dtype == "bfloat16":
        work.show.stage("looking at the rounding of bfloat16", 1)
        work.rounding = rounding_of(work.passes)
        work.doubts += rounding_remark(work.rounding)
        work.show.advance()


def _estimate(work: Work) -> None:
    """The products at all orders, with intervals."""
    estimating = work.options.estimating
    # Two halves, each with a gradient and its derivatives for every order and for order 1.
    work.show.stage("gradients and derivatives along them", 2 * len(work.orders.with_one()))
    passes = StoredPasses(work.passes, work.folder.passes, work.show, work.group)
    work.estimate = estimate_conflict(
        passes, work.orders, estimator=estimating.estimator, prompts=estimating.reading,
        level=estimating.level, seed=work.options.drawing.seed,
    )  # fmt: skip


def _split(work: Work) -> None:
    """The parts of the product at the chosen order, if they were asked for."""
    estimating = work.options.estimating
    if not estimating.parts or work.options.running.shard:
        return
    work.parts = estimate_parts(
        ModelParts(work.passes), chosen_order(work.estimate), estimator=estimating.estimator,
        prompts=estimating.reading, level=estimating.level, seed=work.options.drawing.seed,
        folds=folds_of(work.passes.completions.shape[0], estimating.reading), metrics=work.metrics,
        kept=Kept(work.folder.parts, work.group), progress=work.show,
    )  # fmt: skip


def _step(work: Work) -> None:
    """The prediction of the step, if it was asked for, and what it did, if it is taken."""
    stepping, estimating = work.options.step, work.options.estimating
    if stepping is None:
        return
    n, fixed = work.num_samples, estimating.reading == "fixed"
    steps = ModelSteps(work.passes, work.folder.passes, work.show, work.group)
    # Half of the completions of a half: beyond it a direction rests on a few of them.
    along = chosen_order(work.estimate, n // 4 if fixed else n // 2)
    work.show.stage(f"a step along the gradient of pass@{along}", 2)
    try:
        prediction = predict_step(
            steps, along, work.orders, size=stepping.size, estimator=estimating.estimator,
            prompts=estimating.reading, level=estimating.level, seed=work.options.drawing.seed,
        )  # fmt: skip
    except UserError as error:
        if stepping.verify_step or isinstance(error, RemoteError):
            raise
        work.doubts.append(f"No step is predicted: {error}.")
        return
    work.step = prediction
    if stepping.verify_step and work.task:
        drawing = work.options.drawing
        realised = verify_step(
            prediction, steps, work.model, work.task, work.folder.path, num_samples=n,
            engine=drawing.engine, law=Sampling(seed=drawing.seed), progress=work.show,
        )  # fmt: skip
        work.step = TakenStep(prediction, realised)


def _write(work: Work) -> Measurement:
    """The tables and the record, which comes last."""
    work.show.stage("writing the tables", 1)
    sentences = tuple(work.doubts + remarks(work.estimate, work.incidents, work.rollouts))
    record = record_of(
        work.estimate, work.step, work.settings, sentences, work.incidents, work.compared,
        seconds=time.perf_counter() - work.begun,
        machine={
            "processes": work.group.size, "device": str(work.group.device),
            "shard": work.options.running.shard, "rounding": work.rounding,
        },
    ) | {"next": asdict(advice(work.estimate, work.folder.path))}  # fmt: skip
    measured = Measurement(
        work.estimate, work.parts, work.step, work.rollouts, sentences, record, work.folder.path
    )
    with explained(work.folder.path, "close other programs"):
        work.group.from_main(
            lambda: write_tables(
                work.folder, work.estimate, work.parts, work.step, work.rollouts, record
            )
        )
    work.show.advance()
    return measured


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:20]
