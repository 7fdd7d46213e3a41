r"""A policy whose answers can be written down: every answer with its probability and its score.

With the scores :math:`s_y = \nabla_\theta \log \pi(y | x)` of all S answers, all that an estimate
needs are the products :math:`\langle s_y, s_{y'} \rangle`, an (S, S) matrix. A sample is then a
draw of numbers of answers, and thousands of samples of a language model cost as much as those of a
bandit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.interference import Conflict
from passgrad.lm.completions import Completions
from passgrad.lm.logprobs import pack, packed_logprobs
from passgrad.lm.tokens import TokenizedPrompt
from passgrad.objectives import PassAtK
from passgrad.worlds.language import LanguageWorld


@dataclass(frozen=True, eq=False)
class AnswerSamples:
    """Samples (``SampledGradients``) by the numbers of their answers.

    Replications may stand in axes in front: ``answers`` and ``rewards`` (..., M, n), ``kernel``
    (S, S). A gradient is written as its coefficients on the S scores.
    """

    answers: Tensor
    rewards: Tensor
    kernel: Tensor
    masses: Tensor

    def gradients(self, coefficients: Tensor) -> Tensor:
        """(L, ..., S) for (L, ..., M, n)."""
        flat = coefficients.flatten(-2)
        places = self.answers.flatten(-2).expand_as(flat)
        return flat.new_zeros(*flat.shape[:-1], len(self.kernel)).scatter_add_(-1, places, flat)

    def directional(self, gradients: Any, where: Tensor) -> Tensor:
        """(L, ..., M, n)."""
        along = torch.as_tensor(gradients) @ self.kernel
        places = self.answers.flatten(-2)
        found = along.gather(-1, places.expand(*along.shape[:-1], -1))
        return found.unflatten(-1, self.answers.shape[-2:]) * where

    def own(self, coefficients: Tensor, where: Tensor) -> Tensor:
        """(L, ..., M, n)."""
        within = self.kernel[self.answers[..., :, None], self.answers[..., None, :]]
        return torch.einsum("...ij,l...j->l...i", within, coefficients) * where


@dataclass(frozen=True, eq=False)
class AnswerLaw:
    """All answers to M prompts; float64.

    ``prompts``: (S,), whose answer each is, in increasing order. ``probabilities``: (S,), adding up
    to 1 over the answers of a prompt. ``rewards``: (S,), 0 or 1. ``kernel``: (S, S). ``masses``:
    (M,). ``sequences``: the answers as tokens, where they come from a language model.
    Raises UserError where these do not fit together.
    """

    prompts: Tensor
    probabilities: Tensor
    rewards: Tensor
    kernel: Tensor
    masses: Tensor
    sequences: tuple[TokenizedPrompt, ...] = ()

    def __post_init__(self) -> None:
        size = len(self.prompts)
        if not len(self.probabilities) == len(self.rewards) == size:
            raise UserError("prompts, probabilities and rewards need one entry for each answer")
        if tuple(self.kernel.shape) != (size, size):
            raise UserError(f"{size} answers need a kernel of as many rows and columns")
        if size == 0 or (self.prompts.diff() < 0).any():
            raise UserError("the answers must be in the order of their prompts, at least one each")
        total = self._sum(self.probabilities)
        if not torch.allclose(total, torch.ones_like(total), atol=1e-9):
            raise UserError("the probabilities of the answers of a prompt must add up to 1")

    @property
    def success(self) -> Tensor:
        """p(x), (M,)."""
        return self._sum(self.probabilities * self.rewards)

    def conflict(self, ks: Iterable[float]) -> Conflict:
        """The exact products, norms and agreements, as :func:`passgrad.interference.conflict`.

        From grad p(x) = sum_y pi(y | x) r(y) s_y.
        """
        orders = [float(k) for k in ks]
        p = self.success
        weights = torch.stack([PassAtK(k).weight(p) for k in [1.0, *orders]])
        slopes = self.probabilities * self.rewards
        vectors = (self.masses * weights)[:, self.prompts] * slopes
        along = vectors @ self.kernel
        products = along @ vectors.T
        return Conflict(
            ks=torch.tensor(orders, dtype=torch.float64),
            inner_product=products[0, 1:],
            norm=products.diagonal()[1:].sqrt(),
            norm_at_1=float(products[0, 0].sqrt()),
            success=p,
            agreement=self._sum(slopes * along[0]),
            weights=weights[1:],
            masses=self.masses,
            groups=("all",) * len(p),
        )

    def sample(
        self,
        num_samples: int,
        *,
        num_prompts: int | None = None,
        replications: int | None = None,
        seed: int = 0,
    ) -> AnswerSamples:
        """``num_samples`` answers to each prompt.

        With ``num_prompts`` so many prompts are drawn from the masses, anew in each replication,
        and count alike; without it the law's own prompts and masses are taken. ``replications``
        independent samples stand in an axis in front. Raises UserError for counts below 1.
        """
        for name, count in (
            ("num_samples", num_samples),
            ("num_prompts", 1 if num_prompts is None else num_prompts),
            ("replications", 1 if replications is None else replications),
        ):
            if count < 1:
                raise UserError(f"{name} must be at least 1, got {count}")
        generator = torch.Generator().manual_seed(seed)
        copies, size = (replications or 1), len(self.masses)
        if num_prompts is None:
            kinds, masses = torch.arange(size).repeat(copies), self.masses
        else:
            kinds = torch.multinomial(
                self.masses, copies * num_prompts, replacement=True, generator=generator
            )
            size = num_prompts
            masses = torch.full((size,), 1 / size, dtype=torch.float64)
        counts = torch.bincount(self.prompts, minlength=len(self.masses))
        first = counts.cumsum(0) - counts
        table = torch.zeros(len(self.masses), int(counts.max()), dtype=torch.float64)
        table[self.prompts, torch.arange(len(self.prompts)) - first[self.prompts]] = (
            self.probabilities
        )
        drawn = torch.multinomial(table[kinds], num_samples, replacement=True, generator=generator)
        answers = (drawn + first[kinds, None]).view(copies, size, num_samples)
        if replications is None:
            answers = answers[0]
        return AnswerSamples(answers, self.rewards[answers], self.kernel, masses)

    def completions(self, answers: Tensor) -> Completions:
        """One sample (M, n) of the law's own prompts as completions, for passes over the model."""
        prefixes = {int(x): y.prefix for x, y in zip(self.prompts, self.sequences, strict=True)}
        drawn = [[self.sequences[i].target for i in row] for row in answers.tolist()]
        return Completions.from_tokens([prefixes[x] for x in range(len(drawn))], drawn)

    def _sum(self, values: Tensor) -> Tensor:
        return torch.zeros(len(self.masses), dtype=torch.float64).index_add(0, self.prompts, values)


def language_answers(world: LanguageWorld, *, max_new_tokens: int) -> AnswerLaw:
    """Every answer that a language model can give in so many tokens, at the weights it holds now.

    An answer ends with the stop or is cut off; it is right if it is the accepted one. The scores
    (S, d) are held in memory to be multiplied: S grows as V^``max_new_tokens`` with the vocabulary,
    so this is for models that are small in every way. One backward pass for each answer.
    Raises UserError for a stop of several tokens and where an accepted answer does not fit.
    """
    size = int(world.model.config.vocab_size)
    parameters = list(world.layout.parameters(world.model).values())
    sequences: list[TokenizedPrompt] = []
    prompts, rewards, logprobs, scores = [], [], [], []
    for x, one in enumerate(world.tokenized):
        stop, right = one.target[-1], one.target
        if len(right) > max_new_tokens:
            raise UserError(
                f"the answer of prompt {world.prompts[x].id!r} has {len(right)} tokens: "
                f"max_new_tokens is {max_new_tokens}"
            )
        mine = [TokenizedPrompt(one.prefix, y) for y in _answers(size, stop, max_new_tokens)]
        sequences += mine
        prompts += [x] * len(mine)
        rewards += [float(y.target == right) for y in mine]
        for row in pack(mine):
            values = packed_logprobs(world.model, row).double()
            part = []
            for place in range(len(values)):
                made = torch.autograd.grad(values[place], parameters, retain_graph=True)
                part.append(torch.cat([g.flatten() for g in made]))
            order = torch.tensor(row.members).argsort()
            logprobs.append(values.detach()[order])
            scores.append(torch.stack(part)[order])
    written = torch.cat(scores).double()
    return AnswerLaw(
        prompts=torch.tensor(prompts),
        probabilities=torch.cat(logprobs).exp(),
        rewards=torch.tensor(rewards, dtype=torch.float64),
        kernel=written @ written.T,
        masses=world.masses,
        sequences=tuple(sequences),
    )


def _answers(num_tokens: int, stop: int, longest: int) -> list[tuple[int, ...]]:
    """All sequences that end with the stop, or have ``longest`` tokens without one before."""
    done: list[tuple[int, ...]] = []
    open_ones: list[tuple[int, ...]] = [()]
    for _ in range(longest):
        longer = [(*one, token) for one in open_ones for token in range(num_tokens)]
        done += [one for one in longer if one[-1] == stop]
        open_ones = [one for one in longer if one[-1] != stop]
    return done + open_ones
