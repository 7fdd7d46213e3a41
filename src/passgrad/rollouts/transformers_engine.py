"""Completions from ``generate`` of transformers: slower, and available everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.logprobs import alone, pack, packed_logprobs
from passgrad.lm.models import load_model
from passgrad.lm.models.faults import one_line
from passgrad.lm.packing import choose_packing
from passgrad.lm.rollouts import Completion, Request
from passgrad.lm.tokens import TokenizedPrompt, check_vocabulary
from passgrad.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

# A row of a batch costs little more than a token a step while the batch is small, and waits for the
# slowest row.
_BATCH = 128
# Steps of a look at a way to generate, and how far its law may be off, in nats a step: rounding of
# either precision.
_STEPS, _GAP, _GAP_16 = 8, 1e-3, 0.1
# A log-probability that is as good as none.
_LEAST = -60.0
# What a model raises that does not know how to generate.
_FAULTS = (ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError)
# Of the work of a completion, what drawing it is; the rest is scoring it.
_DRAWING = 0.8


def draw(request: Request, progress: Progress | None = None) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out.

    The quickest way to generate is taken whose first steps agree with plain passes.

    :raises UserError: For a prompt with a token that the model does not have.
    """
    model, _ = load_model(request.model, dtype=getattr(torch, request.dtype))
    model.to(request.device)  # type: ignore[arg-type]
    return draw_from(model, request, progress)


def draw_from(
    model: Any, request: Request, progress: Progress | None = None
) -> list[list[Completion]]:
    """:func:`draw` from a model that is loaded; its ``generation_config`` is emptied."""
    settings, ends, prompts = request.settings, request.ends, request.prompts
    size = model.get_input_embeddings().num_embeddings
    check_vocabulary(prompts, size, request.name or request.model)
    law = _stated(model, request)
    jobs = sorted(
        (i for i in range(len(prompts)) for _ in range(request.num_samples)),
        key=lambda i: len(prompts[i]),
    )
    drawn: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    steps = _Steps(progress or Silent(), request.max_new_tokens)
    with torch.no_grad(), torch.random.fork_rng():
        ways = _ways(model, request)
        law.use_cache = ways.cached
        torch.manual_seed(settings.seed)
        for batch in _batches(jobs, prompts, ways.padded):
            rows = _generate(model, [prompts[i] for i in batch], law, steps)
            for i, ids in zip(batch, rows, strict=True):
                drawn[i].append(_until(ids, ends))
            steps.finish()
    completions = []
    for mine, logprobs in zip(drawn, scores(model, prompts, drawn), strict=True):
        completions.append(
            [
                Completion(ids, "stop" if ids[-1] in ends else "length", logprobs[ids])
                for ids in mine
            ]
        )
        steps.progress.advance((1 - _DRAWING) * len(mine))
    return completions


@dataclass(frozen=True)
class _Ways:
    """How a model may generate: with prompts of several lengths in a batch, and with the states
    that are kept from token to token.
    """

    padded: bool
    cached: bool


def _ways(model: Any, request: Request) -> _Ways:
    """The quickest way whose first steps have the log-probabilities of plain passes.

    Some models of transformers read padding as a part of the prompt, and some keep states that are
    wrong in a batch, or at all. Without states each token reads the whole sequence again.
    """
    by_length = sorted(request.prompts, key=len)
    shortest, longest = by_length[0], by_length[-1]
    if len(shortest) < len(longest) and _is_plain(model, request, [shortest, longest]):
        return _Ways(padded=True, cached=True)
    return _Ways(padded=False, cached=_is_plain(model, request, [longest, longest]))


def _is_plain(model: Any, request: Request, prompts: list[tuple[int, ...]]) -> bool:
    law = _stated(model, request)
    law.max_new_tokens = min(_STEPS, request.max_new_tokens)
    law.output_logits = law.return_dict_in_generate = True
    rows, mask = _padded(prompts, model.device)
    try:
        made = model.generate(input_ids=rows, attention_mask=mask, generation_config=law)
    except (RuntimeError, *_FAULTS):
        return False
    kept = torch.stack(made.logits, dim=1)
    limit = _GAP if request.dtype == "float32" else _GAP_16
    for prompt, ids, logits in zip(prompts, made.sequences, kept, strict=True):
        alone = ids[None, rows.shape[1] - len(prompt) : -1]
        plain = model(input_ids=alone, use_cache=False).logits[0, len(prompt) - 1 :]
        table, other = (x.float().log_softmax(-1).clamp(min=_LEAST) for x in (plain, logits))
        gap = (table.exp() * (table - other).abs()).sum(-1).max()
        if not gap < limit:  # nan too
            return False
    return True


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
        pad_token_id=0,  # behind an end token, and cut off with what follows it
    )


def _batches(
    jobs: list[int], prompts: Sequence[tuple[int, ...]], padded: bool
) -> Iterator[list[int]]:
    """Prompts of like length share a batch, or those of one length."""
    for _, some in itertools.groupby(jobs, key=lambda i: 0 if padded else len(prompts[i])):
        alike = list(some)
        for start in range(0, len(alike), _BATCH):
            yield alike[start : start + _BATCH]


def _padded(prompts: Sequence[tuple[int, ...]], device: Any) -> tuple[Tensor, Tensor]:
    """Rows of one length, with padding in front, and where they are no padding."""
    longest = max(map(len, prompts))
    rows = [[0] * (longest - len(ids)) + [*ids] for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


def _generate(
    model: Any, prompts: list[tuple[int, ...]], law: GenerationConfig, steps: _Steps
) -> list[list[int]]:
    rows, mask = _padded(prompts, model.device)
    steps.begin(len(prompts))
    try:
        made = model.generate(
            input_ids=rows, attention_mask=mask, generation_config=law,
            stopping_criteria=[steps],
        )  # fmt: skip
    except _FAULTS as error:
        raise UserError(
            f"transformers cannot generate with {type(model).__name__} ({one_line(error)}); "
            "take the engine vllm, or rollouts drawn elsewhere"
        ) from error
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


def scores(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    drawn: Sequence[Sequence[tuple[int, ...]]],
) -> Iterator[dict[tuple[int, ...], float]]:
    """The log-probabilities of the distinct completions of each prompt: cheaper than to keep the
    logits of every step of every batch. Rows are packed where that gives what plain passes give.
    """
    each = [
        [TokenizedPrompt(prompt, ids) for ids in dict.fromkeys(some)]
        for prompt, some in zip(prompts, drawn, strict=True)
    ]
    together = [one for some in each for one in some]
    packed = choose_packing(model, together, pack(together)).packed
    for some in each:
        scores = {}
        for row in pack(some) if packed else alone(some):
            with torch.no_grad():
                values = packed_logprobs(model, row).tolist()
            scores.update({some[i].target: v for i, v in zip(row.members, values, strict=True)})
        yield scores
