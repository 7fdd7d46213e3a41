"""The run itself: TRL's trainer, what it is watched by, and how it stops and goes on."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.lm.models import is_adapter, load_model, loaded_ends, resolve
from passgrad.measurement.applicable import is_task
from passgrad.measurement.options import Drawing, Judging
from passgrad.measurement.prompts import as_task, digest
from passgrad.progress import Progress, Silent
from passgrad.rollouts.sampling import end_tokens, prompt_tokens
from passgrad.tasks.base import Task
from passgrad.training import folder
from passgrad.training.evaluation import HeldOut
from passgrad.training.outcome import draw, outcome, silent_share
from passgrad.training.settings import Settings, held_out_of
from passgrad.training.shared import SharedPrompts
from passgrad.trl.tasks import end_at_stop, task_dataset, task_reward
from passgrad.trl.trainers import PassKGRPOTrainer


class Stopped(KeyboardInterrupt):
    """A signal asked for an end; the folder holds a checkpoint of the last step."""


class _Trainer(SharedPrompts, PassKGRPOTrainer):
    """TRL's trainer on pass@k, with prompts that are read once where answers are short."""


def train(settings: Settings, out: str | Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run it in the folder ``out``, or go on with what the folder holds; returns the record.

    :raises UserError: For prompts that do not fit the settings, settings that do not fit the model,
        and a folder of other settings or of something else.
    :raises Stopped: After SIGINT or SIGTERM, when the step is done and kept. A second SIGINT does
        not wait for the step.
    """
    out, progress = Path(out), progress or Silent()
    settings.plan()  # what it refuses, before anything is read
    if is_adapter(resolve(settings.model)):
        raise UserError(
            f"{settings.model} is an adapter; merge it, by "
            f"passgrad.lm.models.save_merged({settings.model!r}, FOLDER), and train FOLDER"
        )
    trained, held = _tasks(settings)
    digests = {
        "prompts_digest": digest(trained, settings.prompts, settings.model),
        "held_out_digest": digest(held, list(held.prompts), settings.model),
    }
    folder.claim(out, settings.settled() | digests)
    with folder.held(out):
        return _train(settings, out, (trained, held), progress)


def _train(
    settings: Settings, out: Path, tasks: tuple[Task, Task], progress: Progress
) -> dict[str, Any]:
    """From the last checkpoint to the record."""
    begun = time.monotonic()
    trained, held = tasks
    checkpoint, step = folder.last_checkpoint(out)
    if step > settings.steps:
        raise UserError(f"{out} holds {step} steps, and steps is {settings.steps}; give more")
    folder.cut_back(out, step)
    model, tokenizer = load_model(settings.model)
    end_at_stop(model, tokenizer, trained)
    ends = end_tokens(tokenizer, trained, loaded_ends(model, tokenizer))
    measured = HeldOut(
        held, settings.samples_held_out, settings.orders, settings.reading, settings.seed
    )
    watch = _Watch(settings, out, measured, progress)
    trainer = _Trainer(
        model, _reward(trained, ends), _arguments(settings, out, trained.max_new_tokens),
        task_dataset(trained), processing_class=tokenizer, k=settings.plan(),
        peft_config=_adapter(settings), callbacks=[watch],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # log.jsonl has it
    watch.tokenizer = tokenizer
    trainer.share_prompts(prompt_tokens(tokenizer, trained))
    progress.stage("training", settings.steps - step)
    if step < settings.steps:
        with _signals(watch):
            trainer.train(resume_from_checkpoint=checkpoint)
        if watch.asked_to_stop and trainer.state.global_step < settings.steps:
            raise Stopped
    elif not (out / folder.MODEL).is_dir():  # a kill came between the last step and this
        trainer._load_from_checkpoint(checkpoint)
    if step < settings.steps or not (out / folder.MODEL).is_dir():
        folder.replace(out / folder.MODEL, lambda place: trainer.save_model(str(place)))
    return _finish(settings, out, trainer.record(), time.monotonic() - begun)


def _tasks(settings: Settings) -> tuple[Task, Task]:
    """The prompts that are trained on, and those that are held out."""
    task = _task(settings, settings.prompts)
    held_out = held_out_of(settings.held_out, len(task.prompts))
    if isinstance(held_out, Path):
        held = _task(settings, str(held_out))
        both = {one.text for one in task.prompts} & {one.text for one in held.prompts}
        if both:
            raise UserError(
                f"{held_out}: {len(both)} of its prompts are trained on, such as {min(both)!r:.60}"
                "; hold others out"
            )
        if len(held.prompts) < 2:
            raise UserError(f"{held_out} has one prompt; hold out at least 2")
        trained = task
    else:
        order = torch.randperm(
            len(task.prompts), generator=torch.Generator().manual_seed(settings.seed)
        ).tolist()
        chosen = set(order[:held_out])
        parts = [
            tuple(one for place, one in enumerate(task.prompts) if (place in chosen) == wanted)
            for wanted in (False, True)
        ]
        trained, held = (replace(task, prompts=part) for part in parts)
    if len(trained.prompts) < settings.prompts_per_step:
        raise UserError(
            f"prompts_per_step is {settings.prompts_per_step}, and {len(trained.prompts)} prompts "
            "are left to train on; take fewer a step, or hold out fewer"
        )
    return trained, held


def _task(settings: Settings, prompts: str) -> Task:
    own = {"verifier": "exact", "stop": None, "max_new_tokens": None}
    given = [name for name, default in own.items() if getattr(settings, name) != default]
    if given and is_task(prompts):
        raise UserError(f"{given[0]} is for a file of prompts; the task {prompts} has its own")
    return as_task(
        prompts, settings.model, Judging(verifier=settings.verifier),
        Drawing(stop=settings.stop, max_new_tokens=settings.max_new_tokens),
    )  # fmt: skip


def _reward(task: Task, ends: Sequence[int]) -> Callable[..., list[float]]:
    """1 for a success; one that was cut off before its stop is none, as in a measurement."""
    judge = task_reward(task)

    def reward(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], place: Sequence[int],
        **rest: Any,
    ) -> list[float]:  # fmt: skip
        values = judge(completions, place)
        if task.stop is None:
            return values
        ended = (bool(ids) and ids[-1] in ends for ids in completion_ids)
        return [value if done else 0.0 for value, done in zip(values, ended, strict=True)]

    return reward


def _arguments(settings: Settings, out: Path, longest: int) -> GRPOConfig:
    gpu = torch.cuda.is_available()
    rows = settings.n * settings.prompts_per_step
    at_once = settings.rows_at_once or rows
    every = settings.checkpoint_every or settings.eval_every
    return GRPOConfig(
        str(out), loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
        num_generations=settings.n, per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rows // at_once, steps_per_generation=rows // at_once,
        max_completion_length=longest, max_steps=settings.steps,
        learning_rate=settings.learning_rate, lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup, save_strategy="steps", save_steps=every, save_total_limit=2,
        logging_steps=1, log_completions=True, num_completions_to_print=0, report_to="none",
        disable_tqdm=True, seed=settings.seed, use_cpu=not gpu, bf16=gpu,
        gradient_checkpointing=gpu, dataloader_pin_memory=gpu,
    )  # fmt: skip


def _adapter(settings: Settings) -> Any:
    if not settings.rank:
        return None
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise UserError(
            "rank needs peft: install passgrad with the extra [train], or train all weights, rank 0"
        ) from error
    return LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, task_type="CAUSAL_LM",
        target_modules=list(settings.targets) if settings.targets else "all-linear",
    )  # fmt: skip


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Writes the logs as they come, measures the held-out prompts, and stops when asked to."""

    def __init__(
        self, settings: Settings, out: Path, held_out: HeldOut, progress: Progress
    ) -> None:
        self.settings, self.out, self.held_out, self.progress = settings, out, held_out, progress
        self.asked_to_stop = False
        self.tokenizer: Any = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any
    ) -> None:
        """The first measurement, if there is none."""
        if not folder.read_lines(self.out / folder.HELD_OUT):
            self._measure(model, state.global_step)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any
    ) -> None:
        """Measure where it is due; keep the last step, and the one at which it is to stop."""
        step, last = state.global_step, state.global_step >= self.settings.steps
        self.progress.advance()
        if self.asked_to_stop:
            control.should_training_stop = control.should_save = True
        if step % self.settings.eval_every == 0 or last:
            self._measure(model, step)
        if last:
            control.should_save = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> None:  # fmt: skip
        """A line a step."""
        if logs and "loss" in logs:
            numbers = {name: float(value) for name, value in logs.items()}
            folder.add_line(self.out / folder.STEPS, {"step": state.global_step} | numbers)

    def _measure(self, model: Any, step: int) -> None:
        row = self.held_out.measure(model, self.tokenizer, step)
        folder.add_line(self.out / folder.HELD_OUT, row)
        levels = (
            f"pass@{k} {row[f'pass@{k}']:.3f} [{row[f'pass@{k}_low']:.3f}, "
            f"{row[f'pass@{k}_high']:.3f}]"
            for k in self.held_out.orders
        )
        self.progress.note(f"step {step}, held-out prompts: {', '.join(levels)}")


@contextmanager
def _signals(watch: _Watch) -> Iterator[None]:
    """SIGINT and SIGTERM end the run behind the step that is being made."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if watch.asked_to_stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        watch.asked_to_stop = True
        watch.progress.note("stopping when this step is done and kept")

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _finish(
    settings: Settings, out: Path, trained: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """The record and the figure, from what the folder holds."""
    rows = folder.read_lines(out / folder.HELD_OUT)
    steps = folder.read_lines(out / folder.STEPS)
    found = outcome(rows, settings.orders, settings.reading, silent_share(steps))
    draw(rows, steps, settings.orders, out / folder.PLOT)
    held = json.loads((out / folder.SETTINGS).read_text(encoding="utf-8"))["settings"]
    record = found | {
        "trained": dict(trained),
        "held_out_prompts": len(rows[0]["num_correct"]),
        "settings": held | {"steps": settings.steps},
        "provenance": provenance.record(seed=settings.seed) | {"seconds": round(seconds, 1)},
    }
    write_atomic(out / folder.RECORD, json.dumps(record, indent=2).encode())
    return record
