"""What is exact along a run: success rates by family and set, and the conflict of the gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from passgrad.objectives import PassAtK
from passgrad_book.experiments.study.network import answer_logprobs
from passgrad_book.experiments.study.words import FAMILIES, Prompts

#: the order whose conflict with pass@1 is read, in every arm
ORDER = 8


def rates(theta: Tensor, prompts: Prompts) -> np.ndarray:
    """p(x) of a set of prompts: (P,) float64."""
    with torch.no_grad():
        return answer_logprobs(theta, prompts.prompts, prompts.answers).double().exp().numpy()


def level_row(theta: Tensor, sets: Mapping[str, Prompts]) -> dict[str, float]:
    """pass@1, pass@4 and pass@8 of each set, and the mean rate of each family in it."""
    row = {}
    for name, prompts in sets.items():
        p = rates(theta, prompts)
        for k in (1, 4, ORDER):
            row[f"{name}_pass@{k}"] = float(
                (-np.expm1(k * np.log1p(-np.minimum(p, 1 - 1e-12)))).mean()
            )
        for place, family in enumerate(FAMILIES):
            chosen = prompts.family == place
            row[f"{name}_{family}"] = float(p[chosen].mean()) if chosen.any() else np.nan
    return row


def gradients(theta: Tensor, prompts: Prompts) -> Tensor:
    """The grad J_1 and grad J_8 of a set of prompts of equal mass: (2, d) float64."""
    leaf = theta.detach().requires_grad_()
    logprobs = answer_logprobs(leaf, prompts.prompts, prompts.answers)
    p = logprobs.detach().double().exp()
    made = []
    for k in (1, ORDER):
        weights = (PassAtK(k).weight(p) * p / len(p)).float()
        (gradient,) = torch.autograd.grad(weights @ logprobs, leaf, retain_graph=k == 1)
        made.append(gradient.double())
    return torch.stack(made)


def conflict_row(theta: Tensor, prompts: Prompts, second_moment: Tensor | None) -> dict[str, float]:
    """Norms and products of the two gradients, plain and in the metric of Adam (nan at the start).

    :param second_moment: Of the run's optimiser, bias-corrected, (d,).
    """
    both = gradients(theta, prompts)
    gram = both @ both.T
    row = {"square_1": gram[0, 0], "square_8": gram[1, 1], "product": gram[0, 1]}
    row["cosine"] = gram[0, 1] / gram.diagonal().prod().sqrt()
    row["cosine_adam"] = torch.tensor(float("nan"))
    if second_moment is not None:
        gram = (both / (second_moment.double().sqrt() + 1e-8)) @ both.T
        row["cosine_adam"] = gram[0, 1] / gram.diagonal().prod().sqrt()
    return {name: float(value) for name, value in row.items()}
