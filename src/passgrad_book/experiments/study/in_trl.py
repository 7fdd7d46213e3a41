"""One arm of the study in TRL's own trainer, beside runs of the study that differ in their draws.

The trainer has the same checkpoint, prompts, batches, optimiser and rate; its order of prompts and
its samples are its own. Its curve should lie among those of the study's runs.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from transformers import PrinterCallback, TrainerCallback

from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.trl.tasks import task_dataset, task_reward
from passgrad.trl.trainers import PassKGRPOTrainer
from passgrad_book.build.experiment import Tolerance, experiment
from passgrad_book.experiments.small_models.character_llama import character_tokenizer
from passgrad_book.experiments.study.arms import NUM_SAMPLES, K
from passgrad_book.experiments.study.network import llama_of
from passgrad_book.experiments.study.readings import level_row
from passgrad_book.experiments.study.starts import checkpoint
from passgrad_book.experiments.study.stored import SIZES
from passgrad_book.experiments.study.training import (
    BATCH,
    BETAS,
    EPSILON,
    WARM_UP,
    reading_steps,
    train,
)
from passgrad_book.experiments.study.words import LENGTH, NUM_LETTERS, RULES, Prompts, prompt_sets

if TYPE_CHECKING:
    from pandas import DataFrame

#: the characters of the tokens behind 0, in order
CHARACTERS = "".join(chr(ord("A") + place) for place in range(NUM_LETTERS)) + "".join(RULES) + "="
#: arms that are an order of TRL's trainer
ORDERS = {"pass@1": 1, "pass@4": 4, "pass@8": K, "mixture 0.5": {1: 0.5, K: 0.5}}


def as_task(prompts: Prompts) -> Task:
    """The prompts as texts with one accepted answer each."""

    def text(tokens: Tensor) -> str:
        return "".join(CHARACTERS[token - 1] for token in tokens.tolist())

    rows = zip(prompts.prompts, prompts.answers, prompts.family, strict=True)
    listed = [Prompt("", text(x), text(y), str(f), text(x)) for x, y, f in rows]
    return Task("words", tuple(listed), exact_match, None, LENGTH)


class _Readings(TrainerCallback):  # type: ignore[misc]
    """Exact levels of the sets at the reading steps of the study."""

    def __init__(self, model: Any, sets: Mapping[str, Prompts], steps: int) -> None:
        self.model, self.sets, self.wanted = model, sets, set(reading_steps(steps))
        self.rows: list[dict[str, float]] = []

    def _read(self, step: int) -> None:
        if step in self.wanted:
            theta = parameters_to_vector(self.model.parameters()).detach()
            self.rows.append({"step": step} | level_row(theta, self.sets))

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._read(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._read(state.global_step)


def train_in_trl(
    start: Tensor,
    sets: Mapping[str, Prompts],
    arm: str,
    *,
    seed: int,
    steps: int,
    learning_rate: float,
) -> DataFrame:
    """One run of :class:`~passgrad.trl.PassKGRPOTrainer` from ``start``: step and levels."""
    from trl import GRPOConfig

    model = llama_of(start)
    readings = _Readings(model, sets, steps)
    task = as_task(sets["train"])
    adam = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0
    )
    warm_up = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: min((step + 1) / WARM_UP, 1.0))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        args = GRPOConfig(
            folder, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
            max_steps=steps, num_generations=NUM_SAMPLES,
            max_completion_length=LENGTH, per_device_train_batch_size=BATCH * NUM_SAMPLES,
            seed=seed, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = PassKGRPOTrainer(
            model, task_reward(task), args, task_dataset(task), k=ORDERS[arm],
            processing_class=character_tokenizer(CHARACTERS), scale="gradient",
            callbacks=[readings], optimizers=(adam, warm_up),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return pd.DataFrame(readings.rows)


@experiment(version=1, label="{regime}-{arm}-seed-{seed}")
def study_in_trl(
    *,
    regime: str,
    arm: str,
    seed: int,
    learning_rate: float,
    steps: int,
    repeats: int,
    supervised_steps: int = 600,
) -> Mapping[str, DataFrame]:
    """An arm in TRL and ``repeats`` times in the study's own loop, from one checkpoint.

    ``readings``: columns source ("TRL" or "study"), repeat, step and the levels of both sets.
    """
    start = checkpoint(seed, steps=supervised_steps)
    sets = prompt_sets(regime, SIZES, seed)
    given: dict[str, Any] = {"steps": steps, "learning_rate": learning_rate}
    runs = [train_in_trl(start, sets, arm, seed=seed, **given).assign(source="TRL", repeat=0)]
    for repeat in range(repeats):
        own, _ = train(start, sets, arm, seed=1000 + 100 * seed + repeat, **given)
        runs.append(
            own[runs[0].columns.drop(["source", "repeat"])].assign(source="study", repeat=repeat)
        )
    return {"readings": pd.concat(runs, ignore_index=True)}


study_in_trl.witnessed(
    regime="negative", arm="pass@8", seed=200, learning_rate=2e-4, steps=3, repeats=1,
    supervised_steps=30, tolerance=Tolerance(2e-3, "a few steps of float32 on sampled batches"),
)  # fmt: skip
study_in_trl.full["*"] = Tolerance(
    1.0, "hundreds of sampled steps: one answer that is drawn otherwise makes another run"
)
