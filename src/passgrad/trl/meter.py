r"""The conflict of pass@1 and pass@k in a batch that a trainer has just sampled.

Everything is in units of the gradients of J_1 and J_k themselves, whatever loss the trainer has, in
what training moves: the embedding of a padding token, which torch leaves where it is, is no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.trl.groups import group_advantages
from passgrad.trl.streamed import Part, StreamedGram, part_gradients, streamed_gram

# The keys of TRL's batches that text alone has.
_TEXT = {
    "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "tool_mask",
    "num_items_in_batch", "old_per_token_logps", "old_logps", "importance_sampling_ratio",
    "sampling_per_token_logps", "ref_per_token_logps",
}  # fmt: skip


# Of four parts 3/4 of all pairs are in different ones.
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Batch:
    """The completions of one process in a batch of P groups of n, and the rewards of all."""

    rewards: Tensor
    """(P, n) float64, nan where there is none."""
    first: int
    """The place of the first local row among the P n rows."""
    size: int
    """The number of local rows."""
    score: Callable[[Tensor], Tensor]
    """Log-probabilities of some local rows, with their graph."""
    parameters: Sequence[nn.Parameter]
    rows_at_once: int
    add_up: Callable[[Tensor], Tensor] | None
    sharded: bool = False
    """Whether each process has a share of every parameter (FSDP2)."""

    def part(self, group: int, members: Tensor, weights: Tensor, round_: int) -> Part:
        """The members (R,) of a group as a part, with their advantages (m, R)."""
        rows = group * self.rewards.shape[1] + members - self.first
        here = (rows >= 0) & (rows < self.size)
        return Part(rows[here], weights[:, here], round_)

    def everywhere(self, part: Part) -> Part:
        """A part with as many rows as on the process that has most of it, the rest for nothing."""
        most = torch.zeros(torch.distributed.get_world_size(), dtype=torch.int64)
        most[torch.distributed.get_rank()] = len(part.rows)
        assert self.add_up is not None
        lacking = int(self.add_up(most.to(self.parameters[0].device)).max()) - len(part.rows)
        rows = torch.cat([part.rows, torch.zeros(lacking, dtype=part.rows.dtype)])
        return Part(rows, nn.functional.pad(part.weights, (0, lacking)), part.round, part.prompts)


def batch_of(trainer: Any, output: dict[str, Any], rewards: Tensor) -> Batch:
    """The batch behind the output of TRL's ``_generate_and_score_completions``."""
    strange = sorted(set(output) - _TEXT)
    if strange:
        raise UserError(f"gradients are measured of text only, this batch has {strange[0]}")
    _check_sharding(trainer)
    local = len(output["prompt_ids"])
    several = trainer.accelerator.num_processes > 1
    return Batch(
        rewards=rewards,
        first=trainer.accelerator.process_index * local,
        size=local,
        score=lambda rows: _score(trainer, output, rows),
        parameters=list(trainer.model.parameters()),
        rows_at_once=trainer.args.per_device_train_batch_size,
        add_up=_add_up if several else None,
        sharded=several and bool(trainer.is_fsdp_enabled),
    )


def _check_sharding(trainer: Any) -> None:
    """Raise UserError where gradients can't be read rightly from how parameters are divided."""
    plugins = trainer.accelerator.state
    if trainer.is_fsdp_enabled and plugins.fsdp_plugin.fsdp_version != 2:
        raise UserError("gradients are measured under FSDP2, not FSDP1: set fsdp_version: 2")
    if trainer.is_deepspeed_enabled and (stage := plugins.deepspeed_plugin.zero_stage) > 2:
        raise UserError(
            f"gradients are not measured under ZeRO-{stage}, which divides the parameters: take "
            "ZeRO-2, FSDP2 or an adapter, or train plain pass@k"
        )


def measure_gram(
    batch: Batch,
    k: int,
    estimator: Estimator,
    split: str,
    by_prompt: bool = True,
    metric: Tensor | None = None,
) -> StreamedGram:
    """Products of (grad J_1, grad J_k) from independent parts of the batch.

    With ``by_prompt`` the prompts are taken one by one and each has its agreement; without, in at
    most four parts, for larger passes. Over several processes there are at most four rounds, for as
    many exchanges.

    :param metric: A diagonal in which the products are taken as well.
    """
    groups = len(batch.rewards)
    if split == "completions" or groups < 2:
        parts = _halves(batch, (1, k), estimator)
    else:
        weights = torch.stack(
            [group_advantages(batch.rewards, {j: 1.0}, estimator)[0] for j in (1, k)]
        )
        rounds = groups if by_prompt and batch.add_up is None else min(groups, _ROUNDS)
        everyone = torch.arange(batch.rewards.shape[1])
        parts = [
            batch.part(x, everyone, weights[:, x], x * rounds // groups) for x in range(groups)
        ]
        # With rewards of 0 and 1 the prompts one by one take half of the backward passes.
        single = by_prompt or bool(((batch.rewards == 0) | (batch.rewards == 1)).all())
        if batch.sharded or not single:
            parts = [_joined([p for p in parts if p.round == r]) for r in range(rounds)]
    if batch.sharded:
        parts = [batch.everywhere(part) for part in parts]
    return streamed_gram(
        parts,
        batch.score,
        batch.parameters,
        rows_at_once=batch.rows_at_once,
        add_up=batch.add_up,
        metric=metric,
        sharded=batch.sharded,
    )


def half_gradients(
    batch: Batch, k: int, estimator: Estimator, memory: float
) -> tuple[Tensor, Tensor]:
    """The gradient of pass@k of each prompt in two independent halves of its completions, each
    (P, d).

    Raises UserError if they do not fit into ``memory`` GiB.
    """
    if batch.sharded:
        raise UserError("prompts are weighed with whole gradients: leave per_prompt out under FSDP")
    groups = len(batch.rewards)
    size = sum(one.numel() for one in batch.parameters if one.requires_grad)
    needed = 2 * groups * size * 4 / 2**30
    if needed > memory:
        raise UserError(
            f"the gradients of {groups} prompts take {needed:.1f} GiB and memory={memory:g}: "
            "train an adapter, take fewer prompts a batch, or raise memory"
        )
    parts = _halves(batch, (k,), estimator)
    made = part_gradients(
        parts,
        batch.score,
        batch.parameters,
        rows_at_once=batch.rows_at_once,
        add_up=batch.add_up,
    )[0]
    return made[:groups], made[groups:]


def _joined(parts: Sequence[Part]) -> Part:
    """Several parts of one round as one."""
    return Part(
        torch.cat([one.rows for one in parts]),
        torch.cat([one.weights for one in parts], dim=1),
        parts[0].round,
        len(parts),
    )


def _halves(batch: Batch, orders: Sequence[int], estimator: Estimator) -> list[Part]:
    """First the first halves of all groups, in round 0, then the second ones."""
    groups, n = batch.rewards.shape
    half = n // 2
    if half < max(orders) + estimator.spare:
        raise UserError(
            f"k = {max(orders)} does not fit into half of the {n} completions of a prompt: draw "
            f"{2 * (max(orders) + estimator.spare)}, or have several prompts in a batch"
        )
    parts = []
    for number, members in enumerate((torch.arange(half), torch.arange(half, n))):
        some = batch.rewards[:, members]
        weights = torch.stack([group_advantages(some, {j: 1.0}, estimator)[0] for j in orders])
        parts += [batch.part(x, members, weights[:, x], number) for x in range(groups)]
    return parts


def _score(trainer: Any, output: dict[str, Any], rows: Tensor) -> Tensor:
    """Log pi of local rows, as TRL computes it for its loss."""
    rows = rows.to(output["prompt_ids"].device)
    mask = output["completion_mask"][rows]
    # Columns that none of these rows reaches; on the left the places of tokens would change.
    width = max(int(mask.any(0).sum()), 1)
    mask, ids = mask[:, :width], output["completion_ids"][rows][:, :width]
    prompt, seen = output["prompt_ids"][rows], output["prompt_mask"][rows]
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.cat([prompt, ids], 1), torch.cat([seen, mask], 1), width
    )
    counted = mask
    if "tool_mask" in output:
        counted = mask * output["tool_mask"][rows][:, :width]
    return (logps * counted).sum(1)


def _add_up(values: Tensor) -> Tensor:
    torch.distributed.all_reduce(values)
    return values
