r"""Training runs in TRL from one checkpoint, with exact success rates after every step.

The prompts have one accepted answer each, so that :class:`~passgrad.worlds.language.LanguageWorld`
gives p(x) and its gradient in the trained weights exactly, beside whatever the trainer estimates
from its samples. What is trained is a LoRA adapter in the last layers of the model: theta below is
the flat vector of its weights, and all gradients are in these coordinates.

*The checkpoint.* :func:`prepare` moves every prompt towards a success rate that is asked for, by
exact ascent (Adam) on :math:`\sum_x D(x) [t_x \log p(x) + (1 - t_x) \log(1 - p(x))]` from the
pretrained weights. The rates at the start are thus designed; what their gradients do to each other
is the model's own.

*A run.* :func:`train` is plain SGD along the estimates of TRL's trainer with the advantages of
:mod:`passgrad.estimators`, in units of the gradient. After every step p(x) and all grad p(x) are
taken anew, so that the change of J_1 that a step makes can be held against
:math:`\langle \nabla J_1(\theta_t), \theta_{t+1} - \theta_t \rangle`.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from passgrad.errors import UserError
from passgrad.estimators.group import GRPO
from passgrad.lm.models import load_model
from passgrad.lm.parameters import without_wrapper
from passgrad.objectives import PassAtK
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.conventions import conventions
from passgrad.trl.callback import ConflictCallback
from passgrad.trl.tasks import end_at_stop, task_dataset, task_reward
from passgrad.trl.trainers import PassKGRPOTrainer
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build.experiment import Tolerance, experiment, model_input
from passgrad_book.experiments.small_models.witness_model import witness_model

if TYPE_CHECKING:
    from pandas import DataFrame

#: name of an objective -> arguments of the trainer; GRPO as TRL has it, deviation + 1e-4
OBJECTIVES: dict[str, dict[str, Any]] = {
    "pass@1": {"k": 1},
    "pass@4": {"k": 4},
    "pass@8": {"k": 8},
    "GRPO": {"estimator": GRPO(epsilon=1e-4)},
}
#: GRPO's weight of a prompt that is solved four times in five is 2.5: with this share of the
#: learning rate its steps are as long there as those of the others
_SHARES = {"GRPO": 0.4}
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, eq=False)
class Start:
    """One checkpoint: the model with its adapter, the world of its prompts, theta."""

    model: Any
    tokenizer: Any
    task: Task
    world: LanguageWorld
    theta: Tensor

    def reset(self) -> None:
        """Put the checkpoint back into the model."""
        self.world.layout.load(self.world.model, self.theta)


def gym_sums(*, num_prompts: Sequence[int] = (8, 2), seed: int = 0) -> Task:
    """Sums of two and of three one-digit terms from reasoning-gym's ``chain_sum``.

    The sentence before the expression is left off, ``"4 + 3 = "``, and the answer is that of
    reasoning-gym, ended by a newline. Only sums with an answer of one or two digits are taken, each
    once.

    :param num_prompts: Of two terms (group "two terms") and of three (group "three terms").
    :raises UserError: Without reasoning-gym.
    """
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        raise UserError("gym_sums needs reasoning-gym: install passgrad[lm]") from error
    prompts: list[Prompt] = []
    for terms, count in zip((2, 3), num_prompts, strict=True):
        items = reasoning_gym.create_dataset(
            "chain_sum", size=20 * count, seed=seed, min_terms=terms, max_terms=terms,
            min_digits=1, max_digits=1,
        )  # fmt: skip
        found: dict[str, str] = {}
        for item in items:
            question = item["question"].rsplit(": ", 1)[-1] + " "
            if re.fullmatch(r"\d{1,2}", item["answer"]) and len(found) < count:
                found[question] = item["answer"]
        group = {2: "two terms", 3: "three terms"}[terms]
        prompts += [Prompt("", x, answer, group, x.strip()) for x, answer in found.items()]
    return Task("gym sums", tuple(prompts), exact_match, "\n", 4)


def prepare(
    model: Any,
    tokenizer: Any,
    task: Task,
    *,
    targets: Sequence[float],
    steps: int = 36,
    learning_rate: float = 8e-4,
    layers: int = 4,
    rank: int = 8,
) -> Start:
    """An adapter in the last ``layers`` layers, brought to given success rates.

    :param model: A causal language model; its weights are frozen.
    :param targets: One rate a group of prompts, in the order in which the groups stand.
    :param steps: Of Adam; the step shrinks over the second half.
    :raises UserError: For targets that do not fit the groups or are not within (0, 1).
    """
    from peft import LoraConfig, get_peft_model

    groups = list(dict.fromkeys(x.group for x in task.prompts))
    if len(targets) != len(groups) or not all(0 < rate < 1 for rate in targets):
        raise UserError(
            f"targets is {tuple(targets)}: give a rate within (0, 1) for each of {groups}"
        )
    depth = model.config.num_hidden_layers
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=_LINEAR, task_type="CAUSAL_LM",
        layers_to_transform=list(range(max(depth - layers, 0), depth)),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = get_peft_model(model, config)
    inner = without_wrapper(adapted)
    end_at_stop(inner, tokenizer, task)
    world = LanguageWorld(inner, tokenizer, task.prompts, stop=task.stop or "\n")
    wanted = torch.tensor([targets[groups.index(x.group)] for x in task.prompts]).double()
    theta = world.own_parameters()
    adam = torch.optim.Adam([theta], betas=(0.9, 0.99))
    for step in range(1, steps + 1):
        adam.param_groups[0]["lr"] = learning_rate * min(1.0, (steps + 4 - step) / (0.6 * steps))
        p = world.success(theta).clamp(1e-6, 1 - 1e-6)
        weights = world.masses * (wanted / p - (1 - wanted) / (1 - p))
        _, rows = world.vjp(theta, weights[None])
        theta.grad = -rows[0]
        adam.step()
    start = Start(adapted, tokenizer, task, world, theta)
    start.reset()
    return start


class _Exact(TrainerCallback):  # type: ignore[misc]
    """The exact state of the world before training and after every step."""

    def __init__(self, world: LanguageWorld) -> None:
        self.world = world
        self.rows: list[dict[str, float]] = []
        self.prompts: list[dict[str, Any]] = []
        self._before: tuple[Tensor, Tensor] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._look(state.global_step)

    def _look(self, step: int) -> None:
        world = self.world
        theta = world.own_parameters()
        p, jacobian = world.vjp(theta, torch.eye(world.num_prompts, dtype=torch.float64))
        rates = [PassAtK(k) for k in (1, 4, 8)]
        weights = torch.stack([world.masses * one.weight(p) for one in rates])
        gradients = weights.to(jacobian) @ jacobian
        gram = (gradients @ gradients.T).double()
        norm = gram.diagonal().sqrt()
        agreement = (jacobian @ gradients[0]).double()
        row = {"step": float(step)}
        for i, one in enumerate(rates):
            row[one.label] = float(one.value(p) @ world.masses)
            row[f"norm {one.label}"] = float(norm[i])
            row[f"cosine {one.label}"] = float(gram[0, i] / (norm[0] * norm[i]))
        row["negative agreement"] = float(world.masses[agreement < 0].sum())
        if self._before is not None:
            moved, gradient = theta - self._before[0], self._before[1]
            row["length"] = float(moved.norm())
            for i, one in enumerate(rates):
                row[f"predicted {one.label}"] = float(
                    (gradient[i] * moved).sum(dtype=torch.float64)
                )
                row[f"realised {one.label}"] = row[one.label] - self.rows[-1][one.label]
        self._before = (theta, gradients)
        self.rows.append(row)
        for x, rate, one in zip(world.prompts, p.tolist(), agreement.tolist(), strict=True):
            self.prompts.append(
                {"step": step, "id": x.id, "group": x.group, "p": rate, "agreement": one}
            )


def train(
    start: Start,
    objective: str,
    seed: int,
    *,
    steps: int = 8,
    learning_rate: float = 0.15,
    batch_prompts: int = 5,
    num_generations: int = 16,
    measure_every: int = 3,
) -> dict[str, DataFrame]:
    """One run from ``start``, which is left as it was.

    Returns the tables

    - ``steps``: exact pass@1, pass@4 and pass@8 before training (step 0) and after every step, the
      norms of their gradients, their cosine with that of pass@1, the share of prompts with negative
      agreement, and the change of each that the step made ("realised") and was to make to first
      order ("predicted"); the trainer's own estimates of pass@1 and pass@8 from the batch that was
      sampled at the state of that row ("batch pass@1", ...), nan in the last row;
    - ``prompts``: exact p and agreement of every prompt at every step;
    - ``conflict``: what :class:`~passgrad.trl.ConflictCallback` measured on every
      ``measure_every``-th batch.

    :param objective: One of :data:`OBJECTIVES`.
    :raises UserError: For another objective, and where the groups are too small for its k.
    """
    import pandas as pd
    from trl import GRPOConfig

    if objective not in OBJECTIVES:
        raise UserError(f"objective {objective!r} is none of: {', '.join(OBJECTIVES)}")
    task = start.task
    start.reset()
    exact, watch = _Exact(start.world), ConflictCallback(8, every=measure_every, plot=False)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        args = GRPOConfig(
            folder, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9, optim="sgd",
            learning_rate=learning_rate * _SHARES.get(objective, 1.0),
            lr_scheduler_type="constant", max_steps=steps,
            num_generations=num_generations, max_completion_length=task.max_new_tokens,
            per_device_train_batch_size=batch_prompts * num_generations, seed=seed,
            gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
            logging_steps=1, save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = PassKGRPOTrainer(
            start.model, task_reward(task), args, task_dataset(task),
            processing_class=start.tokenizer, scale="gradient", callbacks=[exact, watch],
            **OBJECTIVES[objective],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    start.reset()
    table = pd.DataFrame(exact.rows)
    for k in (1, 8):
        seen = [
            row[f"passk/pass@{k}"] for row in trainer.state.log_history if f"passk/pass@{k}" in row
        ]
        table[f"batch pass@{k}"] = [*seen, float("nan")]
    return {"steps": table, "prompts": pd.DataFrame(exact.prompts), "conflict": watch.to_frame()}


def make_task(task: str, num_prompts: Sequence[int]) -> Task:
    """The prompts of ``"conventions"`` (no worked examples, sums with answers of two digits in both
    bases) or of ``"reasoning-gym"`` (:func:`gym_sums`).
    """
    if task == "conventions":
        return conventions(num_prompts=num_prompts, num_examples=0, smallest=5)
    if task == "reasoning-gym":
        return gym_sums(num_prompts=num_prompts)
    raise UserError(f"task {task!r} is none of: conventions, reasoning-gym")


@lru_cache(maxsize=2)
def _start(
    task: str,
    model: str,
    num_prompts: tuple[int, ...],
    targets: tuple[float, ...],
    warmup_steps: int,
    layers: int,
) -> Start:
    network, tokenizer = load_model(model)
    return prepare(
        network,
        tokenizer,
        make_task(task, num_prompts),
        targets=targets,
        steps=warmup_steps,
        layers=layers,
    )


@experiment(version=1, label="{start}-{objective}-seed-{seed}", inputs=model_input)
def training_pass_at_k(
    *,
    task: str,
    objective: str,
    seed: int,
    start: str,
    model: str,
    num_prompts: Sequence[int],
    targets: Sequence[float],
    warmup_steps: int,
    layers: int,
    steps: int,
    learning_rate: float,
    batch_prompts: int,
    num_generations: int,
) -> Mapping[str, DataFrame]:
    """One training run by the name of its task, ``"conventions"`` or ``"reasoning-gym"``: the
    tables of :func:`train`.

    ``start`` names the checkpoint in the file of the result. The checkpoints of the last two tasks
    are kept.

    :raises UserError: For another task, and as the parts do.
    """
    checkpoint = _start(task, model, tuple(num_prompts), tuple(targets), warmup_steps, layers)
    return train(
        checkpoint,
        objective,
        seed,
        steps=steps,
        learning_rate=learning_rate,
        batch_prompts=batch_prompts,
        num_generations=num_generations,
    )


training_pass_at_k.witnessed(
    task="conventions", objective="pass@4", seed=0, start="conventions", model=witness_model,
    num_prompts=[2, 1], targets=[0.8, 0.06], warmup_steps=6, layers=1, steps=2,
    learning_rate=0.15, batch_prompts=3, num_generations=8,
    tolerance=Tolerance(1e-3, "float32 passes, amplified by two steps"),
)  # fmt: skip
training_pass_at_k.full["*"] = Tolerance(2e-3, "eight steps of float32 on sampled batches")
