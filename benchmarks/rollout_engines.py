"""vLLM against transformers: completions of the same prompts from the same law.

What is measured: tokens of completions a second, for two kinds of prompts on the embedded model.

- conventions: answers of a few tokens; nearly all the time goes into reading the prompts.
- continuations: the few-shot context of the arithmetic task, run on to the length limit.

Starting an engine is reported apart: for vLLM the imports, the engine and its memory; for
transformers the weights. Neither counts towards the rate.
Limits: for the rate, that at which this machine multiplies a (128, 576) by a (576, 1536) matrix in
float32, over the two operations a weight and token; reading the prompts and attention are left out
of it. For the ratio, the tokens that each engine has to compute: transformers reads the prompt once
a completion, vLLM what is left of it behind the last full block of its prefix cache.
The engines run in turn, and a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import typer
from _common import MODEL, machine, matmul_rate, progress, report

from passgrad.lm import transformers_engine, vllm_engine, vllm_worker
from passgrad.lm.models import load_model, resolve
from passgrad.lm.rollouts import Request
from passgrad.lm.sampling import vllm_problem
from passgrad.lm.tokens import encode
from passgrad.tasks.arithmetic import arithmetic
from passgrad.tasks.conventions import conventions

#: how much faster vLLM should be
EXPECTED = 2.0

#: tokens of a block of vLLM's prefix cache, as the worker sets it on a CPU
BLOCK = vllm_worker.CPU_BLOCK


def with_vllm(request):
    """(tokens, seconds of drawing, seconds of starting)."""
    response = vllm_engine.ask(request)
    tokens = sum(len(ids) for row in response["drawn"] for ids, _, _ in row)
    return tokens, response["seconds"]["generate"], response["seconds"]["load"]


def with_transformers(request):
    """(tokens, seconds of drawing, seconds of starting)."""
    begun = time.perf_counter()
    load_model(request.model)
    load = time.perf_counter() - begun
    begun = time.perf_counter()
    drawn = transformers_engine.draw(request)
    # It loads the weights itself as well.
    seconds = time.perf_counter() - begun - load
    return sum(len(one.token_ids) for row in drawn for one in row), seconds, load


def main(
    num_samples: int = 32,
    num_prompts: Annotated[int, typer.Option(help="prompts of each kind")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="of a continuation")] = 64,
    repeats: int = 2,
    smoke: Annotated[bool, typer.Option(help="as small as it goes; figures mean nothing")] = False,
    json: Annotated[Path | None, typer.Option(help="write the figures here too")] = None,
) -> None:
    """Tokens a second of vLLM against those of transformers."""
    if problem := vllm_problem():
        raise SystemExit(f"nothing to compare: {problem}")
    if smoke:
        num_samples, num_prompts, max_new_tokens, repeats = 2, 1, 4, 1
    model, tokenizer = load_model(MODEL)
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    place = resolve(MODEL)
    short = conventions(num_prompts=(num_prompts,), bases=(10,))
    long = arithmetic(num_prompts=num_prompts, num_examples=16, families=("2-digit sums",))
    [stop] = tokenizer(short.stop)["input_ids"]
    kinds = {
        "conventions": (short, (stop,), short.max_new_tokens),
        "continuations": (long, (tokenizer.eos_token_id,), max_new_tokens),
    }
    engines = {"vllm": with_vllm, "transformers": with_transformers}
    figures = {"machine": machine(), "smoke": smoke, "expected_ratio": EXPECTED}
    operations = matmul_rate()
    figures["limit"] = {
        "matmul_gflops": operations / 1e9,
        "tokens_per_second": operations / (2 * weights),
    }
    del model
    for kind, (task, ends, limit) in kinds.items():
        prompts = tuple(tuple(encode(tokenizer, prompt.text)) for prompt in task.prompts)
        request = Request(place, prompts, num_samples, ends, limit)
        rates = {name: [] for name in engines}
        starts = {name: [] for name in engines}
        tokens_drawn = []
        for round_number in range(repeats):
            for name, draw in engines.items():
                tokens, seconds, load = draw(request)
                rates[name].append(tokens / seconds)
                tokens_drawn.append(tokens / (num_samples * len(prompts)))
                starts[name].append(load)
                progress(
                    f"{kind}, round {round_number + 1}/{repeats}: {name} "
                    f"{rates[name][-1]:.1f} tokens/s, start {load:.1f} s"
                )
        ratios = [a / b for a, b in zip(rates["vllm"], rates["transformers"], strict=True)]
        new = statistics.mean(tokens_drawn)
        read = sum(map(len, prompts)) / len(prompts)
        left = sum(len(ids) - (len(ids) - 1) // BLOCK * BLOCK for ids in prompts) / len(prompts)
        share = statistics.median(rates["vllm"]) / figures["limit"]["tokens_per_second"]
        figures[kind] = {
            "prompts": len(prompts),
            "prompt_tokens": sum(map(len, prompts)) / len(prompts),
            "completions_a_prompt": num_samples,
            "max_new_tokens": limit,
            "tokens_per_second": rates,
            "start_seconds": starts,
            "ratio": statistics.median(ratios),
            "token_ratio": (read + new) / (left + new),
            "vllm_share_of_limit": share,
        }
    report(figures, json)


if __name__ == "__main__":
    typer.run(main)
