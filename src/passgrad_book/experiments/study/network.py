"""A llama of two layers as functions of one flat vector of weights.

Every step of the study is a few milliseconds of arithmetic; most of the time of a pass through the
classes of transformers would be their own. The weights are those of ``LlamaForCausalLM``, in its
order, and a test compares the two.

Completions of a prompt that begin alike share their passes: they are a tree, and each of its nodes
is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from passgrad_book.experiments.small_models.character_llama import character_llama
from passgrad_book.experiments.study.words import LENGTH, NUM_TOKENS, PROMPT_LENGTH

WIDTH, INNER, HEADS, LAYERS = 64, 192, 4, 2
_HEAD = WIDTH // HEADS
_EPSILON = 1e-6


class _Layer(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    norm: Tensor
    inner_norm: Tensor


_SHAPES: list[tuple[int, ...]] = [
    (NUM_TOKENS, WIDTH),
    *[
        shape
        for _ in range(LAYERS)
        for shape in (
            *[(WIDTH, WIDTH)] * 4,
            *[(INNER, WIDTH)] * 2,
            (WIDTH, INNER),
            (WIDTH,),
            (WIDTH,),
        )
    ],
    (WIDTH,),
]
_SIZES = [torch.Size(shape).numel() for shape in _SHAPES]
#: length of the vector of weights
NUM_WEIGHTS = sum(_SIZES)


def _angles() -> tuple[Tensor, Tensor]:
    frequencies = 10000.0 ** (-torch.arange(0, _HEAD, 2) / _HEAD)
    angles = torch.outer(torch.arange(PROMPT_LENGTH + LENGTH), frequencies)
    both = torch.cat([angles, angles], 1)
    return both.cos(), both.sin()


_COS, _SIN = _angles()


def llama(seed: int) -> Any:
    """The same network as a model of transformers, with fresh weights."""
    return character_llama(
        NUM_TOKENS, hidden_size=WIDTH, intermediate_size=INNER, num_heads=HEADS,
        num_layers=LAYERS, positions=PROMPT_LENGTH + LENGTH, spread=0.05, seed=seed,
    )  # fmt: skip


def llama_of(theta: Tensor) -> Any:
    """The model of transformers with these weights, (d,)."""
    model = llama(0)
    vector_to_parameters(theta.clone(), model.parameters())
    return model


def fresh_weights(seed: int) -> Tensor:
    """(d,) float32 weights of :func:`llama`."""
    return parameters_to_vector(llama(seed).parameters()).detach()


def _unpacked(theta: Tensor) -> tuple[Tensor, list[_Layer], Tensor]:
    parts = [x.view(s) for x, s in zip(theta.split(_SIZES), _SHAPES, strict=True)]
    layers = [_Layer(*parts[1 + 9 * place : 10 + 9 * place]) for place in range(LAYERS)]
    return parts[0], layers, parts[-1]


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, (WIDTH,), weight, _EPSILON)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _after_attention(x: Tensor, mixed: Tensor, layer: _Layer) -> Tensor:
    x = x + mixed.flatten(-2) @ layer.out.T
    inner = _normed(x, layer.inner_norm)
    return x + (functional.silu(inner @ layer.gate.T) * (inner @ layer.up.T)) @ layer.down.T


def _sequences(weights: tuple[Tensor, list[_Layer], Tensor], tokens: Tensor) -> tuple[Tensor, list]:
    """Whole sequences (P, T): states before the last norm (P, T, width), and each layer's keys and
    values, (P, T, heads, head).
    """
    embedding, layers, _ = weights
    x = functional.embedding(tokens, embedding)
    length = tokens.shape[1]
    cos, sin = _COS[:length, None], _SIN[:length, None]
    kept = []
    for layer in layers:
        inner = _normed(x, layer.norm)
        query, key, value = (
            (inner @ matrix.T).unflatten(-1, (HEADS, _HEAD))
            for matrix in (layer.query, layer.key, layer.value)
        )
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        kept.append((key, value))
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True
        ).transpose(1, 2)
        x = _after_attention(x, mixed, layer)
    return x, kept


def answer_logits(theta: Tensor, prompts: Tensor, answers: Tensor) -> Tensor:
    """Logits at the places of given answers: (P, 4, V) float32."""
    weights = _unpacked(theta)
    states, _ = _sequences(weights, torch.cat([prompts, answers[:, :-1]], 1))
    return _normed(states[:, PROMPT_LENGTH - 1 :], weights[2]) @ weights[0].T


def answer_logprobs(theta: Tensor, prompts: Tensor, answers: Tensor) -> Tensor:
    """The log pi(answer | prompt) of given answers: (P,) float32."""
    logits = answer_logits(theta, prompts, answers).log_softmax(-1)
    return logits.gather(2, answers[:, :, None]).sum((1, 2))


def draw(theta: Tensor, prompts: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    """Independent completions of each prompt at temperature 1: (P, 6) tokens -> (P, n, 4)."""

    def choose(logprobs: Tensor, node: Tensor, position: int) -> Tensor:
        chances = logprobs.exp().index_select(0, node)
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    with torch.no_grad():
        tokens, _ = _walk(theta, prompts, num_samples, choose)
    return tokens


def completion_logprobs(theta: Tensor, prompts: Tensor, tokens: Tensor) -> Tensor:
    """The log pi of n completions of each prompt: (P, 6) and (P, n, 4) tokens -> (P, n)."""
    flat = tokens.flatten(0, 1)
    _, logprobs = _walk(
        theta, prompts, tokens.shape[1], lambda _, node, position: flat[:, position]
    )
    return logprobs


def _walk(
    theta: Tensor,
    prompts: Tensor,
    num_samples: int,
    choose: Callable[[Tensor, Tensor, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Down the tree of completions: their tokens (P, n, 4) and log-probabilities (P, n).

    :param choose: Log-probabilities of the nodes (U, V), the node that each completion has reached
        (P n,) and the position -> the next token of each completion (P n,).
    """
    weights = _unpacked(theta)
    embedding, _, last_norm = weights
    states, context = _sequences(weights, prompts)
    logprobs = (_normed(states[:, -1], last_norm) @ embedding.T).log_softmax(-1)
    node = torch.arange(len(prompts)).repeat_interleave(num_samples)
    tokens, chosen = [], []
    for position in range(LENGTH):
        token = choose(logprobs, node, position)
        places = node * NUM_TOKENS + token
        chosen.append(logprobs.flatten().index_select(0, places))
        tokens.append(token)
        if position < LENGTH - 1:
            below, node = torch.unique(places, return_inverse=True)
            logprobs, context = _grown(weights, below % NUM_TOKENS, below // NUM_TOKENS, context)
    shape = (len(prompts), num_samples)
    return (
        torch.stack(tokens, -1).reshape(*shape, LENGTH),
        torch.stack(chosen).sum(0).reshape(shape),
    )


def _grown(
    weights: tuple[Tensor, list[_Layer], Tensor], tokens: Tensor, parents: Tensor, context: list
) -> tuple[Tensor, list]:
    """One more token below some nodes: log-probabilities of the next (U, V), and the context."""
    embedding, layers, last_norm = weights
    x = functional.embedding(tokens, embedding)
    place = context[0][0].shape[1]
    cos, sin = _COS[place], _SIN[place]
    kept = []
    for layer, (keys, values) in zip(layers, context, strict=True):
        inner = _normed(x, layer.norm)
        query, key, value = (
            (inner @ matrix.T).unflatten(-1, (HEADS, _HEAD))
            for matrix in (layer.query, layer.key, layer.value)
        )
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        keys = torch.cat([keys.index_select(0, parents), key[:, None]], 1)
        values = torch.cat([values.index_select(0, parents), value[:, None]], 1)
        kept.append((keys, values))
        scores = torch.einsum("uhd,uthd->uht", query, keys) / _HEAD**0.5
        mixed = torch.einsum("uht,uthd->uhd", scores.softmax(-1), values)
        x = _after_attention(x, mixed, layer)
    return (_normed(x, last_norm) @ embedding.T).log_softmax(-1), kept
