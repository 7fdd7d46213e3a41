"""Completions from ``generate`` of transformers: slower, and available everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.logprobs import pack, packed_logprobs
from passgrad.lm.models import load_model
from passgrad.lm.rollouts import Completion, Request
from passgrad.lm.tokens import TokenizedPrompt
from passgrad.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

# A row of a batch costs little more than a token a step while the batch is small, and waits for the
# slowest row.
_BATCH = 128
# Of the work of a completion, what drawing it is; the rest is scoring it.
_DRAWING = 0.8


def draw(request: Request, progress: Progress | None = None) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out.

    A batch holds prompts of one length. There is nothing to pad, which models with a state, or
    positions that count from the first token, would take for a part of the prompt.

    :raises UserError: For a prompt with a token that the model does not have.
    """
    model, _ = load_model(request.model, dtype=getattr(torch, request.dtype))
    model.to(request.device)  # type: ignore[arg-type]
    settings, ends, prompts = request.settings, request.ends, request.prompts
    _check_vocabulary(model, request)
    law = _stated(model, request)
    jobs = sorted(
        (i for i in range(len(prompts)) for _ in range(request.num_samples)),
        key=lambda i: len(prompts[i]),
    )
    drawn: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    steps = _Steps(progress or Silent(), request.max_new_tokens)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for batch in _batches(jobs, prompts):
            rows = _generate(model, [prompts[i] for i in batch], law, steps)
            for i, ids in zip(batch, rows, strict=True):
                drawn[i].append(_until(ids, ends))
            steps.finish()
    completions = []
    for prompt, mine in zip(prompts, drawn, strict=True):
        logprobs = _score(model, prompt, mine)
        completions.append(
            [
                Completion(ids, "stop" if ids[-1] in ends else "length", logprobs[ids])
                for ids in mine
            ]
        )
        steps.progress.advance((1 - _DRAWING) * len(mine))
    return completions


def _check_vocabulary(model: Any, request: Request) -> None:
    size = model.get_input_embeddings().num_embeddings
    largest = max(max(ids) for ids in request.prompts)
    if largest >= size:
        raise UserError(
            f"the tokenizer of {request.name or request.model} gives the token {largest}, and the "
            f"model has {size}: it has tokens that were added without resizing the model; give "
            "prompts without them, or the tokenizer that the model was trained with"
        )


def _stated(model: Any, request: Request) -> GenerationConfig:
    """The law that was asked for, and nothing else: what the model folder says about generation is
    taken from the model, since transformers fills from it whatever a law leaves open.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    settings = request.settings
    return GenerationConfig(
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=list(request.ends),
        pad_token_id=0,  # stands behind an end token alone, and is cut off with what follows it
    )


def _batches(jobs: list[int], prompts: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    for _, some in itertools.groupby(jobs, key=lambda i: len(prompts[i])):
        alike = list(some)
        for start in range(0, len(alike), _BATCH):
            yield alike[start : start + _BATCH]


def _generate(
    model: Any, prompts: list[tuple[int, ...]], law: GenerationConfig, steps: _Steps
) -> list[list[int]]:
    rows = torch.tensor(prompts, device=model.device)
    steps.begin(len(prompts))
    made = model.generate(
        input_ids=rows, attention_mask=torch.ones_like(rows), generation_config=law,
        stopping_criteria=[steps],
    )  # fmt: skip
    return made[:, rows.shape[1] :].tolist()


class _Steps:
    """Told at each token of a batch, and tells how far it is."""

    def __init__(self, progress: Progress, longest: int) -> None:
        self.progress, self.longest = progress, longest
        self.size, self.left = 0, 0.0

    def begin(self, size: int) -> None:
        """A batch of so many completions."""
        self.size, self.left = size, _DRAWING * size

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """As a criterion of transformers, which never stops a row."""
        share = min(_DRAWING * self.size / self.longest, self.left)
        self.left -= share
        self.progress.advance(share)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def finish(self) -> None:
        """The batch is drawn, before the length limit or at it."""
        self.progress.advance(self.left)
        self.left = 0.0


def _until(ids: list[int], ends: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens up to the first end token, which is kept."""
    for place, token in enumerate(ids):
        if token in ends:
            return tuple(ids[: place + 1])
    return tuple(ids)


@torch.no_grad()
def _score(
    model: PreTrainedModel, prompt: tuple[int, ...], completions: list[tuple[int, ...]]
) -> dict[tuple[int, ...], float]:
    """The log-probability of each distinct completion, in packed passes: cheaper than to keep the
    logits of every step of every batch.
    """
    distinct = list(dict.fromkeys(completions))
    scores: dict[tuple[int, ...], float] = {}
    for row in pack([TokenizedPrompt(prompt, ids) for ids in distinct]):
        for member, value in zip(row.members, packed_logprobs(model, row).tolist(), strict=True):
            scores[distinct[member]] = value
    return scores
