"""From a model and prompts to <grad J_k, grad J_1> with intervals: ``passgrad measure``."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes, RemoteError, processes
from passgrad.lm.distributed_passes import DistributedPasses
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET
from passgrad.lm.models import load_model, load_tokenizer, resolve
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.measurement.drawing import Drawing
from passgrad.measurement.estimate import ConflictEstimate, check_plan, estimate_conflict
from passgrad.measurement.failures import explained
from passgrad.measurement.folder import Folder
from passgrad.measurement.kept import Kept
from passgrad.measurement.metric import PLAIN, Metric, read_adam_metric
from passgrad.measurement.parted import ModelParts
from passgrad.measurement.parts import PartsEstimate, estimate_parts
from passgrad.measurement.prompts import GivenPrompts, as_task, digest
from passgrad.measurement.record import record_of, write_tables
from passgrad.measurement.remarks import remarks
from passgrad.measurement.step import StepPrediction, StepSize, predict_step
from passgrad.measurement.step_samples import ModelSteps
from passgrad.measurement.stored import StoredPasses
from passgrad.measurement.verify import verify_step as take_step
from passgrad.progress import Progress, Silent
from passgrad.rollouts.foreign_logs import RetokenisedWarning, SamplingLawWarning
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.rollouts.same_law import LawComparison, check_same_law
from passgrad.rollouts.sampling import Engine
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
    step: StepPrediction | None
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
    rollouts: str | Path | None = None,
    samples: int = 64,
    ks: Iterable[int] | None = None,
    engine: Engine = "auto",
    base_url: str | None = None,
    verifier: str | Callable[[str, str], Any] = "exact",
    verifier_seconds: float = 5.0,
    verifier_memory: int = 1024,
    stop: str | None = None,
    max_new_tokens: int = 512,
    reading: Prompts = "new",
    estimator: str = "pkpo-loo1",
    level: float = 0.95,
    seed: int = 0,
    parts: bool = True,
    adam: str | Path | None = None,
    step: bool = True,
    step_size: str = "points=1",
    verify_step: bool = False,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    resume: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure the conflict of pass@k and pass@1 of a model on prompts.

    :param model: An embedded name, a local folder, a hub name, or the folder of an adapter, whose
        parameters alone are then differentiated.
    :param prompts: A file of JSON lines (``prompt`` or ``messages``, ``answer``; optional ``id``,
        ``group``), the name of a task, a task, or prompts. With ``rollouts`` it may be left out if
        these have prompts and rewards.
    :param out: The folder of the measurement.
    :param rollouts: Completions drawn elsewhere (:mod:`passgrad.rollouts.foreign_logs`), from this
        model.
    :param samples: n, completions a prompt; with ``rollouts`` it is theirs.
    :param ks: Orders with intervals; by default powers of two up to n / 2.
    :param base_url: Of an OpenAI-compatible vLLM server that serves the model, for engine "server".
    :param verifier, verifier_seconds, verifier_memory: How a completion is judged, and what a
        verdict may take in seconds and MiB; for a file and for prompts.
    :param stop: What ends a completion, for a file and for prompts; None is the model's end token.
    :param max_new_tokens: Where it is cut off otherwise; one that lacks its ``stop`` is wrong.
    :param reading: Whether the prompts stand for others like them ("new") or for themselves
        ("fixed").
    :param estimator: Of the gradients of pass@k; an unbiased one.
    :param seed: Of the completions and of their halves.
    :param parts: Whether the product is split by layer and group, at the order with the most
        negative one; about four more passes.
    :param adam: A safetensors file with Adam's second moments
        (:func:`passgrad.measurement.metric.read_adam_metric`): the parts in its metric too.
    :param step, step_size: Whether the change by a step is predicted, along the gradient of the
        order with the most negative product among those with samples enough for a direction, and
        how long the step is (:class:`passgrad.measurement.step.StepSize`).
    :param verify_step: Take the step, and draw as many completions again before and after it.
    :param token_budget: Tokens a packed row; less takes less memory.
    :param resume: Go on with what ``out`` holds. Completions and passes that are there are not
        made again.

    Under torchrun the work is shared by its processes; the first writes and speaks.

    :raises UserError: If ``out`` holds a measurement and ``resume`` is not set, or one with other
        settings; for a lack of memory or disk space; and for all that reading, sampling and
        estimation refuse.

    >>> import passgrad as pg
    >>> pg.measure("smollm2-135m", "conventions", out="conflict", samples=16)  # doctest: +SKIP
    """
    begun = time.perf_counter()
    size = StepSize.parse(step_size)
    metrics = [PLAIN] if adam is None else [PLAIN, read_adam_metric(adam)]
    with processes() as group:
        show = progress if progress and group.is_main else Silent()
        group.from_main(lambda: resolve(model))  # fetched once
        load_tokenizer(resolve(model))  # a model that is not there leaves no folder behind
        if verify_step and (group.size > 1 or prompts is None):
            raise UserError(
                "a step is verified with prompts and in one process: give prompts, "
                "and go on with resume without torchrun"
            )
        if verify_step and engine == "server":
            raise UserError(
                "a step cannot be verified with a server, which holds the weights before it; "
                "leave --verify-step out, or take the engine vllm or transformers"
            )
        task = None
        if prompts is not None:
            task = as_task(
                prompts, model, verifier=verifier, verifier_seconds=verifier_seconds,
                verifier_memory=verifier_memory, stop=stop, max_new_tokens=max_new_tokens,
            )  # fmt: skip
        doubts: list[str] = []
        given = None
        if rollouts is not None:
            given = _given(rollouts, model, task, stop, max_new_tokens, doubts)
        elif task is None:
            raise UserError("neither prompts nor rollouts are given: name one of them")
        n = given.num_samples if given else samples
        orders = default_ks(n) if ks is None else sorted(set(ks))
        check_plan(
            len(given.prompt_ids if given else task.prompts),  # type: ignore[union-attr]
            n, orders, estimator=estimator, prompts=reading, level=level,
        )  # fmt: skip
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
        group.from_main(lambda: folder.claim(asked, resume=resume))
        incidents: list[dict[str, Any]] = []
        drawn = given
        if drawn is None:
            assert task is not None
            drawing = Drawing(str(model), task, n, engine, law, folder.rollouts, base_url)
            if engine == "server":
                _first_block(model, drawing, show, group)
            _draw(drawing, show, group, drawing.missing)
            drawn, incidents = drawing.rollouts(), drawing.incidents()
        with explained(folder.path, f"lower token_budget (now {token_budget})"):
            passes, compared = _passes(model, drawn, doubts, show, group, token_budget)
            # Two halves, each with a gradient and its derivatives for every order and for order 1.
            show.stage("gradients and derivatives along them", 2 * len({1, *orders}))
            estimate = estimate_conflict(
                StoredPasses(passes, folder.passes, show.advance, group), orders,
                estimator=estimator, prompts=reading, level=level, seed=seed,
            )  # fmt: skip
            chosen = chosen_order(estimate)
            by_part = None
            if parts:
                by_part = _parts(estimate, chosen, passes, metrics, folder, show, group, seed)
            stepped = None
            if step or verify_step:
                steps = ModelSteps(passes, folder.passes, show.advance)
                # Half of the completions of a half: beyond it a direction rests on a few of them.
                along = chosen_order(estimate, n // 4 if reading == "fixed" else n // 2)
                show.stage(f"a step along the gradient of pass@{along}", 2)
                try:
                    stepped = predict_step(
                        steps, along, orders, size=size, prompts=reading, estimator=estimator,
                        level=level, seed=seed,
                    )  # fmt: skip
                except UserError as error:
                    if verify_step or isinstance(error, RemoteError):
                        raise
                    doubts.append(f"No step is predicted: {error}.")
            if verify_step and stepped and task:
                stepped = stepped.with_realised(
                    take_step(stepped, steps, model, task, folder.path, num_samples=n,
                              engine=engine, law=law, progress=show)
                )  # fmt: skip
        found = tuple(doubts + remarks(estimate, incidents))
        record = record_of(
            estimate, stepped, asked, found, incidents, compared,
            seconds=time.perf_counter() - begun, num_processes=group.size,
        )  # fmt: skip
        with explained(folder.path, "close other programs"):
            group.from_main(lambda: write_tables(folder, estimate, by_part, stepped, drawn, record))
    return Measurement(estimate, by_part, stepped, drawn, found, record, folder.path)


def chosen_order(estimate: ConflictEstimate, largest: float = math.inf) -> int:
    """The order whose parts and step are of interest: that with the most negative product, in
    units of its standard error; not 1 where there is another. At most ``largest``, if there is one.
    """
    error = torch.as_tensor(estimate.standard_error)
    ratio = torch.as_tensor(estimate.inner_product) / error.where(error > 0, torch.inf)
    ks = torch.as_tensor(estimate.ks)
    ratio[ks > max(largest, float(ks[0]))] = torch.inf
    if ratio.isfinite().sum() > 1:
        ratio[ks == 1] = torch.inf
    return int(estimate.ks[int(ratio.argmin())])


def _given(
    path: str | Path, model: str | Path, task: Task | None, stop: str | None, max_new_tokens: int,
    doubts: list[str],
) -> Rollouts:  # fmt: skip
    """Rollouts from elsewhere; what is doubtful about their law is added to the doubts."""
    with _heard(doubts, f"{path}: "):
        return read_foreign(
            path, tokenizer=load_tokenizer(resolve(model)), task=task, stop=stop,
            max_new_tokens=max_new_tokens,
        )  # fmt: skip


@contextmanager
def _heard(doubts: list[str], lead: str = "") -> Iterator[None]:
    """Within it, warnings about the law of samples are added to the doubts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if issubclass(one.category, SamplingLawWarning | RetokenisedWarning):
            doubts.append(str(one.message).removeprefix(lead))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _first_block(
    model: str | Path, drawing: Drawing, show: Progress, group: Processes
) -> None:  # fmt: skip
    """Draw one block, and refuse a server that has another model before it is asked for the rest.
    Doubts that do not refuse it are heard when all completions are there.
    """
    missing = group.from_main(drawing.missing)
    if 0 not in missing or len(missing) == 1:
        return
    _draw(drawing, show, group, lambda: [0])

    def compare() -> None:
        loaded, tokenizer = load_model(model)
        loaded.to(group.device)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingLawWarning)
            check_same_law(loaded, Rollouts.read(drawing.path(0)), tokenizer)

    group.from_main(compare)


def _draw(
    drawing: Drawing, show: Progress, group: Processes, wanted: Callable[[], list[int]]
) -> None:
    """Draw these blocks, each process its share of them."""
    with (
        group.together(limit=_DRAWING),
        explained(drawing.folder.parent, "lower max_new_tokens, or take another engine"),
    ):
        missing = group.from_main(wanted)
        judge = drawing.task.verify
        # A function that cannot be imported is not found after an hour of drawing.
        with judge if isinstance(judge, Verifier) else nullcontext():
            drawing.draw(group.share(missing), show)


def _passes(
    model: str | Path, drawn: Rollouts, doubts: list[str], show: Progress, group: Processes,
    token_budget: int,
) -> tuple[DistributedPasses, LawComparison | None]:  # fmt: skip
    """Passes over the completions, which are first compared with the model."""
    loaded, tokenizer = load_model(model)
    loaded.to(group.device)  # type: ignore[arg-type]
    compared = None
    if set(drawn.table["engine"].to_pylist()) != {"transformers"}:
        with _heard(doubts):
            compared = check_same_law(loaded, drawn, tokenizer)
    completions = Completions.from_rollouts(drawn, tokenizer)
    show.note(
        f"{len(completions.sequences)} distinct completions of {drawn.rewards.size}, "
        f"{drawn.num_correct.sum() / drawn.rewards.size:.1%} right"
    )
    rewards = torch.as_tensor(drawn.rewards)
    return (
        DistributedPasses(loaded, completions, rewards, group=group, token_budget=token_budget),
        compared,
    )


def _parts(
    estimate: ConflictEstimate, chosen: int, passes: DistributedPasses, metrics: list[Metric],
    folder: Folder, show: Progress, group: Processes, seed: int,
) -> PartsEstimate:  # fmt: skip
    show.stage(f"parts of the model at k = {chosen}", 1)
    prompts = passes.completions.shape[0] // (1 if estimate.prompts == "fixed" else 2)
    return estimate_parts(
        ModelParts(passes), chosen, estimator=estimate.estimator, prompts=estimate.prompts,
        level=estimate.level, seed=seed, folds=max(2, min(_FOLDS, prompts // 2)), metrics=metrics,
        kept=Kept(folder.path / "parts", group), done=lambda _, of: show.advance(1 / of),
    )  # fmt: skip


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:20]
