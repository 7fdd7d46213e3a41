"""A training run from a few settings: the recipe as ``passgrad train`` runs it.

What it leaves in its folder:

- ``passgrad.json`` and ``checkpoint-*``: what is trained, and where a stopped run goes on,
- ``log.jsonl``: a line a step or evaluation, written as it comes,
- ``completions/``: prompts, answers and rewards, for ``passgrad logs``,
- ``summary.json``, ``curve.svg``: what came of it,
- the trained weights, or the adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import PrinterCallback, TrainerCallback

from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.tasks.base import Task

Objective = Literal["mixture", "pass@k", "pass@1", "annealed", "after-steps", "conflict-free"]


@dataclass(frozen=True)
class Recipe:
    """The settings of a run. A mixture of pass@1 and pass@8 is what it trains by default."""

    model: str
    prompts: str
    out: Path
    objective: Objective = "mixture"
    k: int = 8
    share: float = 0.5
    samples: int = 16
    prompts_per_step: int = 8
    steps: int = 200
    learning_rate: float = 1e-5
    rank: int = 0
    held_out: int = 32
    eval_every: int = 20
    max_new_tokens: int = 512
    verifier: str = "exact"
    seed: int = 0

    def plan(self) -> Any:
        """What the trainer takes as ``k``. UserError for an unknown objective."""
        from passgrad.trl.conflict_free import ConflictFree
        from passgrad.trl.schedules import AfterSteps, AnnealedK

        known = get_args(Objective)
        if self.objective not in known:
            raise UserError(f"objective is {self.objective!r}; it is one of {', '.join(known)}")
        if not 0 < self.share < 1:
            raise UserError(
                f"share is that of pass@1 in a mixture, above 0 and below 1; got {self.share:g}"
            )
        plans = {
            "pass@1": lambda: 1,
            "pass@k": lambda: self.k,
            "mixture": lambda: {1: self.share, self.k: 1 - self.share},
            "annealed": lambda: AnnealedK(self.k, 1),
            "after-steps": lambda: AfterSteps(self.k, mixture=self.share),
            "conflict-free": lambda: ConflictFree(self.k),
        }
        return plans[self.objective]()

    def settings(self) -> dict[str, Any]:
        """All but the folder, as plain values: a folder goes on with the same ones alone."""
        given = asdict(self)
        del given["out"], given["steps"], given["eval_every"]
        return given


def train(recipe: Recipe) -> dict[str, Any]:
    """Run it, or go on where the folder stands; returns the summary.

    :raises UserError: For settings that do not fit each other, the task, or the folder.
    """
    from transformers.trainer_utils import get_last_checkpoint

    plan = recipe.plan()
    _claim(recipe)
    trainer, held = _trainer(recipe, plan)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(recipe.out)))
    trainer.save_model()
    summary = summarise(trainer.state.log_history, recipe, held)
    write_atomic(recipe.out / "summary.json", json.dumps(summary, indent=2).encode())
    _draw(trainer.state.log_history, recipe)
    return summary


def _claim(recipe: Recipe) -> None:
    """The folder of a run with these settings, or a new one. UserError for that of another."""
    from passgrad.provenance import record

    file = recipe.out / "recipe.json"
    settings = recipe.settings()
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))["settings"]
        other = [name for name in settings if before.get(name) != settings[name]]
        if other:
            name = other[0]
            raise UserError(
                f"{recipe.out} holds a run with {name} {before.get(name)!r}, this one has "
                f"{settings[name]!r}: name another folder, or give the settings of that run"
            )
        return
    if recipe.out.is_dir() and any(recipe.out.iterdir()):
        raise UserError(
            f"{recipe.out} is not empty, and no run of passgrad train: name another folder"
        )
    recipe.out.mkdir(parents=True, exist_ok=True)
    content = {"settings": settings, "made_with": record()}
    write_atomic(file, json.dumps(content, indent=2, default=str).encode())


def _trainer(recipe: Recipe, plan: Any) -> tuple[Any, int]:
    """The trainer, and how many prompts are held out."""
    import torch
    from trl import GRPOConfig

    from passgrad.lm.models import load_model
    from passgrad.trl.tasks import end_at_stop, task_dataset, task_reward
    from passgrad.trl.trainers import PassKGRPOTrainer

    model, tokenizer = load_model(recipe.model)
    task = _task(recipe, tokenizer)
    held = recipe.held_out
    if not 2 <= held <= len(task.prompts) - recipe.prompts_per_step:
        raise UserError(
            f"{recipe.prompts} has {len(task.prompts)} prompts: hold out at least 2, and leave "
            f"{recipe.prompts_per_step} for a step; held_out is {held}"
        )
    end_at_stop(model, tokenizer, task)
    rows = task_dataset(task).train_test_split(held, seed=recipe.seed)
    on_gpu = torch.cuda.is_available()
    evaluated = max(recipe.samples, 2 * recipe.k)
    args = GRPOConfig(
        str(recipe.out), loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
        num_generations=recipe.samples, num_generations_eval=evaluated,
        per_device_train_batch_size=recipe.samples * recipe.prompts_per_step,
        per_device_eval_batch_size=evaluated * held, max_completion_length=task.max_new_tokens,
        max_steps=recipe.steps, learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup", warmup_steps=min(10, recipe.steps // 5),
        eval_strategy="steps", eval_steps=recipe.eval_every, eval_on_start=True,
        save_strategy="steps", save_steps=recipe.eval_every, save_total_limit=2, logging_steps=1,
        log_completions=True, num_completions_to_print=0, report_to="none", seed=recipe.seed,
        use_cpu=not on_gpu, bf16=on_gpu,
        gradient_checkpointing=on_gpu, dataloader_pin_memory=on_gpu,
    )  # fmt: skip
    trainer = PassKGRPOTrainer(
        model, task_reward(task), args, rows["train"], rows["test"], processing_class=tokenizer,
        k=plan, peft_config=_adapter(recipe.rank), callbacks=[_Lines(recipe.out / "log.jsonl")],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # log.jsonl has it
    return trainer, held


def _task(recipe: Recipe, tokenizer: Any) -> Task:
    from passgrad.tasks.prompt_files import TASKS, read_prompts, task_by_name

    name = recipe.prompts
    if name in TASKS or name.startswith("gym:"):
        return task_by_name(name)
    return read_prompts(
        name, tokenizer=tokenizer, verifier=recipe.verifier, max_new_tokens=recipe.max_new_tokens
    )


def _adapter(rank: int) -> Any:
    if not rank:
        return None
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise UserError("rank needs peft: pip install peft, or rank 0 for all weights") from error
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


class _Lines(TrainerCallback):  # type: ignore[misc]
    """What is logged, a line at a time, in a file that is whole at any time."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Take the lines behind the checkpoint away: their steps are made again."""
        if self.file.is_file():
            lines = self.file.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
            write_atomic(self.file, "".join(f"{line}\n" for line in kept).encode())

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        """Add a line."""
        if state.is_world_process_zero and logs:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def summarise(history: list[dict[str, Any]], recipe: Recipe, held: int) -> dict[str, Any]:
    """Start, lowest and end of held-out pass@1 and pass@k with their 95 % intervals, the mean share
    of silent groups, and the steps.
    """
    evaluated = [row for row in history if "eval_pass@1" in row]
    orders = [1] if recipe.objective == "pass@1" else [1, recipe.k]
    summary: dict[str, Any] = {"held_out_prompts": held, "objective": recipe.objective}
    for k in orders:
        name = f"eval_pass@{k}"
        levels = [row for row in evaluated if name in row]
        if not levels:
            continue
        lowest = min(levels, key=lambda row: row[name])
        for word, row in (("start", levels[0]), ("lowest", lowest), ("end", levels[-1])):
            summary[f"pass@{k}_{word}"] = {
                "step": row["step"], "value": row[name], "low": row[f"{name}_low"],
                "high": row[f"{name}_high"],
            }  # fmt: skip
    silent = [row["passk/silent_groups"] for row in history if "passk/silent_groups" in row]
    if silent:
        summary["silent_groups"] = sum(silent) / len(silent)
    return summary


def _draw(history: list[dict[str, Any]], recipe: Recipe) -> None:
    """Held-out pass@1 and pass@k along the run, with their intervals."""
    from matplotlib.figure import Figure

    from passgrad.palette import style_of

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for k in dict.fromkeys((1, recipe.k)):
        name = f"eval_pass@{k}"
        rows = [row for row in history if name in row]
        steps = [row["step"] for row in rows]
        look = style_of(f"pass@{k}")
        axes.plot(
            steps,
            [row[name] for row in rows],
            color=look.light,
            linestyle=look.dash,
            marker=look.marker,
            label=f"pass@{k}",
        )
        axes.fill_between(
            steps,
            [row[f"{name}_low"] for row in rows],
            [row[f"{name}_high"] for row in rows],
            color=look.light,
            alpha=0.2,
            linewidth=0,
        )
    axes.set(xlabel="step", ylabel="pass@k of held-out prompts", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(recipe.out / "curve.svg")
