"""What a conflict-free step costs beside a plain one, in TRL: one ratio, measured in one run.

Both trainers sample, score and update the same kind of model on the same prompts; the conflict-free
one also measures the Gram matrix of the two gradients on every ``every``-th batch. The ratio is
that of the mean times of whole windows of ``every`` steps (at least four), as a median over rounds,
with sampling and without it: sampling is most of a step on a processor, and less of it with a fast
engine.

    python benchmarks/conflict_free_step.py
    python benchmarks/conflict_free_step.py --model smollm2-135m --prompts 2 --samples 8 --tokens 8
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
import warnings
from typing import Annotated, Any

import torch
import typer
from _common import Figures, Smoke, machine, progress, report

LIMIT = 1.2


def small_model(smoke: bool) -> tuple[Any, Any]:
    """A random causal LM of about a million parameters, and a tokenizer of characters."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", *"0123456789+=abcdefghijklmnopqrstuvwxyz :\n"]
    backend = Tokenizer(BPE({word: place for place, word in enumerate(words)}, []))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    width = 32 if smoke else 128
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, eos_token_id=0,
        bos_token_id=0, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


class Clock:
    """Seconds of each step of a trainer, and how many of them it spent sampling."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        self.steps: list[float] = []
        self.sampling: list[float] = []
        clock, generate = self, trainer._generate
        begun = [0.0]

        class Steps(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                clock.steps.append(0.0)
                clock.sampling.append(0.0)
                begun[0] = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.steps[-1] = time.perf_counter() - begun[0]

        def timed(*positional: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return generate(*positional, **named)
            finally:
                clock.sampling[-1] += time.perf_counter() - start

        trainer._generate = timed
        trainer.add_callback(Steps())


def main(
    model: Annotated[str, typer.Option(help="an embedded model; else a small one")] = "",
    prompts: Annotated[int, typer.Option(help="prompts a step")] = 4,
    samples: Annotated[int, typer.Option(help="completions a prompt")] = 16,
    tokens: Annotated[int, typer.Option(help="tokens a completion")] = 16,
    every: Annotated[int, typer.Option(help="steps between measurements")] = 4,
    rounds: Annotated[int, typer.Option(help="rounds")] = 3,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Time both trainers, one after the other in every round."""
    warnings.simplefilter("ignore")
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig

    from passgrad.trl import ConflictFree, PassKGRPOTrainer

    if smoke:
        prompts, samples, tokens, rounds, every = 2, 4, 4, 1, 2
    if model:
        from passgrad import load_model

        net, tokenizer = load_model(model)
    else:
        net, tokenizer = small_model(smoke)
    tokenizer.padding_side = "left"
    k = samples // 2
    data = Dataset.from_dict({"prompt": [f"{i}+{i % 7}={i + i % 7}:{i % 9}+2=" for i in range(64)]})

    def reward(completions: list[str], **_: Any) -> list[float]:
        # Every prompt gets right and wrong answers, so that no group is skipped.
        return [float(i % samples < samples // 2) for i in range(len(completions))]

    def run(objective: Any, steps: int) -> Clock:
        with tempfile.TemporaryDirectory() as folder:
            args = GRPOConfig(
                output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False,
                per_device_train_batch_size=prompts * samples, num_generations=samples,
                max_completion_length=tokens, max_steps=steps, loss_type="dr_grpo",
                scale_rewards="none", max_grad_norm=1e9, learning_rate=1e-6, report_to="none",
                save_strategy="no", logging_steps=10**6, disable_tqdm=True,
                dataloader_pin_memory=False,
            )  # fmt: skip
            trainer = PassKGRPOTrainer(
                copy.deepcopy(net), reward, args, data, None, tokenizer, k=objective
            )
            trainer.remove_callback(PrinterCallback)
            clock = Clock(trainer)
            trainer.train()
        return clock

    # The first window holds the start, where two batches in a row are measured.
    window = slice(length := every * -(-4 // every), 2 * length)
    steps = 2 * length + 1
    seconds: dict[str, list[float]] = {"plain": [], "conflict_free": []}
    updates: dict[str, list[float]] = {"plain": [], "conflict_free": []}
    for number in range(rounds):
        for name, objective in (("plain", k), ("conflict_free", ConflictFree(k, every=every))):
            clock = run(objective, steps)
            seconds[name].append(statistics.mean(clock.steps[window]))
            sampled = statistics.mean(clock.sampling[window])
            updates[name].append(seconds[name][-1] - sampled)
            progress(
                f"round {number + 1}/{rounds}: {name} {seconds[name][-1]:.2f} s a step, "
                f"{sampled:.2f} s of it sampling"
            )

    def ratio(values: dict[str, list[float]]) -> float:
        pairs = zip(values["conflict_free"], values["plain"], strict=True)
        return statistics.median(a / b for a, b in pairs)

    made = {
        "smoke": smoke,
        "ratio": ratio(seconds),
        "ratio_without_sampling": ratio(updates),
        "limit": LIMIT,
        "holds": ratio(seconds) <= LIMIT,
        "seconds_a_step": seconds,
        "seconds_without_sampling": updates,
        "model": model or "random",
        "parameters": sum(p.numel() for p in net.parameters()),
        "prompts": prompts,
        "samples": samples,
        "tokens": tokens,
        "k": k,
        "every": every,
        "machine": machine(),
    }
    report(made, json)


if __name__ == "__main__":
    typer.run(main)
