"""The products of all prompts' gradients: exact in blocks, sketched, and kept and multiplied.

What is measured: the wall time of the (M, M) matrix of inner products of the policy gradients of M
prompts, over all parameters of the embedded model in float32.

- blocks: exact within ``--memory`` GiB over exact with all gradients at once. Limit: the number of
  blocks, since each takes the passes again; a block in the upper layers stops early.
- sketch: exact with all gradients at once over sketched. Limit: 1, where neither the products
  nor the sketch cost anything beside the passes, which both take once. What a sketch saves is
  memory: its numbers for a prompt over all parameters.
- kept: the gradient of each prompt kept and the matrix multiplied out in float32, over exact with
  all at once. Limit: 1, the passes again.

``error`` is the distance of the sketched matrix from the exact one over the lengths of the vectors,
root mean square over pairs of prompts, beside what the sketch says of itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from _common import MODEL, Model, interleaved, machine, ratio, report
from measure_passes import completions

from passgrad.estimators import advantages
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.products.prompt_gram import plan_gram, prompt_gram
from passgrad.lm.products.prompt_sketch import sketch_error, sketched_gram


def main(
    model_name: Model = MODEL,
    num_prompts: int = 4,
    num_completions: int = 4,
    prompt_tokens: int = 50,
    length: Annotated[int, typer.Option(help="tokens a completion, about")] = 12,
    size: Annotated[int, typer.Option(help="numbers of a sketch")] = 2**18,
    memory: Annotated[float, typer.Option(help="GiB for the exact kernel in blocks")] = 1.5,
    repeats: int = 1,
    smoke: Annotated[
        bool, typer.Option(help="seconds, to see that it runs; figures mean nothing")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="write the figures here too")] = None,
) -> None:
    """Exact, sketched, and kept and multiplied."""
    if smoke:
        num_prompts, num_completions, prompt_tokens, length = 2, 2, 12, 4
    model, tokenizer = load_model(model_name)
    some = completions(tokenizer, num_prompts, num_completions, prompt_tokens, length)
    rewards = torch.zeros(some.shape, dtype=torch.float64)
    rewards[:, ::2] = 1
    passes = CompletionPasses(model, some, rewards)
    weights = advantages(rewards, 1)[None]
    everything = 2 + 5e-9 * num_prompts * passes.layout.num_parameters  # GiB, and some to spare
    plan = plan_gram(passes, weights, memory_gib=memory)
    results: dict[str, Any] = {}

    def exact():
        results["exact"] = prompt_gram(passes, weights, memory_gib=everything)

    def blocks():
        results["blocks"] = prompt_gram(passes, weights, memory_gib=memory)

    def sketch():
        results["sketch"] = sketched_gram(passes, weights, size=size)

    def kept():
        rows = []
        for x in range(num_prompts):
            mine = torch.zeros_like(weights[0])
            mine[x] = weights[0, x]
            rows.append(passes.gradient(mine))
        stacked = torch.stack(rows)
        results["kept"] = stacked @ stacked.T

    forms = {"exact": exact, "blocks": blocks, "sketch": sketch, "kept": kept}
    passes.gradient(weights[0])  # to warm up
    seconds = interleaved(forms, repeats, warm_up=False)
    error, said = sketch_error(results["sketch"], results["exact"])
    whole = results["exact"].kernel[0, 0]
    change = float((results["blocks"].kernel[0, 0] - whole).norm() / whole.norm())
    if change > 1e-5:
        raise SystemExit(f"blocks give another matrix: {change:.1e} of its length")
    report(
        {
            "machine": machine(),
            "smoke": smoke,
            "setting": {
                "prompts": num_prompts,
                "completions": num_completions,
                "size": size,
                "memory_gib": memory,
                "repeats": repeats,
            },
            "limit": {"blocks": len(plan.blocks), "sketch": 1.0, "kept": 1.0},
            "seconds": seconds,
            "blocks": {"ratio": ratio(seconds, "blocks", "exact"), "change": change},
            "sketch": {
                "ratio": ratio(seconds, "exact", "sketch"),
                "error": error,
                "error_by_itself": said,
                "memory_share": size / passes.layout.num_parameters,
            },
            "kept": {
                "ratio": ratio(seconds, "kept", "exact"),
                "change": float((results["kept"] - whole).norm() / whole.norm()),
            },
        },
        json,
    )


if __name__ == "__main__":
    typer.run(main)
