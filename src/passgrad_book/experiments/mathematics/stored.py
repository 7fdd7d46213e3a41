"""What the chapter on mathematics stores: its data sets, sums asked in chat, the regime map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.lm.models import load_model, load_tokenizer, save_model
from passgrad.objectives import PassAtK
from passgrad.rollouts.sampling import Engine, sample
from passgrad.tasks.arithmetic import arithmetic
from passgrad.tasks.base import Task
from passgrad.tasks.conventions import conventions
from passgrad.tasks.gym import gym_answers
from passgrad.tasks.math import math_problems
from passgrad.tasks.short_answers import gsm8k_answers, in_chat
from passgrad.tasks.verifiers import Verifier
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build import paths, results
from passgrad_book.build.experiment import SINGLE, experiment, model_input
from passgrad_book.experiments.inputs import verifier_input
from passgrad_book.experiments.mathematics.math_study import Settings, study
from passgrad_book.experiments.mathematics.regime import follow_conflict
from passgrad_book.experiments.mathematics.study_vectors import check_size
from passgrad_book.experiments.small_models.witness_model import witness_model

if TYPE_CHECKING:
    from pandas import DataFrame

#: data sets before which the model takes some exact steps up pass@1
WARMED = ("conventions", "arithmetic")
#: asks for an answer that the verifier "math" finds
BOXED = "Put your final answer within \\boxed{}."


def sums_of_two_terms(num_prompts: int, seed: int) -> Task:
    """Sums of two terms of one or two digits, from reasoning-gym, behind four examples."""
    return gym_answers(
        "chain_sum", num_prompts=num_prompts, num_examples=4, seed=seed,
        min_terms=2, max_terms=2, min_digits=1, max_digits=2,
    )  # fmt: skip


def mixed_conventions(num_prompts: int, seed: int) -> Task:
    """The two conventions, three prompts of ten in base 9."""
    num_hard = max(1, round(0.3 * num_prompts))
    return conventions(num_prompts=(num_prompts - num_hard, num_hard), seed=seed)


def natural_arithmetic(num_prompts: int, seed: int) -> Task:
    """The four natural families of arithmetic, about ``num_prompts`` in all."""
    return arithmetic(num_prompts=max(1, num_prompts // 4), seed=seed)


def make_task(
    dataset: str,
    *,
    short_prompts: int,
    word_prompts: int,
    seed: int,
    longest_problem: int = 0,
    gsm8k_path: str = "",
    math_path: str = "",
    math_hub: str = "HuggingFaceH4/MATH-500",
    math_split: str = "test",
) -> Task:
    """A data set of the chapter by its name; UserError for another name."""
    words: dict[str, Any] = {"num_prompts": word_prompts, "num_examples": 2, "seed": seed}
    limits: dict[str, Any] = {
        "longest_problem": longest_problem or None,
        "longest_answer": 8 if longest_problem else None,
    }
    makers: dict[str, Callable[[], Task]] = {
        "conventions": lambda: mixed_conventions(short_prompts, seed),
        "arithmetic": lambda: natural_arithmetic(short_prompts, seed),
        "chain_sum": lambda: sums_of_two_terms(short_prompts, seed),
        "gcd": lambda: gym_answers(
            "gcd", num_prompts=short_prompts, num_examples=4, seed=seed, min_value=2, max_value=12
        ),
        "gsm_symbolic": lambda: gym_answers("gsm_symbolic", **words),
        "gsm8k": lambda: gsm8k_answers(gsm8k_path or None, **words),
        "math": lambda: math_problems(
            math_path or None, **words, **limits, hub_name=math_hub, split=math_split
        ),
    }
    if dataset not in makers:
        raise UserError(f"no data set {dataset!r}; there are: {', '.join(makers)}")
    return makers[dataset]()


def _inputs(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    judged = parameters["prompting"] == "chat" or parameters["dataset"] == "math"
    return model_input(parameters) | (verifier_input() if judged else {})


@experiment(version=1, label="{dataset}", inputs=_inputs, files=("problems_path",))
def math_conflict(
    *,
    dataset: str,
    model: str,
    prompting: str,
    engine: Engine | Literal["shared"],
    device: str,
    precision: str,
    num_samples: int,
    seed: int,
    temperature: float,
    top_p: float,
    sketch_size: int,
    centred: bool,
    whole: bool,
    short_prompts: int,
    word_prompts: int,
    longest_problem: int,
    warmup_steps: int,
    warmup_step_size: float,
    chat_tokens: int,
    problems_path: str = "",
    math_hub: str = "HuggingFaceH4/MATH-500",
    math_split: str = "test",
    products_gb: float = 4.0,
) -> Mapping[str, DataFrame]:
    """One data set under two sampling laws: the tables of
    :func:`~passgrad_book.experiments.mathematics.math_study.study`.

    :param prompting: "few-shot", or "chat": each question as a message, judged by math-verify.
    :param centred: With gradients of wrong answers.
    :param whole: With gradients of unsolved prompts.
    :param problems_path: A file of GSM8K or of MATH; empty: the hub, by name.
    :param products_gb: Memory that the products of all pairs of vectors may take.
    """
    network, tokenizer = load_model(model, dtype=getattr(torch, precision))
    network.to(device)
    task = make_task(
        dataset, short_prompts=short_prompts, word_prompts=word_prompts, seed=seed,
        longest_problem=longest_problem, gsm8k_path=problems_path, math_path=problems_path,
        math_hub=math_hub, math_split=math_split,
    )  # fmt: skip
    place: Any = model
    single = prompting == "few-shot" and dataset != "math"
    check_size(len(task.prompts), single=single, centred=centred, most_bytes=products_gb * 1e9)
    if dataset in WARMED:
        world = LanguageWorld(network, tokenizer, task.prompts, stop=task.stop or "\n")
        path = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps)
        world.layout.load(network, path.theta)
        if engine != "shared":
            place = save_model(network, tokenizer, paths.build() / "models" / f"math-{dataset}")
    if prompting == "chat":
        task = in_chat(
            task, tokenizer, verify=Verifier("math"), instruction=BOXED, max_new_tokens=chat_tokens
        )
    settings = Settings(
        num_samples=num_samples, temperature=temperature, top_p=top_p, centred=centred,
        unsolved=whole, size=sketch_size, seed=seed,
    )  # fmt: skip
    return study(place, network, tokenizer, task, single=single, settings=settings, engine=engine)


def _chat_inputs(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    return {**model_input(parameters), **verifier_input()}


@experiment(version=1, label="seed-{seed}", inputs=_chat_inputs)
def math_chat(
    *,
    model: str,
    engine: Engine,
    seed: int,
    short_prompts: int,
    num_prompts: int,
    num_samples: int,
    chat_tokens: int,
) -> Mapping[str, DataFrame]:
    """The first of the sums of two terms as messages, judged by math-verify: table ``answers``."""
    tokenizer = load_tokenizer(model)
    asked = in_chat(
        sums_of_two_terms(short_prompts, seed), tokenizer, verify=Verifier("math"),
        max_new_tokens=chat_tokens, instruction=BOXED,
    )  # fmt: skip
    few = Task(asked.name, asked.prompts[:num_prompts], asked.verify, None, chat_tokens)
    drawn = sample(model, few, num_samples=num_samples, engine=engine).table.to_pandas()
    drawn["tokens"] = drawn["completion_ids"].map(len)
    columns = ["prompt_id", "sample", "completion", "reward", "tokens", "finish_reason"]
    return {"answers": drawn[columns]}


@experiment(version=1, label="{mix}-{seed}", inputs=model_input)
def regime_map(
    *, mix: str, model: str, seed: int, num_prompts: int, ks: Sequence[int], steps: int,
    step_size: float,
) -> Mapping[str, DataFrame]:  # fmt: skip
    """An exact fine-tuning on pass@1 of "conventions" or "arithmetic", with the exact conflict at
    every step: tables ``curve`` and ``prompts``.
    """
    mixes = {"conventions": mixed_conventions, "arithmetic": natural_arithmetic}
    if mix not in mixes:
        raise UserError(f"no mix {mix!r}; there are: {', '.join(mixes)}")
    network, tokenizer = load_model(model)
    task = mixes[mix](num_prompts, seed)
    world = LanguageWorld(network, tokenizer, task.prompts, stop=task.stop or "\n")
    return follow_conflict(world, ks=ks, step_size=step_size, steps=steps)


math_conflict.witnessed(
    dataset="conventions", model=witness_model, prompting="few-shot", engine="shared",
    device="cpu", precision="float32", num_samples=8, seed=0, temperature=0.7, top_p=0.95,
    sketch_size=64, centred=True, whole=True, short_prompts=4, word_prompts=1,
    longest_problem=140, warmup_steps=6, warmup_step_size=1.0, chat_tokens=8,
    tolerance=SINGLE,
)  # fmt: skip
regime_map.witnessed(
    mix="conventions", model=witness_model, seed=0, num_prompts=4, ks=[2, 1000], steps=3,
    step_size=1.0, tolerance=SINGLE,
)  # fmt: skip


def _chat_again(kept: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """A small run, and every completion that ships judged again."""
    import pandas as pd

    small = math_chat(
        model="smollm2-135m", engine="transformers", seed=0, short_prompts=4, num_prompts=2,
        num_samples=2, chat_tokens=8,
    )  # fmt: skip
    references = {prompt.id: prompt for prompt in sums_of_two_terms(14, 0).prompts}
    judge = Verifier("math")
    shipped = results.load("math_chat", "seed-0")["answers"]
    verdicts = [
        float(judge(text, references[name]))
        for name, text in zip(shipped["prompt_id"], shipped["completion"], strict=True)
    ]
    again = pd.DataFrame({"reward": verdicts, "as stored": verdicts == shipped["reward"]})
    return {**small, "judged again": again}


math_chat.replayed(_chat_again, tolerance=SINGLE)
