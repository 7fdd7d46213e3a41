r"""TRL's trainers with the advantages of any estimator of pass@k.

TRL computes advantages in ``_generate_and_score_completions`` from what ``_calculate_rewards``
returns: the rewards of complete groups, gathered over processes. The mixin overrides these two
methods and nothing of the loss: it remembers the rewards and replaces the advantages.

*Scale.* With advantages A of an estimator, :math:`\hat g = \frac1P \sum_x \sum_i A_{xi} s_{xi}`
estimates :math:`\nabla J`. TRL averages over the n P completions of a step, so that it is given
:math:`n A`. Its gradient, of which the optimiser takes the negative, is then

======================================  =====================================
``PassKRLOOTrainer``                    :math:`\hat g`
``PassKGRPOTrainer``, ``"luspo"``       :math:`\hat g`
``PassKGRPOTrainer``, ``"dr_grpo"``     :math:`\hat g / L`, L = ``max_completion_length``
======================================  =====================================

and ``scale="gradient"`` multiplies the advantages of the last by L. That matters to plain gradient
descent and to ``max_grad_norm``; Adam does not see it.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer, RLOOTrainer

from passgrad.ascent.mixing import RunningGram
from passgrad.errors import UserError
from passgrad.estimators import Estimator, get_estimator
from passgrad.files import write_atomic
from passgrad.trl import settings
from passgrad.trl.callback import ConflictCallback
from passgrad.trl.conflict_free import ConflictFree
from passgrad.trl.evaluation import held_out_metrics
from passgrad.trl.groups import group_advantages, group_deviation, group_rewards, max_at_k
from passgrad.trl.meter import Batch, batch_of, half_gradients, measure_gram
from passgrad.trl.metric import local, metric_note, optimiser_metric
from passgrad.trl.schedules import AdaptiveK, AfterSteps, Plan, as_plan
from passgrad.worlds.base import inner_product

#: beside the files of transformers in every checkpoint
STATE_FILE = "passgrad_state.json"
#: what a run trained, and which biased settings were let through
RECORD_FILE = "passgrad.json"

Scale = Literal["trl", "gradient"]


class PassKMixin:
    """Replaces the advantages of a TRL trainer; put before it among the bases.

    Beside the arguments of the trainer, all by keyword:

    :param k: What is ascended: an order, a mixture ``{order: coefficient}``, an objective of
        :mod:`passgrad.objectives`, a schedule (:mod:`passgrad.trl.schedules`), or
        :class:`~passgrad.trl.ConflictFree`. To be left out for an estimator without an order, such
        as "grpo", "rloo" and "maxrl", or whose order is its number of samples.
    :param estimator: A name in :data:`passgrad.estimators.ESTIMATORS`, or an estimator.
    :param allow_biased: Let settings through that change the objective. They are listed in a
        warning, in ``passgrad.json`` in the output folder and in every checkpoint, and their number
        is logged as ``passk/biased_settings``.
    :param scale: "trl", or "gradient" for advantages with which the gradient is exactly that of
        the objective (see the module).
    :raises UserError: For settings that change the objective, and orders that need more samples.
    """

    kind: settings.Kind

    def __init__(
        self,
        *positional: Any,
        k: Any = None,
        estimator: str | Estimator = "pkpo-loo1",
        allow_biased: bool = False,
        scale: Scale = "trl",
        **named: Any,
    ) -> None:
        args = positional[2] if len(positional) > 2 else named.get("args")
        if args is None:
            raise UserError(
                "TRL's default settings change the objective: give args, made as in the example of "
                "passgrad.trl"
            )
        if scale not in ("trl", "gradient"):
            raise UserError(f"scale must be 'trl' or 'gradient', got {scale!r}")
        self.estimator = get_estimator(estimator)
        if k is None and self.estimator.takes != "k":
            k = self.estimator.orders(args.num_generations, None)[0][0]
        self.plan: Plan = as_plan(k)
        settings.check_samples(
            self.estimator, self.plan.orders, args.num_generations, self.plan.mixed
        )
        self._check_halves(args)
        self.biased = settings.enforce(settings.find_biases(args, self.kind), allow_biased)
        settings.warn_clipping(args)
        self._scale = scale
        chosen = self.estimator
        # What the conflict is measured with, whatever is trained.
        self._unbiased = (
            chosen if chosen.unbiased and chosen.takes == "k" else get_estimator("pkpo-loo1")
        )
        self._raw_rewards: Tensor | None = None
        self._held_out: list[Tensor] = []
        self._batches = 0
        self._measured_order: int | None = None
        self._before: Tensor | None = None
        self._said: set[str] = set()
        self.conflict = RunningGram(half_life=getattr(self.plan, "half_life", 8.0))
        super().__init__(*positional, **named)
        found = [
            one
            for one in settings.find_biases(args, self.kind, self.model)
            if one not in self.biased
        ]
        self.biased += settings.enforce(found, allow_biased)
        self._watchers = [
            one for one in self.callback_handler.callbacks if isinstance(one, ConflictCallback)
        ]
        for watcher in self._watchers:
            watcher.settle(self.plan.orders)
            settings.check_samples(self._unbiased, (1, watcher.order), args.num_generations, True)
        self._write_record(Path(args.output_dir))

    def _check_halves(self, args: Any) -> None:
        """Raise UserError where halves of the completions are needed and too small."""
        plan = self.plan
        if not isinstance(plan, ConflictFree | AdaptiveK | AfterSteps):
            return
        halved = isinstance(plan, ConflictFree) and (plan.per_prompt or plan.split == "completions")
        if halved or args.generation_batch_size < 2 * args.num_generations:
            half = args.num_generations // 2
            if half < max(plan.orders) + self.estimator.spare:
                raise UserError(
                    f"k = {max(plan.orders)} does not fit into half of the {args.num_generations} "
                    "completions of a prompt: draw more, or have several prompts in a batch and "
                    "split='prompts'"
                )

    # Attributes of TRL's trainers, for the type checker.
    model: Any
    args: Any
    optimizer: Any
    state: Any
    accelerator: Any
    callback_handler: Any
    _metrics: Any
    _logs: Any

    def _calculate_rewards(self, *positional: Any, **named: Any) -> Tensor:
        raw = super()._calculate_rewards(*positional, **named)  # type: ignore[misc]
        self._raw_rewards = raw.detach()
        return raw

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        training = self.model.training
        metrics = self._metrics["train" if training else "eval"]
        n = self.num_generations if training else self.num_generations_eval  # type: ignore
        assert self._raw_rewards is not None, "TRL no longer calls _calculate_rewards"
        rewards = group_rewards(self._raw_rewards, self.reward_weights, n)  # type: ignore
        self._raw_rewards = None
        if clip := getattr(self.args, "reward_clip_range", None):
            rewards = rewards.clamp(*clip)
        self._log_success(metrics, rewards)
        if not training:
            self._held_out.append(rewards)
        weights = self._weights(metrics)
        try:
            values, dropped = group_advantages(rewards, weights, self.estimator)
        except UserError:
            if training:
                raise
            return output  # too few samples in evaluation, where nothing is updated
        metrics["passk/dropped_groups"].append(float(dropped))
        if training:
            self._log_silent(metrics, rewards, values)
            values = self._measure(output, rewards, values, metrics)
        self._replace(output, self._in_trl_units(values, rewards))
        return output

    def _weights(self, metrics: Any) -> dict[int, float]:
        progress = self.state.global_step / max(self.state.max_steps, 1)
        weights = self.plan.weights(progress)
        total = sum(weights.values())
        if total:
            metrics["passk/k"].append(sum(k * c for k, c in weights.items()) / total)
        metrics["passk/biased_settings"].append(float(len(self.biased)))
        if isinstance(self.plan, AfterSteps):
            metrics["passk/share_of_pass@1"].append(weights.get(1, 0.0))
        if isinstance(self.plan, ConflictFree) and not self.plan.per_prompt:
            metrics["conflict/coefficient_1"].append(weights[1])
            metrics["conflict/coefficient_k"].append(weights[self.plan.k])
        return weights

    def _log_success(self, metrics: Any, rewards: Tensor) -> None:
        n = rewards.shape[1]
        orders = {1, n, *self.plan.orders, *(one.order for one in self._watchers)}
        for k in sorted(k for k in orders if k <= n):
            value = float(max_at_k(rewards, k).nanmean())
            if value == value:
                metrics[f"passk/pass@{k}"].append(value)

    def _log_silent(self, metrics: Any, rewards: Tensor, values: Tensor) -> None:
        """The shares of groups that do not move anything, in all and for each order alone."""
        metrics["passk/silent_groups"].append(float((values == 0).all(1).double().mean()))
        if self.estimator.takes == "k":
            for k in sorted({1, *self.plan.orders}):
                own, _ = group_advantages(rewards, {k: 1.0}, self.estimator)
                metrics[f"passk/silent_groups@{k}"].append(float((own == 0).all(1).double().mean()))

    def evaluation_loop(self, dataloader: Any, *positional: Any, **named: Any) -> Any:
        """TRL's, and pass@1 and pass@k of the prompts with 95 % intervals among its metrics."""
        self._held_out = []
        output = super().evaluation_loop(dataloader, *positional, **named)  # type: ignore[misc]
        prefix = named.get("metric_key_prefix", "eval")
        if self._held_out:
            rewards = torch.cat(self._held_out)
            if hasattr(dataloader.dataset, "__len__"):
                # Several processes fill up the last batch with prompts that were seen already.
                rewards = rewards[: len(dataloader.dataset)]
            orders = (k for k in {1, *self.plan.orders} if k <= rewards.shape[1])
            found = held_out_metrics(rewards, orders)
            output.metrics.update({f"{prefix}_{name}": value for name, value in found.items()})
        return output

    def _measure(self, output: Any, rewards: Tensor, values: Tensor, metrics: Any) -> Tensor:
        """Measure the conflict where it is due; the advantages, weighed by prompts if asked for."""
        self._batches += 1
        plan = self.plan
        if isinstance(plan, ConflictFree) and plan.per_prompt:
            batch = batch_of(self, output, rewards)
            weights = plan.prompt_weights(
                *half_gradients(batch, plan.k, self.estimator, plan.memory)
            )
            metrics["conflict/smallest_prompt_weight"].append(float(weights.min()))
            metrics["conflict/largest_prompt_weight"].append(float(weights.max()))
            values = values * weights[:, None]
        order = plan.measured or next((one.order for one in self._watchers), None)
        if order is None or not self._due():
            return values
        if order != self._measured_order:
            self.conflict.reset()
            self._measured_order = order
        order = max(order, 1)
        batch = batch_of(self, output, rewards)
        found = measure_gram(
            batch,
            order,
            self._unbiased,
            getattr(plan, "split", "prompts"),
            by_prompt=bool(self._watchers),
            metric=self._metric(batch),
        )
        self.conflict.update(found.gram)
        report = self._report(found, rewards, order, batch)
        if isinstance(plan, ConflictFree) and not plan.per_prompt:
            report["in_metric_of_optimizer"] = float(found.scaled is not None)
            if found.scaled is None:
                plan.take(found.gram, "plain")
            else:
                plan.take(found.scaled, "optimizer")
                report["optimizer_cosine"] = plan.gram.cosine()
        elif plan.measured is not None:
            plan.observe(self.conflict)
        for name, value in report.items():
            if value == value:
                metrics[f"conflict/{name}"].append(value)
        for watcher in self._watchers:
            watcher.record(self.state.global_step, report)
        return values

    def _metric(self, batch: Batch) -> Tensor | None:
        """The optimiser's, where ``ConflictFree`` asks for it and it is known.

        What is taken instead is said once.
        """
        if not isinstance(self.plan, ConflictFree) or self.plan.metric == "plain":
            return None
        add_up = batch.add_up if batch.sharded else None
        metric, reason = optimiser_metric(self.optimizer, batch.parameters, add_up)
        # Before the first step that is so in every run; the log says it in in_metric_of_optimizer.
        said = not reason or reason.endswith(" yet") or reason in self._said
        if metric is None and not said:
            self._said.add(reason)
            warnings.warn(f"ConflictFree measures in the plain metric: {reason}", stacklevel=2)
        return metric

    def _due(self) -> bool:
        every = [one.every for one in self._watchers]
        if self.plan.measured is not None:
            taken = self.plan.gram if isinstance(self.plan, ConflictFree) else self.conflict
            if taken.count < 2 or self.plan.measured != self._measured_order:
                return True
            every.append(self.plan.every)
        return any((self._batches - 1) % one == 0 for one in every)

    def _report(self, found: Any, rewards: Tensor, order: int, batch: Batch) -> dict[str, float]:
        """What one measurement says; nan for what it does not."""
        gram, mean = found.gram, self.conflict.mean
        error = float(self.conflict.error[0, 1])
        known = found.agreement[~found.agreement.isnan()]
        report = {
            "k": float(order),
            "pass@1": float(max_at_k(rewards, 1).nanmean()),
            "pass@k": float(max_at_k(rewards, order).nanmean()),
            "inner_product": float(gram[0, 1]),
            "squared_norm_1": float(gram[0, 0]),
            "squared_norm_k": float(gram[1, 1]),
            "mean_inner_product": float(mean[0, 1]),
            "error_inner_product": error if error < float("inf") else float("nan"),
            "cosine": self.conflict.cosine(),
            "negative_agreement": float((known < 0).double().mean())
            if len(known)
            else float("nan"),
            "predicted_change": float("nan"),
        }
        if any(one.predict for one in self._watchers):
            now = self._flat_parameters()
            if self._before is not None:
                change = inner_product(found.gradients[0], (now - self._before).to(found.gradients))
                if batch.sharded and batch.add_up is not None:
                    share = torch.tensor(change, dtype=torch.float64, device=now.device)
                    change = float(batch.add_up(share))
                report["predicted_change"] = change
            self._before = now
        return report

    @torch.no_grad()
    def _flat_parameters(self) -> Tensor:
        return torch.cat(
            [local(one).reshape(-1) for one in self.model.parameters() if one.requires_grad]
        )

    def _in_trl_units(self, values: Tensor, rewards: Tensor) -> Tensor:
        """A -> n A, with what the settings that were let through make of it."""
        values = values * rewards.shape[1]
        scaled = getattr(self.args, "scale_rewards", "none")
        if scaled != "none":
            values = values / group_deviation(rewards, scaled)
        if getattr(self.args, "normalize_advantages", False):
            values = (values - values.mean()) / (values.std() + 1e-4)
            values = values.masked_fill(rewards.isnan(), 0.0)
        if self._scale == "gradient" and self.kind == "grpo" and self.args.loss_type == "dr_grpo":
            values = values * self.args.max_completion_length
        return values

    def _replace(self, output: dict[str, Any], values: Tensor) -> None:
        """Put this process's share of the (P, n) advantages in the place of TRL's."""
        flat, old = values.reshape(-1), output["advantages"]
        start = self.accelerator.process_index * len(old)
        output["advantages"] = flat[start : start + len(old)].to(old)
        shown = self._logs["advantages"]
        tail = flat.tolist()[-len(shown) :] if len(shown) else []
        for _ in tail:
            shown.pop()
        shown.extend(tail)

    def record(self) -> dict[str, Any]:
        """What is trained, with which estimator, and which biased settings were let through."""
        objective = self.plan.describe()
        if self.estimator.takes == "none":
            objective = f"what {self.estimator.name} ascends"
        if isinstance(self.plan, ConflictFree) and self.optimizer is not None:
            own = self.plan.metric == "optimizer"
            metric = {"metric": metric_note(self.optimizer) if own else "plain"}
        else:
            metric = {}
        return metric | {
            "objective": objective,
            "estimator": self.estimator.name,
            "scale": self._scale,
            "biased_settings": [str(one) for one in self.biased],
        }

    def create_optimizer(self, *positional: Any, **named: Any) -> Any:
        """TRL's; the record then says in which metric products are taken."""
        optimizer = super().create_optimizer(*positional, **named)  # type: ignore[misc]
        self._write_record(Path(self.args.output_dir))
        return optimizer

    def _write_record(self, folder: Path) -> None:
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / RECORD_FILE, json.dumps(self.record(), indent=2).encode())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if not self.args.should_save:
            return
        folder = Path(self._get_output_dir(trial=trial))  # type: ignore[attr-defined]
        folder /= f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        state = {
            "record": self.record(),
            "plan": self.plan.state_dict(),
            "conflict": self.conflict.state_dict(),
            "batches": self._batches,
            "measured_order": self._measured_order,
            "watched": [one.history for one in self._watchers],
        }
        write_atomic(folder / STATE_FILE, json.dumps(state, indent=2).encode())

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is None:
            return
        path = Path(checkpoint) / STATE_FILE
        if not os.path.exists(path):
            raise UserError(f"{path} is missing: the checkpoint is not one of passgrad.trl")
        state = json.loads(path.read_text(encoding="utf-8"))
        before, now = state["record"]["objective"], self.record()["objective"]
        if before != now:
            raise UserError(f"the checkpoint trained {before}, this run {now}")
        self.plan.load_state_dict(state["plan"])
        self.conflict.load_state_dict(state["conflict"])
        self._batches = int(state["batches"])
        self._measured_order = state["measured_order"]
        for watcher, history in zip(self._watchers, state["watched"], strict=False):
            watcher.history[:] = history


class PassKGRPOTrainer(PassKMixin, GRPOTrainer):
    """TRL's ``GRPOTrainer`` on pass@k: arguments of both :class:`PassKMixin` and TRL.

    Exact settings: ``loss_type="dr_grpo"``, ``scale_rewards="none"``; the others that matter have
    the right defaults in ``GRPOConfig``.
    """

    kind = "grpo"


class PassKRLOOTrainer(PassKMixin, RLOOTrainer):
    """TRL's ``RLOOTrainer`` on pass@k: arguments of both :class:`PassKMixin` and TRL.

    Exact settings: ``beta=0.0``; the others that matter have the right defaults in ``RLOOConfig``.
    """

    kind = "rloo"
