"""Drawing completions from a causal LM: one function, three engines, one kind of result.

vLLM is the faster engine. Where it cannot run, transformers draws from the same law, and nothing
else changes. A server draws from the weights that it was started with.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa
import torch

from passgrad.errors import UserError
from passgrad.lm.models import (
    is_adapter,
    load_tokenizer,
    model_ends,
    resolve,
    save_merged,
    vocabulary_size,
)
from passgrad.lm.rollouts import SCHEMA, Completion, Request, Rollouts, Sampling
from passgrad.lm.tokens import check_stops, check_vocabulary, decode, encode, single_token, stop_ids
from passgrad.progress import Progress, Silent
from passgrad.tasks.base import Task
from passgrad.tasks.thinking import answer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: the one thing of :func:`vllm_problem` that an installation mends
VLLM_MISSING = "vLLM is not installed"

Engine = Literal["auto", "vllm", "transformers", "server"]


class EngineWarning(UserWarning):
    """vLLM failed, and the completions are drawn with transformers."""


def sample(
    model: str | Path,
    task: Task,
    *,
    num_samples: int,
    engine: Engine = "auto",
    base_url: str | None = None,
    settings: Sampling | None = None,
    progress: Progress | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Rollouts:
    """``num_samples`` independent completions of every prompt of a task, each with its reward.

    :param model: An embedded name, a local folder or a hub name.
    :param engine: "auto" takes vLLM where it runs, and otherwise transformers, with a warning that
        says why; with a ``base_url`` it is "server".
    :param base_url: The address of an OpenAI-compatible vLLM server that serves this model
        (:mod:`passgrad.rollouts.server_engine`). Its completions have no seed.
    :param settings: The sampling law; by default the policy itself.
    :param progress: Told of one stage, in completions.
    :param dtype: "float32" or "bfloat16", of weights and arithmetic; a server has its own.
    :param device: Where transformers computes; vLLM takes a GPU where there is one.
    :raises UserError: For num_samples < 1, an unknown engine, a stop that is not one token, or
        ``engine="vllm"`` where vLLM cannot run, and for a server that cannot draw.
    """
    if num_samples < 1:
        raise UserError(f"num_samples is {num_samples}; draw at least one completion a prompt")
    if not task.prompts:
        raise UserError(f"the task {task.name} has no prompts; give at least one")
    place = resolve(model)
    tokenizer = load_tokenizer(place)
    prompts = prompt_tokens(tokenizer, task)
    if not is_adapter(place) and (size := vocabulary_size(place)):
        check_vocabulary(prompts, size, str(model))
    ends = end_tokens(tokenizer, task, model_ends(place, tokenizer))
    request = Request(
        place, prompts, num_samples, ends, task.max_new_tokens, settings or Sampling(),
        base_url, str(model), dtype, device,
    )  # fmt: skip
    progress = progress or Silent()
    progress.stage("drawing completions", len(prompts) * num_samples)
    name, drawn = _draw(engine, request, progress)
    return judged(task, tokenizer, request, drawn, name)


def vllm_problem() -> str | None:
    """Why vLLM cannot draw on this machine, or None if nothing speaks against it."""
    if sys.platform != "linux":
        return f"vLLM does not run on {sys.platform}"
    if not torch.cuda.is_available():
        if platform.machine() not in ("x86_64", "AMD64"):
            return f"the vLLM CPU build is for x86-64, and this machine is {platform.machine()}"
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
            return "this processor has no AVX2"
    if importlib.util.find_spec("vllm") is None:
        return VLLM_MISSING
    return None


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, task: Task) -> tuple[tuple[int, ...], ...]:
    """The token ids of each prompt. UserError for one that has none."""
    prompts = tuple(tuple(encode(tokenizer, prompt.text)) for prompt in task.prompts)
    for prompt, ids in zip(task.prompts, prompts, strict=True):
        if not ids:
            raise UserError(
                f"prompt {prompt.id!r} is empty; "
                "a language model needs at least one token to start from"
            )
    return prompts


def end_tokens(
    tokenizer: PreTrainedTokenizerBase, task: Task, declared: Sequence[int]
) -> tuple[int, ...]:
    """The tokens that end a completion of the task: its stop, its ``end_tokens``, or else those
    that the model's files declare (:func:`passgrad.lm.models.model_ends`).

    :raises UserError: For a stop or an end token that is not one token, both of them, or none of
        the three.
    """
    if task.stop is None:
        ends = tuple(single_token(tokenizer, text) for text in task.end_tokens) or tuple(declared)
        if not ends:
            raise UserError(
                f"the task {task.name} has no stop and the model no end token; name one by "
                "--end-token or --stop (end_tokens= or stop=)"
            )
        return ends
    if task.end_tokens:
        raise UserError(
            f"the task {task.name} ends a completion at its stop {task.stop!r}; leave end tokens "
            "out, or the stop"
        )
    stop = stop_ids(tokenizer, task.stop)
    if len(stop) != 1:
        raise UserError(
            f"the stop {task.stop!r} is {len(stop)} tokens for this model; "
            "choose a stop that is one token, such as a newline"
        )
    for prompt in task.prompts:
        check_stops(tokenizer, prompt.text, stop=task.stop, name=f"prompt {prompt.id!r}")
    return stop


def check_engine(engine: Engine, base_url: str | None) -> Engine:
    """The engine that is meant: "server" in place of "auto" where an address is given.

    :raises UserError: For an unknown engine, and an address without "server" or the reverse.
    """
    if engine not in get_args(Engine):
        raise UserError(f"unknown engine {engine!r}; the engines are {', '.join(get_args(Engine))}")
    if base_url is not None and engine == "auto":
        return "server"
    if (base_url is not None) != (engine == "server"):
        raise UserError(
            f"engine {engine!r} {'without' if engine == 'server' else 'with'} base_url; "
            "the address belongs to engine 'server', which needs one"
        )
    return engine


def _draw(
    engine: Engine, request: Request, progress: Progress
) -> tuple[str, list[list[Completion]]]:
    engine = check_engine(engine, request.base_url)
    if engine == "server":
        from passgrad.rollouts.server_engine import draw as draw_there

        return "server", draw_there(request, progress)
    problem = vllm_problem() if engine != "transformers" else "transformers was asked for"
    reason: Exception | None = None
    if problem is None:
        from passgrad.rollouts.vllm_engine import EngineError

        try:
            drawn = _by_vllm(request, progress)
        except EngineError as error:
            problem, reason = str(error), error
        else:
            return "vllm", drawn
    if engine == "vllm":
        raise UserError(
            f"vLLM cannot draw here: {problem}; use engine='transformers' or 'auto'"
        ) from reason
    if engine == "auto":
        text = f"drawing with transformers, which is slower: {problem}"
        if reason is not None:
            progress.note(text)
        warnings.warn(text, UserWarning if reason is None else EngineWarning, stacklevel=3)
    from passgrad.rollouts.transformers_engine import draw as draw_slowly

    return "transformers", draw_slowly(request, progress)


def _by_vllm(request: Request, progress: Progress) -> list[list[Completion]]:
    from passgrad.rollouts.vllm_engine import draw

    if not is_adapter(request.model):
        return draw(request, progress)
    # The engine reads plain models.
    with tempfile.TemporaryDirectory(prefix="passgrad-merged-") as scratch:
        merged = save_merged(request.model, Path(scratch) / "model")
        return draw(replace(request, model=str(merged)), progress)


def judged(
    task: Task, tokenizer: PreTrainedTokenizerBase, request: Request,
    drawn: list[list[Completion]], engine: str,
) -> Rollouts:  # fmt: skip
    """The completions of each prompt with their rewards; ``engine`` is where they come from."""
    common = {
        "engine": engine,
        "max_new_tokens": request.max_new_tokens,
        "stop": task.stop,
        **asdict(request.settings),
    }
    if engine == "server":
        common["seed"] = None  # none was sent
    rows = []
    for prompt, completions in zip(task.prompts, drawn, strict=True):
        verdicts: dict[tuple[int, ...], tuple[str, float]] = {}
        for number, completion in enumerate(completions):
            ids = completion.token_ids
            if ids not in verdicts:
                # Many completions of a short answer are the same: each is judged once.
                ended = bool(ids) and ids[-1] in request.ends
                text = decode(tokenizer, ids[:-1] if ended else ids)
                answer = answer_of(text, prompt.text, task.think)
                # A completion that ran into the length limit never gave its answer the stop that
                # makes it one; one that was thinking until then has no answer.
                done = answer is not None and (ended or task.stop is None)
                verdicts[ids] = (text, float(done and task.verify(answer or "", prompt)))
            text, reward = verdicts[ids]
            rows.append(
                {
                    "prompt_id": prompt.id,
                    "group": prompt.group,
                    "prompt": prompt.text,
                    "sample": number,
                    "completion_ids": list(ids),
                    "completion": text,
                    "reward": reward,
                    "logprob": completion.logprob,
                    "finish_reason": completion.finish_reason,
                    **common,
                }
            )
    return Rollouts(pa.Table.from_pylist(rows, schema=SCHEMA))
