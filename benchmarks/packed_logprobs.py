"""Packed against padded: log-probabilities and gradients of 32 completions of one prompt.

What is measured: the wall time of log pi(completion | prompt) for every completion, and of the
gradient of a weighted sum of them in all weights, on the embedded model in float32.

- packed: ``passgrad.lm.logprobs``; the prompt stands once in a row, behind a block mask.
- padded: a row for each completion, prompt included, padded to the longest; logits at the target
  tokens only.
- padded, all logits: the same with logits at every token, which is what a plain call gives.

Limits: the token ratio (tokens of the padded batch over tokens of one packed row), and the
arithmetic ratio, which counts the products of the output layer too: with logits at the targets
only, packing does not make them fewer. Both leave attention out.
The runs are interleaved, and a ratio is the median over rounds of the ratio within a round, so a
busy machine moves it little. Values and gradients of all three are compared before timing.
"""

from __future__ import annotations

from typing import Annotated

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

from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET, pack, packed_logprobs
from passgrad.lm.models import load_model
from passgrad.lm.tokens import TokenizedPrompt, encode
from passgrad.tasks.arithmetic import arithmetic

#: the share of the token ratio that packing should reach
EXPECTED = 0.85


def sequences(tokenizer, prompt_tokens: int, num_completions: int, length: int):
    """One real prompt with completions of random tokens, of lengths around ``length``.

    Time does not depend on which tokens they are.
    """
    text = arithmetic(num_examples=40, num_prompts=4).prompts[0].context
    prefix = tuple(encode(tokenizer, text)[:prompt_tokens])
    generator = torch.Generator().manual_seed(0)
    spread = max(1, length // 6)
    lengths = torch.randint(
        length - spread, length + spread + 1, (num_completions,), generator=generator
    )
    return [
        TokenizedPrompt(
            prefix, tuple(torch.randint(len(tokenizer), (n,), generator=generator).tolist())
        )
        for n in lengths.tolist()
    ]


def padded_batches(some, batch: int):
    """Plain padded rows: ids, mask, targets and where they are predicted; a few rows at a time."""
    longest = max(len(x.prefix) + len(x.target) - 1 for x in some)
    batches = []
    for start in range(0, len(some), batch):
        part = some[start : start + batch]
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        owners, places, targets = [], [], []
        for i, x in enumerate(part):
            row = x.prefix + x.target[:-1]
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
            owners += [i] * len(x.target)
            places += range(len(x.prefix) - 1, len(row))
            targets += x.target
        batches.append(
            (ids, mask, torch.tensor(owners), torch.tensor(places), torch.tensor(targets))
        )
    return batches


def padded_logprobs(model, batch, *, every: bool):
    """Log-probabilities of one padded batch; ``every``: with the logits of all tokens."""
    ids, mask, owners, places, targets = (one.to(model.device) for one in batch)
    if every:
        table = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
        chosen = table[owners, places, targets]
    else:
        hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        table = model.lm_head(hidden[owners, places]).log_softmax(-1)
        chosen = table.gather(-1, targets[:, None])[:, 0]
    return torch.zeros(len(ids), device=model.device).index_add(0, owners, chosen)


def main(
    num_completions: int = 32,
    prompt_tokens: int = 100,
    length: Annotated[int, typer.Option(help="tokens a completion, about")] = 24,
    token_budget: Annotated[int, typer.Option(help="tokens a packed row")] = DEFAULT_TOKEN_BUDGET,
    compare: Annotated[
        str, typer.Option(help="more budgets to time in the same run: 256,1024")
    ] = "",
    batch: Annotated[int, typer.Option(help="rows of a padded batch")] = 8,
    repeats: int = 5,
    model_name: Model = MODEL,
    device: Device = "cpu",
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Packed against padded log-probabilities and gradients."""
    if smoke:
        num_completions, prompt_tokens, length, batch, repeats = 4, 24, 4, 2, 1
    model, tokenizer = load_model(model_name)
    model.to(device)
    some = sequences(tokenizer, prompt_tokens, num_completions, length)
    weights = torch.linspace(-1, 1, num_completions)
    named = list(model.parameters())
    batches = padded_batches(some, batch)
    budgets = [token_budget, *(int(part) for part in compare.split(",") if part)]
    packings = {budget: pack(some, token_budget=budget) for budget in budgets}

    def packed(budget, gradient):
        values = torch.empty(num_completions)
        total = [torch.zeros_like(p) for p in named] if gradient else None
        for row in packings[budget]:
            part = packed_logprobs(model, row)
            values[list(row.members)] = part.detach()
            if gradient:
                pieces = torch.autograd.grad(weights[list(row.members)] @ part, named)
                torch._foreach_add_(total, list(pieces))
        return values, total

    def padded(every, gradient):
        values, start = [], 0
        total = [torch.zeros_like(p) for p in named] if gradient else None
        for part in batches:
            one = padded_logprobs(model, part, every=every)
            values.append(one.detach())
            if gradient:
                pieces = torch.autograd.grad(weights[start : start + len(one)] @ one, named)
                torch._foreach_add_(total, list(pieces))
            start += len(one)
        return torch.cat(values), total

    forms = {f"packed {budget}": lambda g, b=budget: packed(b, g) for budget in budgets}
    forms["padded"] = lambda g: padded(False, g)
    forms["padded, all logits"] = lambda g: padded(True, g)

    progress("comparing values and gradients")
    values, gradient = forms["padded"](True)
    scale = torch.cat([g.reshape(-1) for g in gradient]).norm()
    for name, form in forms.items():
        others, slopes = form(True)
        off = float((others - values).abs().max())
        away = float(
            torch.cat([(a - b).reshape(-1) for a, b in zip(slopes, gradient, strict=True)]).norm()
        )
        if off > 1e-2 or away > 1e-3 * scale:
            raise SystemExit(f"{name} gives other values ({off:.1e}) or gradients ({away:.1e})")
    del gradient, slopes

    # Multiplications: the blocks for every token of a row, the output layer where logits are made.
    head = model.lm_head.weight.numel()
    body = sum(p.numel() for p in named if p.dim() == 2) - head
    num_targets = sum(len(x.target) for x in some)
    padded_tokens = sum(part[0].numel() for part in batches)
    fewest = sum(row.num_tokens for row in pack(some, token_budget=10**9))
    least = fewest * body + num_targets * head
    limits = {
        "padded": (padded_tokens * body + num_targets * head) / least,
        "padded, all logits": padded_tokens * (body + head) / least,
    }
    figures = {
        "machine": machine(),
        "smoke": smoke,
        "setting": {
            "model": model_name,
            "completions": num_completions,
            "prompt_tokens": len(some[0].prefix),
            "completion_tokens": num_targets / num_completions,
            "token_budget": token_budget,
            "repeats": repeats,
        },
        "tokens": {
            "padded": padded_tokens,
            "fewest": fewest,
            **{f"packed {b}": sum(r.num_tokens for r in rows) for b, rows in packings.items()},
        },
        "limit": {"token_ratio": padded_tokens / fewest, "arithmetic_ratio": limits},
        "expected_share": EXPECTED,
    }
    with torch.no_grad():
        timed = {
            "log-probabilities": interleaved(
                {name: lambda f=form: f(False) for name, form in forms.items()}, repeats
            )
        }
    timed["gradients"] = interleaved(
        {name: lambda f=form: f(True) for name, form in forms.items()}, repeats
    )
    for what, seconds in timed.items():
        figures[what] = {"seconds": seconds}
        for baseline, limit in limits.items():
            for budget in budgets:
                reached = ratio(seconds, baseline, f"packed {budget}")
                figures[what][f"{baseline} / packed {budget}"] = {
                    "ratio": reached,
                    "share_of_token_ratio": reached / figures["limit"]["token_ratio"],
                    "share_of_arithmetic_ratio": reached / limit,
                }
    report(figures, json)


if __name__ == "__main__":
    typer.run(main)
