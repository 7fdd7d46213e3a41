r"""Completions of a few tokens with nothing computed twice, under several sampling laws at once.

The law of the next token is the same for all completions that begin alike, and for all temperatures
it comes from the same logits. So a context that prompts share is read once, each question once,
and each distinct beginning of an answer once, however many completions are drawn. For answers of a
few tokens that is one pass over the questions; for long texts, nearly all different, an engine for
many sequences (:func:`passgrad.rollouts.sampling.sample`) is the faster one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.models import loaded_ends
from passgrad.lm.rollouts import Completion, Request, Rollouts, Sampling
from passgrad.rollouts.sampling import end_tokens, judged, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from passgrad.tasks.base import Task

#: what the column ``engine`` of the rollouts says
NAME = "shared beginnings"

# Distinct beginnings in one pass: each has a copy of the cache of its prompt.
_BATCH = 64


def sample_laws(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    laws: Sequence[tuple[int, Sampling]],
) -> list[Rollouts]:
    """Completions of every prompt of a task with their rewards, for each of the laws (number,
    sampling law).

    :raises UserError: For a number below 1, and what :func:`passgrad.rollouts.sampling.sample`
        raises
        about the task; for a law with top_k, which is not drawn here.
    """
    for number, law in laws:
        if number < 1:
            raise UserError(f"num_samples is {number}; draw at least one completion a prompt")
        if law.top_k:
            raise UserError(f"top_k is {law.top_k}; the engine {NAME!r} draws with top_k = 0")
    ends = end_tokens(tokenizer, task, loaded_ends(model, tokenizer))
    prompts = prompt_tokens(tokenizer, task)
    generators = [torch.Generator().manual_seed(law.seed) for _, law in laws]
    shared = _shared(prompts)
    context = _read(model, prompts[0][:shared], None) if shared else None
    drawn: list[list[list[Completion]]] = [[] for _ in laws]
    for ids in prompts:
        answers = SharedBeginnings(model, ids[shared:], ends, context)
        for mine, (number, law), generator in zip(drawn, laws, generators, strict=True):
            mine.append(answers.draw(number, task.max_new_tokens, law, generator))
    return [
        judged(
            task,
            tokenizer,
            Request("", prompts, number, ends, task.max_new_tokens, law),
            mine,
            NAME,
        )
        for mine, (number, law) in zip(drawn, laws, strict=True)
    ]


def truncated(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """The law (..., V) in float64 at a temperature and with top-p: the smallest set of most likely
    tokens that holds ``top_p`` of the mass, scaled to one.
    """
    law = (logits.double() / temperature).softmax(-1)
    if top_p >= 1:
        return law
    ordered, order = law.sort(descending=True)
    # A token stays if the mass of those before it is below top_p.
    stays = (ordered.cumsum(-1) - ordered) < top_p
    kept = torch.zeros_like(law).scatter(-1, order, ordered * stays)
    return kept / kept.sum(-1, keepdim=True)


class SharedBeginnings:
    """Answers of a model to one prompt. The logits behind each beginning are computed when they are
    first needed, and kept.

    :param prompt: Its token ids.
    :param ends: The tokens that end an answer.
    :param context: What :func:`_read` gave for the tokens before the prompt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Sequence[int],
        ends: Sequence[int],
        context: tuple[Tensor, Any] | None = None,
    ) -> None:
        self.model, self.ends = model, tuple(ends)
        logits, self._cache = _read(model, prompt, context)
        self._logits: dict[tuple[int, ...], Tensor] = {(): logits}

    def draw(
        self, number: int, longest: int, law: Sampling, generator: torch.Generator
    ) -> list[Completion]:
        """``number`` independent answers of at most ``longest`` tokens, in the order in which they
        were drawn, with their log-probabilities under the policy itself.
        """
        answers: list[tuple[int, ...]] = [()] * number
        values = [0.0] * number
        for length in range(longest):
            unfinished: dict[tuple[int, ...], list[int]] = {}
            for i, answer in enumerate(answers):
                if len(answer) == length and (not answer or answer[-1] not in self.ends):
                    unfinished.setdefault(answer, []).append(i)
            if not unfinished:
                break
            self._grow(list(unfinished))
            for beginning, members in unfinished.items():
                logits = self._logits[beginning]
                chances = truncated(logits, law.temperature, law.top_p)
                tokens = torch.multinomial(
                    chances, len(members), replacement=True, generator=generator
                )
                logprobs = logits.double().log_softmax(-1)[tokens].tolist()
                for i, token, logprob in zip(members, tokens.tolist(), logprobs, strict=True):
                    answers[i] = (*beginning, token)
                    values[i] += logprob
        return [
            Completion(answer, "stop" if answer[-1] in self.ends else "length", value)
            for answer, value in zip(answers, values, strict=True)
        ]

    @torch.no_grad()
    def _grow(self, beginnings: Sequence[tuple[int, ...]]) -> None:
        """Know these, all of one length."""
        missing = [beginning for beginning in beginnings if beginning not in self._logits]
        for first in range(0, len(missing), _BATCH):
            some = missing[first : first + _BATCH]
            # The cache of the prompt is never written to: each beginning has a copy of its own.
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(len(some))
            ids = torch.tensor(some, device=self.model.device)
            rows = self.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
            self._logits |= dict(zip(some, rows.cpu(), strict=True))


@torch.no_grad()
def _read(
    model: PreTrainedModel, ids: Sequence[int], context: tuple[Tensor, Any] | None
) -> tuple[Tensor, Any]:
    """The logits behind these tokens, and the cache with them, behind a context or none."""
    given = {} if context is None else {"past_key_values": copy.deepcopy(context[1])}
    output = model(
        input_ids=torch.tensor([list(ids)], device=model.device), use_cache=True, **given
    )
    return output.logits[0, -1].cpu(), output.past_key_values


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, at least one being left of each."""
    least = min(len(ids) for ids in prompts) - 1
    first = prompts[0]
    for place in range(least):
        if any(ids[place] != first[place] for ids in prompts):
            return place
    return least
