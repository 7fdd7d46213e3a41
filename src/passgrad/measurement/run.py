"""From a model and prompts to <grad J_k, grad J_1> with intervals: ``passgrad measure``."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes, RemoteError, processes
from passgrad.lm.distributed_passes import DistributedPasses
from passgrad.lm.fsdp import ShardedPasses, load_sharded
from passgrad.lm.models import (
    adapter_doubts,
    is_adapter,
    load_model,
    load_tokenizer,
    model_ends,
    resolve,
    vocabulary_size,
)
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.lm.rounding import rounding_of
from passgrad.lm.tokens import decode, encode, single_token
from passgrad.lm.trial import try_model
from passgrad.measurement.advice import advice, chosen_order
from passgrad.measurement.applicable import check_applicable
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
from passgrad.measurement.parts import (
    Folding,
    ModelParts,
    PartsEstimate,
    Reading,
    estimate_parts,
)
from passgrad.measurement.prompts import GivenPrompts, as_asked, as_task, digest
from passgrad.measurement.realised import NewSamples, TakenStep, verify_step
from passgrad.measurement.record import record_of, remarks, rounding_remark, write_tables
from passgrad.measurement.second_order import ModelSteps
from passgrad.measurement.step import StepPrediction, StepSize, predict_step
from passgrad.measurement.store import Folder, Kept, StoredPasses, explained
from passgrad.orders import Orders
from passgrad.progress import Progress, Silent
from passgrad.rollouts.endings import past_a_turn, remarks_on_thoughts
from passgrad.rollouts.foreign_logs import RetokenisedWarning, SamplingLawWarning
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.rollouts.logged import Logged
from passgrad.rollouts.readers.files import files_of
from passgrad.rollouts.same_law import MOST_TOKENS, LawComparison, check_same_law
from passgrad.rollouts.sampling import EngineWarning, end_tokens
from passgrad.stats.intervals import Prompts
from passgrad.tasks.base import Task
from passgrad.tasks.repeats import RepeatedPromptsWarning
from passgrad.tasks.verifiers import Verifier

# One process may draw for days while another has nothing to draw.
_DRAWING = timedelta(days=7)
_DOUBTS = (SamplingLawWarning, RetokenisedWarning, RepeatedPromptsWarning, EngineWarning)
# Of the prompts of a half, where there are enough of them.
_FOLDS = 16
# Tokens that are compared of completions that this process drew from this model.
_OWN = 2048
# Bytes of weights that are read once more for a trial before another engine draws.
_LOADED_TWICE = 8 * 2**30


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
    logged: Logged | None = None,
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
    :param drawing, judging, estimating, running, logged: Groups of options
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
    chosen = Options.sort(options, drawing, judging, estimating, step, running, logged)
    with processes(device=chosen.running.device) as group:
        work = plan_measurement(model, prompts, chosen, group)
        _claim(work, Path(out))
        remedy = f"lower --token-budget (token_budget=, now {chosen.running.token_budget})"
        if work.given is None:
            with explained(work.folder.path, remedy):
                _try(work)
            _draw(work)
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
    tried: bool = False
    """Whether the model has shown that it can be measured."""
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
    check_applicable(options, prompts)
    drawing, estimating = options.drawing, options.estimating
    if options.step is not None and options.step.verify_step:
        _check_verification(prompts, drawing, group)
        if options.running.dtype == "bfloat16":
            raise UserError(
                "a step is smaller than the last place of weights in bfloat16: verify it with "
                "--dtype float32 (dtype=), or leave --verify-step (verify_step=True) out"
            )
    show = (options.running.progress if group.is_main else None) or Silent()
    show.stage("reading model and prompts", 1)
    metrics = [PLAIN] if estimating.adam is None else [PLAIN, read_adam_metric(estimating.adam)]
    if drawing.rollouts is not None:
        files_of(drawing.rollouts)  # a name without files is found before the model is
    group.from_main(lambda: resolve(model))  # fetched once
    tokenizer = load_tokenizer(resolve(model))  # a model that is not there leaves no folder behind
    doubts += adapter_doubts(model)
    if options.running.shard:
        _check_shard(model, options, group, doubts)
    with _heard(doubts):
        task = None if prompts is None else as_task(prompts, model, options.judging, drawing)
    given = None if drawing.rollouts is None else _given(model, task, options, doubts)
    source = given.prompt_ids if given else task.prompts if task else None
    assert source is not None
    n = given.num_samples if given else drawing.samples
    orders = Orders.of(default_ks(n) if estimating.ks is None else estimating.ks)
    check_plan(
        len(source), n, orders, estimator=estimating.estimator, prompts=estimating.reading,
        level=estimating.level,
    )  # fmt: skip
    settings = _settings(model, prompts, task, n, orders, options)
    settings["end_tokens"] = _ends(model, tokenizer, task, drawing, doubts)
    show.advance()
    return Work(
        model, task, options, group, show, metrics, given, n, orders, settings, doubts, begun
    )


def _claim(work: Work, out: Path) -> None:
    """Take the folder for this measurement."""
    work.folder = Folder(out)
    resume = work.options.running.resume
    work.group.from_main(lambda: work.folder.claim(work.settings, resume=resume))
    if work.given is None and work.task is not None:
        rendered = work.task
        texts = work.group.from_main(lambda: as_asked(rendered, work.folder.asked).prompts)
        work.task = replace(rendered, prompts=texts)


def _check_verification(prompts: GivenPrompts | None, drawing: Drawing, group: Processes) -> None:
    if group.size > 1 or prompts is None:
        raise UserError(
            "a step is verified with prompts and in one process: give prompts, "
            "and go on with --resume (resume=True) without torchrun"
        )
    if drawing.engine == "server":
        raise UserError(
            "a step cannot be verified with a server, which holds the weights before it; "
            "leave --verify-step (verify_step=True) out, or take the engine vllm or transformers"
        )


def _ends(
    model: str | Path, tokenizer: Any, task: Task | None, drawing: Drawing, doubts: list[str]
) -> list[str]:
    """The tokens that end a completion, as text, and a doubt if there should be others."""
    declared = model_ends(model, tokenizer)
    if drawing.rollouts is None and task is not None:
        ends = end_tokens(tokenizer, task, declared)
        doubts += past_a_turn(tokenizer, task, ends)
        return [decode(tokenizer, [token]) for token in ends]
    stop = drawing.stop if drawing.stop is not None or task is None else task.stop
    named = list(drawing.end_tokens or ()) if stop is None else [stop]
    return named or [decode(tokenizer, [token]) for token in declared]


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
    model: str | Path, prompts: GivenPrompts | None, task: Task | None, num_samples: int,
    orders: Orders, options: Options,
) -> dict[str, Any]:  # fmt: skip
    """All that the numbers depend on."""
    drawing, estimating = options.drawing, options.estimating
    files = [] if drawing.rollouts is None else files_of(drawing.rollouts)
    names = [path.name for path in files]
    return {
        "model": str(model),
        "prompts": None if task is None else task.name,
        "prompts_digest": None if task is None or prompts is None else digest(task, prompts, model),
        "rollouts": names[0] if len(names) == 1 else names or None,
        "rollouts_digest": _digest(files, options.logged) if files else None,
        "samples": num_samples,
        "ks": list(orders),
        "engine": None if files else drawing.engine,
        "sampling": None if files else asdict(Sampling(seed=drawing.seed)),
        "reading": estimating.reading,
        "estimator": estimating.estimator,
        "level": estimating.level,
        "seed": drawing.seed,
        "think": options.judging.think if task is None else task.think,
        "dtype": options.running.dtype,
    }


def _given(model: str | Path, task: Task | None, options: Options, doubts: list[str]) -> Rollouts:
    """Rollouts from elsewhere; what is doubtful about their law is added to the doubts."""
    drawing = options.drawing
    assert drawing.rollouts is not None
    tokenizer = load_tokenizer(resolve(model))
    named = [single_token(tokenizer, text) for text in drawing.end_tokens or ()]
    with _heard(doubts, f"{files_of(drawing.rollouts)[0]}: "), options.judging.judge() as judge:
        return read_foreign(
            drawing.rollouts, tokenizer=tokenizer, task=task, verifier=judge,
            stop=drawing.stop, ends=named or model_ends(model, tokenizer),
            think=options.judging.think, vocabulary=vocabulary_size(model),
            max_new_tokens=drawing.max_new_tokens,
            logged=options.logged,
        )  # fmt: skip


@contextmanager
def _heard(doubts: list[str], lead: str = "") -> Iterator[None]:
    """Within it, warnings about the law of samples are added to the doubts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, _DOUBTS):
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


def _try(work: Work) -> None:
    """A few tokens of the prompts through all that is asked of the model, before hours of drawing.
    A large model that another engine draws from is tried behind that, lest it is loaded twice.
    """
    if work.options.running.shard or work.folder.rollouts.is_dir():
        return
    place = Path(resolve(work.model))
    size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    if work.options.drawing.engine != "transformers" and size > _LOADED_TWICE:
        return

    def look() -> None:
        model, tokenizer = _loaded(work)
        assert work.task is not None
        try_model(model, [encode(tokenizer, one.text) for one in work.task.prompts[:2]])

    work.group.from_main(look)
    work.tried = True


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
        explained(
            work.folder.path,
            "lower --max-new-tokens (max_new_tokens=), or take another --engine (engine=)",
        ),
    ):
        missing = group.from_main(wanted)
        judge = blocks.task.verify
        # A function that cannot be imported is not found after an hour of drawing.
        with judge if isinstance(judge, Verifier) else nullcontext(), _heard(work.doubts):
            blocks.draw(group.share(missing), work.show)
    work.doubts[:] = dict.fromkeys(work.doubts)


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
    if not (work.tried or work.options.running.shard):
        texts = list(dict.fromkeys(drawn.table["prompt"].to_pylist()))
        try_model(model, [encode(tokenizer, text) for text in texts[:2]])
    ours = set(drawn.table["engine"].to_pylist()) == {"transformers"}
    with _heard(work.doubts):
        work.compared = check_same_law(
            model, drawn, tokenizer, work.show, most=_OWN if ours else MOST_TOKENS
        )
    work.doubts += remarks_on_thoughts(drawn, work.settings["think"], judged=work.given is None)
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
    work.show.note(f"rows: {work.passes.packing}")
    if not work.passes.packing.packed:
        work.doubts.append(f"Completions are scored {work.passes.packing}.")


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
        reading=Reading(estimating.reading, estimating.level, max(1, len(work.orders) - 1)),
        folding=Folding(
            folds_of(work.passes.completions.shape[0], estimating.reading),
            seed=work.options.drawing.seed,
        ),
        metrics=work.metrics, kept=Kept(work.folder.parts, work.group), progress=work.show,
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
            prediction, steps, work.model, work.task, work.folder.path,
            samples=NewSamples(n, drawing.engine, Sampling(seed=drawing.seed)), progress=work.show,
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
            "rows": str(work.passes.packing),
        },
    ) | {
        "packing": work.passes.packing.record(),
        "next": asdict(advice(work.estimate, work.folder.path)),
    }  # fmt: skip
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


def _digest(files: Sequence[Path], logged: Logged) -> str:
    """Of rollouts drawn elsewhere, and of how they are read."""
    whole = hashlib.sha256()
    for path in [*files, *([] if logged.requests is None else [Path(logged.requests)])]:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    how = replace(logged, settings=None, requests=None)
    whole.update(repr((how, logged.stated())).encode())
    return whole.hexdigest()[:20]
