"""vLLM against transformers: completions of the same prompts from the same law.

What is measured: tokens of completions a second, for two kinds of prompts on the embedded model.

- conventions: answers of a few tokens; nearly all the time goes into reading the prompts.
- continuations: the few-shot context of the arithmetic task, run on to the length limit.

Starting an engine is reported apart: for vLLM the imports, the engine and its memory; for
transformers the weights. Neither counts towards the rate.

Limits. For the ratio: the tokens that each engine has to compute. transformers reads the prompt
once a completion, vLLM what is left of it behind the last full block of its prefix cache. For each
engine: the rate at which this machine multiplies a (128, 576) by a (576, 1536) matrix in float32,
measured in the same run. Of it an engine reaches a share

- in use: the multiplications of all tokens that it computes, prompts included;
- with effect: those that no engine can do without, each prompt once and each token drawn once.

A token counts two operations a weight of the layers, and two a weight of the output matrix where
its successor is drawn; attention over the past is left out.
The engines run in turn, and a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Annotated

import typer
from _common import MODEL, Figures, Smoke, machine, matmul_rate, progress, report

from passgrad.lm.models import load_model, resolve
from passgrad.lm.rollouts import Request
from passgrad.lm.tokens import encode
from passgrad.rollouts import transformers_engine, vllm_engine, vllm_worker
from passgrad.rollouts.sampling import vllm_problem
from passgrad.tasks.arithmetic import arithmetic
from passgrad.tasks.conventions import conventions

#: how much faster vLLM should be
EXPECTED = 2.5

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


@dataclass(frozen=True)
class Work:
    """What drawing multiplies: ``body`` weights of the layers a token, and ``head`` weights of the
    output matrix where the next one is drawn; against ``rate`` operations a second.
    """

    rate: float
    body: int
    head: int
    completions: int

    def share(self, prompt_tokens, tokens_drawn, seconds):
        """The share of the rate, median over rounds. The last token drawn is not read."""
        return statistics.median(
            2 * (self.body * (prompt_tokens + tokens - self.completions) + self.head * tokens)
            / taken / self.rate
            for tokens, taken in zip(tokens_drawn, seconds, strict=True)
        )  # fmt: skip


def main(
    num_samples: int = 32,
    num_prompts: Annotated[int, typer.Option(help="prompts of each kind")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="of a continuation")] = 64,
    repeats: int = 2,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Tokens a second of vLLM against those of transformers."""
    if problem := vllm_problem():
        raise SystemExit(f"nothing to compare: {problem}")
    if smoke:
        num_samples, num_prompts, max_new_tokens, repeats = 2, 1, 4, 1
    model, tokenizer = load_model(MODEL)
    head = model.get_output_embeddings().weight.numel()
    tied = model.config.tie_word_embeddings
    # A row of the embedding is looked up, not multiplied.
    body = sum(p.numel() for p in model.parameters() if p.dim() == 2) - (1 if tied else 2) * head
    place = resolve(MODEL)
    short = conventions(num_prompts=(num_prompts,), bases=(10,))
    long = arithmetic(num_prompts=num_prompts, num_examples=16, families=("2-digit sums",))
    [stop] = tokenizer(short.stop)["input_ids"]
    kinds = {
        "conventions": (short, (stop,), short.max_new_tokens),
        "continuations": (long, (tokenizer.eos_token_id,), max_new_tokens),
    }
    if smoke:  # every kind starts the engines anew and goes the same way
        del kinds["conventions"]
    engines = {"vllm": with_vllm, "transformers": with_transformers}
    figures = {"machine": machine(), "smoke": smoke, "expected_ratio": EXPECTED}
    operations = matmul_rate()
    figures["limit"] = {
        "matmul_gflops": operations / 1e9,
        "tokens_per_second": operations / (2 * (body + head)),
    }
    del model
    for kind, (task, ends, limit) in kinds.items():
        prompts = tuple(tuple(encode(tokenizer, prompt.text)) for prompt in task.prompts)
        request = Request(place, prompts, num_samples, ends, limit)
        rates = {name: [] for name in engines}
        starts = {name: [] for name in engines}
        seconds_taken = {name: [] for name in engines}
        tokens_drawn = {name: [] for name in engines}
        for round_number in range(repeats):
            for name, draw in engines.items():
                tokens, seconds, load = draw(request)
                rates[name].append(tokens / seconds)
                tokens_drawn[name].append(tokens)
                seconds_taken[name].append(seconds)
                starts[name].append(load)
                progress(
                    f"{kind}, round {round_number + 1}/{repeats}: {name} "
                    f"{rates[name][-1]:.1f} tokens/s, start {load:.1f} s"
                )
        ratios = [a / b for a, b in zip(rates["vllm"], rates["transformers"], strict=True)]
        completions = num_samples * len(prompts)
        new = sum(map(sum, tokens_drawn.values())) / (2 * repeats * completions)
        read = sum(map(len, prompts)) / len(prompts)
        left = sum(len(ids) - (len(ids) - 1) // BLOCK * BLOCK for ids in prompts) / len(prompts)
        once = sum(map(len, prompts))
        # Tokens of prompts that an engine computes; vLLM reads one of each whole.
        prompt_tokens = {
            "vllm": once + (num_samples - 1) * left * len(prompts),
            "transformers": num_samples * once,
        }
        work = Work(operations, body, head, completions)
        shares = {
            name: {
                "in_use": work.share(prompt_tokens[name], tokens_drawn[name], seconds_taken[name]),
                "with_effect": work.share(once, tokens_drawn[name], seconds_taken[name]),
            }
            for name in engines
        }
        figures[kind] = {
            "prompts": len(prompts),
            "prompt_tokens": read,
            "completions_a_prompt": num_samples,
            "tokens_a_completion": new,
            "max_new_tokens": limit,
            "tokens_per_second": rates,
            "start_seconds": starts,
            "ratio": statistics.median(ratios),
            "token_ratio": (read + new) / (left + new),
            "share_of_limit": shares,
        }
        progress(
            f"{kind}: vLLM {figures[kind]['ratio']:.2f} times transformers, "
            f"by tokens {figures[kind]['token_ratio']:.2f}; of the {operations / 1e9:.0f} GFLOP/s "
            "of a matrix product "
            + ", ".join(
                f"{name} uses {one['in_use']:.0%} ({one['with_effect']:.0%} with effect)"
                for name, one in shares.items()
            )
        )
    report(figures, json)


if __name__ == "__main__":
    typer.run(main)
