"""Completions from ``generate`` of transformers: slower, and available everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from passgrad.lm.logprobs import pack, packed_logprobs
from passgrad.lm.models import load_model
from passgrad.lm.rollouts import Completion, Request
from passgrad.lm.tokens import TokenizedPrompt
from passgrad.progress import Progress

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

# A row of a batch costs little more than a token a step while the batch is small, and waits for the
# slowest row.
_BATCH = 128


def draw(request: Request, progress: Progress | None = None) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out."""
    from transformers import GenerationConfig

    model, tokenizer = load_model(request.model, dtype=getattr(torch, request.dtype))
    model.to(request.device)  # type: ignore[arg-type]
    settings, ends, prompts = request.settings, request.ends, request.prompts
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    # Every field of the law is given: what the model folder says about sampling must not enter.
    law = GenerationConfig(
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=padding,
    )
    # Prompts of like length share a batch, so that little of it is padding.
    jobs = sorted(
        (i for i in range(len(prompts)) for _ in range(request.num_samples)),
        key=lambda i: len(prompts[i]),
    )
    drawn: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            for i, ids in zip(
                batch, _generate(model, [prompts[i] for i in batch], law, padding), strict=True
            ):
                drawn[i].append(_until(ids, ends))
            if progress is not None:
                progress.advance(len(batch))
    return [
        [Completion(ids, "stop" if ids[-1] in ends else "length", logprobs[ids]) for ids in mine]
        for mine, logprobs in (
            (mine, _score(model, prompt, mine)) for prompt, mine in zip(prompts, drawn, strict=True)
        )
    ]


def _generate(
    model: Any, prompts: list[tuple[int, ...]], law: GenerationConfig, padding: int
) -> list[list[int]]:
    longest = max(map(len, prompts))
    rows = torch.tensor([[padding] * (longest - len(ids)) + [*ids] for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    made = model.generate(
        input_ids=rows.to(model.device), attention_mask=mask.to(model.device), generation_config=law
    )
    return made[:, longest:].tolist()


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
