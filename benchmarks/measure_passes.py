"""The passes of a measurement: gradients on one half of the completions, scalars on the other.

What is measured: the wall time of the whole measurement of <grad J_k, grad J_1>, both halves in
both roles, on the embedded model in float32: a gradient on A and the derivatives of every
completion of B along it by central differences, then the halves swapped.

- training: the packed forward and backward pass over the same completions, what a training step
  of the same batch costs. The ratio is the measurement over it. Limit: 3 F + 2 F over 3 F, with F
  for a forward pass. Halves hold the prompt once each, a whole batch once: ``tokens`` says how many
  more that makes, and the choice of a step comes on top.
- orders: the measurement with 64 values of k over that with one. The k enter only through the
  coefficients of the scalars, so the passes are timed once and the rest for each.
- split: the product at one k divided over the parts of the model, with intervals, over a training
  pass. Limit: 1, as each completion is in one gradient; the tokens of halves come on top, with the
  prompts once for right and once for wrong completions (``tokens``), and folding the gradients.
- padded: the same two passes in plain padded batches with the logits of every token.
- full: the gradient of every prompt kept, by padded batches with all logits, and the matrix of
  their inner products, half by half; for one k only. The products are timed on a share of the
  columns of ``--scale`` gradients, which do not fit into memory, and counted for all. For seven
  orders (1, 2, 4 to 64) the backward passes are counted, not timed.
- windowed: the measurement over a training pass, on the same weights with a sliding window that
  prompt and completion exceed (as a Mistral). Limit: 2.
- unpacked: the same for a model with a state, whose sequences have a row each: random weights, of
  the width and depth of the model, every other layer a convolution (as an LFM2). ``tokens`` has how
  many more are read than in packed rows.
- full, each completion: the gradient of every completion by itself, which is what gives all k
  without bias; timed on a few completions, without the products.

``--parts`` picks what is timed beside the measurement. The padded and full forms are timed on one
prompt, once, and held against the seconds that the measurement of all prompts takes for one, in the
same run. The scalars of the padded form are compared with those of the packed one.
"""

from __future__ import annotations

import statistics
import time
from pydoc_data.topics import topics
from typing import Annotated, Any

import torch
import typer
from _common import (
    MODEL,
    Device,
    Figures,
    Model,
    Smoke,
    interleaved,
    machine,
    progress,
    ratio,
    report,
)
from packed_logprobs import padded_batches, padded_logprobs

from passgrad.estimators import advantages
from passgrad.lm.central import Displacement
from passgrad.lm.completions import Completions
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.tokens import encode
from passgrad.measurement.parts import Folding, ModelParts, Reading, estimate_parts

#: tokens, which prompts and completions exceed
WINDOW = 64
PARTS = ("training", "split", "orders", "windowed", "unpacked", "padded", "full")


def completions(tokenizer, num_prompts: int, num: int, prompt_tokens: int, length: int):
    """Pieces of English text: a prompt, and completions of lengths around ``length``."""
    text = encode(tokenizer, " ".join(" ".join(topics[name].split()) for name in sorted(topics)))
    spread = max(1, length // 6)
    prompts, drawn = [], []
    for x in range(num_prompts):
        start = x * 3 * prompt_tokens
        prompts.append(text[start : start + prompt_tokens])
        places = [start + prompt_tokens + 11 * i for i in range(num)]
        drawn.append(
            [text[a : a + length - spread + i % (2 * spread + 1)] for i, a in enumerate(places)]
        )
    return Completions.from_tokens(prompts, drawn)


def windowed(model: Any) -> Any:
    """The same weights behind a sliding window, for models like Llama; else random ones."""
    from transformers import MistralConfig, MistralForCausalLM

    made = MistralForCausalLM(MistralConfig(sliding_window=WINDOW, **sizes(model))).eval()
    if model.config.model_type == "llama":
        made.load_state_dict(model.state_dict())
    return made


def unpacked(model: Any) -> Any:
    """Random weights of this width and depth, with a state in every other layer."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    given = sizes(model)
    layers = ["conv" if i % 2 else "full_attention" for i in range(given["num_hidden_layers"])]
    given.pop("head_dim")
    config = Lfm2Config(layer_types=layers, block_auto_adjust_ff_dim=False, **given)
    return Lfm2ForCausalLM(config).eval()


def sizes(model: Any) -> dict[str, Any]:
    """Of a model, as other configurations call them."""
    config = model.config
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
        "tie_word_embeddings", "rope_parameters", "rms_norm_eps",
    )  # fmt: skip
    given = {name: getattr(config, name) for name in names if hasattr(config, name)}
    head = getattr(config, "head_dim", None)
    return given | {"head_dim": head or config.hidden_size // config.num_attention_heads}


def halves(shape: tuple[int, int]):
    """(M, n) bool: the first half of the completions of each prompt, and the second."""
    first = torch.zeros(shape, dtype=torch.bool)
    first[:, : shape[1] // 2] = True
    return first, ~first


def conflict(slopes: torch.Tensor, rewards: torch.Tensor, ks) -> torch.Tensor:
    """<grad J_k, grad J_1> for each k from the scalars of one half."""
    return (advantages(rewards, ks) * slopes).sum((-2, -1)) / len(rewards)


def measure(passes: CompletionPasses, method: str = "central") -> torch.Tensor:
    """The scalars of every completion, each along the gradient on the other half."""
    first, second = halves(passes.completions.shape)
    slopes = torch.empty(passes.completions.shape, dtype=torch.float64)
    for a, b in ((first, second), (second, first)):
        coefficients = torch.zeros_like(slopes)
        coefficients[a] = weights(passes.rewards[a].reshape(len(slopes), -1)).flatten()
        along = passes.gradient(coefficients)
        slopes[b] = passes.directional(along, method, where=b)[b]
    return slopes


def weights(rewards: torch.Tensor) -> torch.Tensor:
    """Coefficients of the gradient of pass@1, averaged over the prompts."""
    return advantages(rewards, 1) / len(rewards)


def padded_measure(passes: CompletionPasses, batch: int) -> torch.Tensor:
    """:func:`measure` in padded batches with the logits of all tokens."""
    model, some = passes.model, passes.completions
    first, second = halves(some.shape)
    named = dict(model.named_parameters())
    slopes = torch.empty(some.shape, dtype=torch.float64)
    for a, b in ((first, second), (second, first)):
        coefficients = weights(passes.rewards[a].reshape(len(slopes), -1)).flatten().float()
        along = padded_gradient(model, sequences(some, a), coefficients, batch)
        v = dict(zip(named, along, strict=True))
        batches = padded_batches(sequences(some, b), batch)
        h = 1e-6 * size(named.values()) / size(along)
        with torch.no_grad(), Displacement(named, v) as displaced:
            ends = []
            for step in (h, -h):
                displaced.to(step)
                ends.append(torch.cat([padded_logprobs(model, x, every=True) for x in batches]))
        slopes[b] = (ends[0] - ends[1]).double() / (2 * h)
    return slopes


def split(passes: CompletionPasses):
    """The product at k = 2 by part of the model."""
    folding = Folding(max(2, min(16, passes.rewards.shape[0])))
    return estimate_parts(ModelParts(passes), 2, reading=Reading("fixed"), folding=folding)


def sequences(some: Completions, where: torch.Tensor):
    """The completions at these places, in order."""
    return [some.sequences[place] for place in some.places[where].tolist()]


def padded_gradient(model, some, coefficients, batch: int) -> list[torch.Tensor]:
    """The gradient of a weighted sum of log-probabilities, parameter by parameter."""
    named = list(model.parameters())
    total = [torch.zeros_like(p) for p in named]
    for number, part in enumerate(padded_batches(some, batch)):
        values = padded_logprobs(model, part, every=True)
        mine = coefficients[number * batch : number * batch + len(values)]
        torch._foreach_add_(total, list(torch.autograd.grad(mine @ values, named)))
    return total


def size(tensors) -> float:
    """The length of a vector in pieces."""
    return (
        sum(float(torch.linalg.vector_norm(t.detach(), dtype=torch.float64)) ** 2 for t in tensors)
        ** 0.5
    )


def seconds_of(function) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main(
    num_prompts: int = 6,
    num_completions: int = 32,
    prompt_tokens: int = 100,
    length: Annotated[int, typer.Option(help="tokens a completion, about")] = 24,
    token_budget: Annotated[int, typer.Option(help="tokens a packed row")] = DEFAULT_TOKEN_BUDGET,
    batch: Annotated[int, typer.Option(help="rows of a padded batch")] = 8,
    scale: Annotated[int, typer.Option(help="prompts that full gradients are counted for")] = 72,
    repeats: int = 1,
    parts: Annotated[str, typer.Option(help="what to time")] = ",".join(PARTS),
    model_name: Model = MODEL,
    device: Device = "cpu",
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """The measurement against a training pass, against padding, against full gradients."""
    if smoke:
        num_prompts, num_completions, prompt_tokens, length, batch = 2, 4, 24, 4, 2
        scale = 4
    chosen = parts.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    model, tokenizer = load_model(model_name)
    model.to(device)
    some = completions(tokenizer, num_prompts, num_completions, prompt_tokens, length)
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(some.shape, generator=generator) < 0.5).double()
    rewards[:, 0] = rewards[:, num_completions // 2] = 1  # no half without a right answer
    rewards[:, 1] = rewards[:, num_completions // 2 + 1] = 0
    passes = CompletionPasses(model, some, rewards, token_budget=token_budget)
    first, second = halves(some.shape)

    def tokens(where):
        rows = some.rows(some.chosen(where), token_budget=token_budget)
        return sum(row.num_tokens for row in rows)

    figures: dict[str, Any] = {
        "machine": machine(),
        "smoke": smoke,
        "setting": {
            "model": model_name,
            "prompts": num_prompts,
            "completions": num_completions,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": sum(len(x.target) for x in some.sequences) / len(some.sequences),
            "distinct": len(some.sequences),
            "token_budget": token_budget,
            "repeats": repeats,
        },
        "tokens": {"whole": tokens(None), "halves": tokens(first) + tokens(second)},
        "limit": {"training": 5 / 3, "orders": 1.0},
    }
    figures["limit"]["training, with the tokens of halves"] = (
        figures["limit"]["training"] * figures["tokens"]["halves"] / figures["tokens"]["whole"]
    )
    small = CompletionPasses(
        model,
        completions(tokenizer, 1, num_completions, prompt_tokens, length),
        rewards[:1],
        token_budget=token_budget,
    )
    most = sum(x[0].numel() for x in padded_batches(list(small.completions.sequences), batch))
    rows = sum(
        row.num_tokens
        for where in halves(small.completions.shape)
        for row in small.completions.rows(small.completions.chosen(where))
    )
    figures["limit"]["padded"] = figures["limit"]["full"] = most / rows
    ones = weights(rewards)
    errors = []

    def measured():
        slopes = measure(passes)
        errors.append(passes.last_error)
        return slopes

    progress("one prompt, to warm up and to compare with")
    reference = measure(small)
    forms = {"measurement": measured}
    if "training" in chosen:
        forms["training"] = lambda: passes.gradient(ones)
    if "split" in chosen:
        forms["split"] = lambda: split(passes)
    seconds = interleaved(forms, repeats, warm_up=False)
    whole = statistics.median(seconds["measurement"])
    each_prompt = whole / num_prompts
    figures["measurement"] = {
        "seconds": seconds,
        "seconds_a_prompt": each_prompt,
        "step_error": errors,
    }
    if "training" in chosen:
        figures["training"] = {"ratio": ratio(seconds, "measurement", "training")}
    if {"training", "split"} <= set(chosen):
        figures["limit"]["split"] = 1.0
        classes = [where & (rewards == right) for where in (first, second) for right in (0, 1)]
        figures["tokens"]["halves by reward"] = sum(map(tokens, classes))
        figures["limit"]["split, with these tokens"] = (
            figures["tokens"]["halves by reward"] / figures["tokens"]["whole"]
        )
        figures["split"] = {"ratio": ratio(seconds, "split", "training")}
    if "orders" in chosen:
        # 128 completions a prompt, 64 a half, which 64 orders need; the scalars repeat.
        slopes = torch.randn(num_prompts, 64, generator=generator, dtype=torch.float64)
        right = (torch.rand(num_prompts, 64, generator=generator) < 0.5).double()
        both = {
            f"{len(ks)}": 2
            * min(seconds_of(lambda ks=ks: conflict(slopes, right, ks)) for _ in "12345")
            for ks in ([1], list(range(1, 65)))
        }
        figures["orders"] = {
            "seconds": {"passes": whole, **both},
            "ratio": (whole + both["64"]) / (whole + both["1"]),
        }
    for name, make in (("windowed", windowed), ("unpacked", unpacked)):
        if name in chosen:
            progress(name)
            other = CompletionPasses(make(model), some, rewards, token_budget=token_budget)
            timed = interleaved(
                {
                    "measurement": lambda other=other: measure(other),
                    "training": lambda other=other: other.gradient(ones),
                },
                repeats,
                warm_up=False,
            )
            figures[name] = {
                "seconds": timed,
                "rows": str(other.packing),
                "tokens": sum(row.num_tokens for row in other.rows(some.chosen())),
                "step_error": other.last_error,
                "ratio": ratio(timed, "measurement", "training"),
            }
            figures["limit"][name] = 2.0
    if "padded" in chosen:
        progress("padded batches")
        begun = time.perf_counter()
        slopes = padded_measure(small, batch)
        padded = time.perf_counter() - begun
        change = float((slopes - reference).norm() / reference.norm())
        if change > 5e-2:
            raise SystemExit(f"padded batches give other scalars: {change:.1e} of their length")
        figures["padded"] = {
            "seconds_a_prompt": padded,
            "ratio": padded / each_prompt,
            "change": change,
        }
    if "full" in chosen:
        progress("full gradients")
        sides = halves(small.completions.shape)
        kept: list[torch.Tensor] = []

        def keep():
            for side in sides:
                mine = weights(small.rewards[side].reshape(1, -1)).flatten().float()
                made = padded_gradient(model, sequences(small.completions, side), mine, batch)
                kept.append(torch.cat([g.flatten() for g in made]))

        gradients = seconds_of(keep)
        columns = kept[0].numel() // 64
        one_side, other = torch.randn(scale, columns), torch.randn(scale, columns)
        products = 64 * min(seconds_of(lambda: one_side @ other.T) for _ in "123")
        few = list(small.completions.sequences)[:4]
        each = seconds_of(
            lambda: [padded_gradient(model, [one], torch.ones(1), 1) for one in few]
        ) / len(few)
        figures["full"] = {
            "seconds": {
                "gradients": gradients,
                "products": products,
                "gradient_of_a_completion": each,
            },
            "scale": scale,
            "kept_gib": 2 * scale * kept[0].numel() * 4 / 2**30,
            "ratio": {
                "prompts": (gradients + products / scale) / each_prompt,
                "prompts, without products": gradients / each_prompt,
                # A backward pass more for each order, on the same forward pass.
                "prompts, seven orders": (gradients * (1 + 2 * 7) / 3 + 7 * products / scale)
                / each_prompt,
                "completions": num_completions * each / each_prompt,
            },
        }
    report(figures, json)


if __name__ == "__main__":
    typer.run(main)
