"""One sampled training run, with exact readings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from passgrad_book.experiments.study.arms import (
    ARMS,
    NUM_SAMPLES,
    SURGERY,
    Surgeon,
    both_orders,
    combined,
    rule_of,
)
from passgrad_book.experiments.study.network import completion_logprobs, draw
from passgrad_book.experiments.study.readings import conflict_row, level_row
from passgrad_book.experiments.study.words import Prompts

BATCH = 32
WARM_UP = 20
BETAS, EPSILON = (0.9, 0.999), 1e-8


def reading_steps(steps: int) -> list[int]:
    """Steps whose success rates are read: every fifth of the first 100, then every twentieth."""
    return sorted({*range(0, min(steps, 100) + 1, 5), *range(100, steps + 1, 20), steps})


def conflict_steps(steps: int) -> set[int]:
    """Steps whose gradients are compared."""
    early = {0, 5, 10, 20, 30, 50, 75, 100, 150}
    return {step for step in early if step <= steps} | {*range(200, steps + 1, 100)}


def train(
    start: Tensor,
    sets: Mapping[str, Prompts],
    arm: str,
    *,
    seed: int,
    steps: int,
    learning_rate: float,
) -> tuple[pd.DataFrame, Tensor]:
    """One run of AdamW without decay or clipping, and the weights in which it ends.

    The order of the prompts follows from ``seed`` and is shared by the arms; the samples are not.

    :returns: One row a reading: step, path (length in the weights so far), silent (the share of
        groups without a gradient since the last reading), lambda_1 (of surgery, normalised), exact
        levels of all sets, and, where gradients were read, their products.
    """
    theta = start.clone().requires_grad_()
    adam = torch.optim.AdamW(
        [theta], lr=learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
    )
    train_set = sets["train"]
    order = np.random.default_rng([seed, 2])
    generator = torch.Generator().manual_seed(1000 * (seed + 1) + ARMS.index(arm))
    surgeon = Surgeon(SURGERY[arm]) if arm in SURGERY else None
    rule = None if surgeon else rule_of(arm)
    readings, gradients = set(reading_steps(steps)), conflict_steps(steps)
    rows, path, silent, groups = [], 0.0, 0, 0
    batches: list[np.ndarray] = []
    for step in range(steps + 1):
        if step in readings:
            row = {"step": step, "path": path, "silent": silent / groups if groups else np.nan}
            row["lambda_1"] = float(surgeon.lambdas[0]) if surgeon else np.nan
            row |= level_row(theta, sets)
            if step in gradients:
                row |= conflict_row(theta, train_set, second_moment(adam, theta))
            rows.append(row)
            silent = groups = 0
        if step == steps:
            break
        if not batches:
            shuffled = order.permutation(len(train_set))
            batches = np.array_split(shuffled, max(len(shuffled) // BATCH, 1))
        places = batches.pop()
        prompts, answers = train_set.prompts[places], train_set.answers[places]
        tokens = draw(theta, prompts, NUM_SAMPLES, generator)
        rewards = (tokens == answers[:, None]).all(-1).double()
        if surgeon:
            weights = both_orders(rewards)
            if surgeon.wants(step):
                halves = _half_gradients(theta, prompts, tokens, weights)
                surgeon.observe(halves, second_moment(adam, theta))
            weighted = combined(weights, surgeon.lambdas)
        elif rule:
            weighted = rule(rewards, step / steps)
        silent += int((weighted == 0).all(1).sum())
        groups += len(rewards)
        adam.param_groups[0]["lr"] = learning_rate * min((step + 1) / WARM_UP, 1.0)
        theta.grad = -_gradient(theta, prompts, tokens, weighted)
        before = theta.detach().clone()
        adam.step()
        path += float((theta.detach() - before).norm())
    return pd.DataFrame(rows), theta.detach()


def second_moment(adam: torch.optim.Optimizer, theta: Tensor) -> Tensor | None:
    """Adam's mean of squared gradients without its bias, (d,); None before the first step."""
    state = adam.state.get(theta)
    if not state:
        return None
    moment: Tensor = state["exp_avg_sq"] / (1 - BETAS[1] ** float(state["step"]))
    return moment


def _gradient(theta: Tensor, prompts: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
    """The mean over prompts of sum_i A_i grad log pi(y_i), (d,); silent groups take no pass."""
    heard = (weights != 0).any(1)
    if not heard.any():
        return torch.zeros_like(theta)
    logprobs = completion_logprobs(theta, prompts[heard], tokens[heard])
    total = (weights[heard].float() * logprobs).sum() / len(weights)
    return torch.autograd.grad(total, theta)[0]


def _half_gradients(theta: Tensor, prompts: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
    """Gradients of pass@1 and pass@8 of the first and second half of the prompts: (2, 2, d)."""
    middle = len(prompts) // 2
    halves = (slice(None, middle), slice(middle, None))
    return torch.stack(
        [
            torch.stack([_gradient(theta, prompts[rows], tokens[rows], w[rows]) for w in weights])
            for rows in halves
        ]
    )
