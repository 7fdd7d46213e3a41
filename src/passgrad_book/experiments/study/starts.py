"""The checkpoint of a seed: supervised training on noisy demonstrations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from passgrad_book.experiments.study.network import (
    answer_logits,
    fresh_weights,
)
from passgrad_book.experiments.study.words import (
    EQUALS,
    LENGTH,
    NUM_LETTERS,
    NUM_RARE,
    RULES,
)

#: rule -> the share of its demonstrations that write the word backwards; the others repeat it
BACKWARDS = {"a": 0.045, "b": 0.03, "c": 0.0, "d": 1.0}
#: how often each rule is demonstrated
RULE_SHARES = (0.63, 0.22, 0.10, 0.05)
#: the share of demonstrations that are letters without a rule, for words that begin with the last
#: of the common letters; it falls with the square of the place to 0 for the first letter
NOISE = 0.15
#: the chance that a letter of a demonstrated word is a rare one
RARE_LETTER = 0.008


def checkpoint(seed: int, *, steps: int = 600, batch: int = 256, rate: float = 3e-3) -> Tensor:
    """The weights after ``steps`` of Adam on demonstrations drawn from ``seed``: (d,) float32."""
    theta = fresh_weights(seed).requires_grad_()
    generator = np.random.default_rng([seed, 0])
    adam = torch.optim.Adam([theta], lr=rate, betas=(0.9, 0.98), fused=True)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * min((step + 1) / 50, (steps - step) / (steps / 2), 1.0)
        prompts, answers = _demonstrations(generator, batch)
        logits = answer_logits(theta, prompts, answers)
        adam.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
        adam.step()
    return theta.detach()


def _demonstrations(generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    common = NUM_LETTERS - NUM_RARE
    words = generator.integers(1, common + 1, (size, LENGTH))
    rare = generator.random(words.shape) < RARE_LETTER
    words = np.where(rare, generator.integers(common + 1, NUM_LETTERS + 1, words.shape), words)
    rule = generator.choice(len(RULES), size, p=RULE_SHARES)
    backwards = generator.random(size) < np.array([BACKWARDS[name] for name in RULES])[rule]
    answers = np.where(backwards[:, None], words[:, ::-1], words)
    place = np.minimum(words[:, 0] - 1, common - 1) / (common - 1)
    noisy = generator.random(size) < NOISE * place**2
    noise = generator.integers(1, common + 1, words.shape)
    answers = np.where(noisy[:, None], noise, answers)
    tokens = np.array(list(RULES.values()))[rule]
    prompts = np.column_stack([tokens, words, np.full(size, EQUALS)])
    return torch.as_tensor(prompts), torch.as_tensor(np.ascontiguousarray(answers))
