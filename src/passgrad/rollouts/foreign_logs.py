r"""Logs of other programs, read one completion at a time: verl, TRL, vLLM, and plain tables.

**Plain** (parquet or JSON lines): ``prompt`` (text) or ``messages`` (a chat), ``completion`` (text
without the end token) or ``completion_ids``, ``reward`` (0 or 1), and optionally ``id``,
``group``, ``logprob``, ``finish_reason`` (stop or length), ``step``, and the sampling law:
``temperature``, ``top_p``, ``top_k`` (0 or -1: none), ``seed``, ``max_new_tokens``, ``engine``,
``quantization`` (a name, or none).

**verl** (``trainer.rollout_data_dir``, JSON lines): ``input``, ``output``, ``score``, ``step``,
``gts``, and columns that the reward function added. Both texts are decoded without special tokens,
so a chat's marks are missing; given the task, its prompts stand in for ``input``.

**TRL** (``log_completions``, parquet): ``step``, ``prompt`` and ``completion`` (text or messages),
``advantage``, one column for each reward function under its name (older versions: ``reward``), and
columns of ``log_extra``.

**vLLM** (``vllm run-batch``, JSON lines): ``id``, ``custom_id``, ``error`` and ``response.body``
with ``model`` and, for each of ``choices``, ``text`` or ``message.content``, ``finish_reason``,
``logprobs`` and (by ``return_token_ids``) ``token_ids``, ``prompt_token_ids``. The output has
neither prompts nor rewards: both come from the task, whose prompt ids are the ``custom_id``; the
sampling law, and prompts, from the batch's input file (``body`` with ``prompt`` or ``messages``,
``temperature``, ``top_p``, ``top_k``, ``max_tokens``, ``seed``). A setting that is absent there is
unknown, since vLLM takes it from the model's generation config.

None of the three writes down at which precision the engine ran.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from passgrad.errors import UserError
from passgrad.lm.rollouts import SCHEMA
from passgrad.lm.tokens import encode
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.json_lines import json_lines
from passgrad.tasks.prompt_files import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Layout = Literal["auto", "passgrad", "plain", "verl", "trl", "vllm"]

PLAIN = (
    "prompt", "messages", "completion", "completion_ids", "reward", "id", "group", "logprob",
    "finish_reason", "step", "temperature", "top_p", "top_k", "seed", "max_new_tokens", "engine",
    "quantization",
)  # fmt: skip
_TRL = ("step", "mode", "prompt", "completion", "advantage")
LAW = ("temperature", "top_p", "top_k")
# Settings of a request that bend the law, with the value that does not.
_BENDING = {
    "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
    "logit_bias": None, "min_tokens": 0, "allowed_token_ids": None, "bad_words": None,
}  # fmt: skip
_QUANTISED = re.compile(
    r"fp8|fp4|int8|int4|nf4|awq|gptq|bnb|bitsandbytes|gguf|w[48]a\d+|(?<![a-z])q[2-8](_|\b)", re.I
)


class SamplingLawWarning(UserWarning):
    """Samples from another law than the policy, or from one that is not known."""


class RetokenisedWarning(UserWarning):
    """Token ids that were made from text and may not be the ones that were drawn."""


@dataclass
class Sample:
    """One completion of a log, before it is a row of :data:`passgrad.lm.rollouts.SCHEMA`."""

    where: str
    prompt_id: str | None
    prompt: str
    completion: str | None
    ids: list[int] | None = None
    reward: float | None = None
    group: str = ""
    logprob: float | None = None
    finish_reason: str | None = None
    step: int | None = None
    law: dict[str, Any] = field(default_factory=dict)
    bent: tuple[str, ...] = ()
    engine: str | None = None
    quantised: bool | None = None
    prompt_ids: list[int] | None = None


@dataclass(frozen=True)
class Log:
    """A log's rows, each with its place, and what is needed to read them."""

    path: Path
    rows: list[tuple[str, dict[str, Any]]]
    columns: list[str]
    tokenizer: PreTrainedTokenizerBase
    lookup: Prompts
    reward: str | None
    requests: str | Path | None

    def need(self, *names: str) -> None:
        """Raise a :class:`UserError` that names the missing columns."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise UserError(
                f"{self.path}: no column {' and no '.join(missing)}; "
                f"the columns are {', '.join(self.columns)}"
            )

    def text(self, value: Any, where: str, name: str) -> str:
        """Text, or a chat as text."""
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return render_chat(self.tokenizer, value, name=where)
        raise UserError(f"{where}: {name} is {type(value).__name__}; give text or messages")


class Prompts:
    """The prompts of a task, by id and by text (with and without special tokens)."""

    def __init__(self, task: Task | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self.by_id: dict[str, Prompt] = {}
        self.by_text: dict[str, Prompt] = {}
        for prompt in task.prompts if task else ():
            self.by_id[prompt.id] = prompt
            bare = tokenizer.decode(encode(tokenizer, prompt.text), skip_special_tokens=True)
            self.by_text.setdefault(bare.strip(), prompt)
        for prompt in task.prompts if task else ():
            self.by_text[prompt.text.strip()] = prompt

    def find(self, name: str | None, text: str) -> Prompt | None:
        """The task's prompt of this id, or of this text."""
        found = self.by_id.get(name) if name is not None else None
        return found or self.by_text.get(text.strip())


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, columns) of each row of a parquet or JSON-lines file.

    :raises UserError: If it cannot be read or has no rows.
    """
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        rows = [(f"{path}, line {number}", row) for number, row in json_lines(path)]
    elif not path.is_file():
        raise UserError(f"{path}: no such file; give a parquet or JSON-lines file of samples")
    else:
        try:
            read = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:80]
            raise UserError(
                f"{path} cannot be read as parquet ({reason}); give a parquet file, or JSON lines "
                "under a name that ends in .jsonl"
            ) from None
        rows = [(f"{path}, row {number}", row) for number, row in enumerate(read, start=1)]
    if not rows:
        raise UserError(f"{path} has no samples; give a file with at least one completion")
    return rows


def layout_of(columns: Sequence[str]) -> Layout:
    """The layout that has these columns; the plain one where no other does."""
    has = set(columns)
    if has >= set(SCHEMA.names):
        return "passgrad"
    if has >= {"custom_id", "response"}:
        return "vllm"
    if has >= {"input", "output"}:
        return "verl"
    if has >= {"step", "prompt", "completion"} and (
        "advantage" in has or not has <= set(PLAIN)
    ):  # fmt: skip
        return "trl"
    return "plain"


def _plain(log: Log) -> list[Sample]:
    unknown = [name for name in log.columns if name not in (*PLAIN, log.reward)]
    if unknown:
        raise UserError(
            f"{log.path}: unknown columns {', '.join(map(repr, unknown))}; "
            f"the columns are {', '.join(PLAIN)}, or layout= names a program that wrote the file"
        )
    if not {"prompt", "messages"} & set(log.columns) and not log.lookup.by_id:
        log.need("prompt")
    if not {"completion", "completion_ids"} & set(log.columns):
        log.need("completion")
    name = log.reward or "reward"
    if log.reward:
        log.need(log.reward)
    samples = []
    for where, row in log.rows:
        key = None if row.get("id") is None else str(row["id"])
        prompt = row.get("messages") if row.get("prompt") is None else row["prompt"]
        if prompt is None:
            known = log.lookup.by_id.get(key or "")
            if known is None:
                raise UserError(
                    f"{where}: no prompt; give prompt or messages, or an id of the task"
                )
            prompt = known.text
        quantization = row.get("quantization")
        samples.append(
            Sample(
                where,
                key,
                log.text(prompt, where, "prompt"),
                row.get("completion"),
                _ids(row.get("completion_ids"), where),
                _number(row.get(name), where, name),
                str(row.get("group") or ""),
                _number(row.get("logprob"), where, "logprob"),
                row.get("finish_reason"),
                row.get("step"),
                {key: _number(row.get(key), where, key) for key in (*LAW, "seed")},
                engine=row.get("engine"),
                quantised=_precision(
                    quantization, row.get("engine"), said=quantization is not None
                ),
            )
        )
        if row.get("max_new_tokens") is not None:
            samples[-1].law["max_new_tokens"] = row["max_new_tokens"]
    return samples


def _verl(log: Log) -> list[Sample]:
    name = log.reward or "score"
    log.need("input", "output")
    if not log.lookup.by_id or log.reward:
        log.need(name)
    samples = []
    unmatched = 0
    for where, row in log.rows:
        text = log.text(row["input"], where, "input")
        known = log.lookup.find(None, text)
        unmatched += known is None
        samples.append(
            Sample(
                where,
                known.id if known else None,
                known.text if known else text,
                log.text(row["output"], where, "output"),
                reward=_number(row.get(name), where, name),
                step=row.get("step"),
            )
        )
    if unmatched and getattr(log.tokenizer, "chat_template", None):
        warnings.warn(
            f"{log.path}: verl wrote the prompts of {unmatched} samples without special tokens, so "
            "the marks of a chat are missing from what the model read; give the task, whose "
            "prompts then stand in",
            RetokenisedWarning,
            stacklevel=3,
        )
    return samples


def _trl(log: Log) -> list[Sample]:
    log.need("prompt", "completion")
    name = log.reward or _reward_column(log)
    samples = []
    for where, row in log.rows:
        completion = row["completion"]
        if isinstance(completion, list):
            # A conversational completion is one assistant's message; more are turns of tools.
            if len(completion) != 1 or not isinstance(completion[0].get("content"), str):
                raise UserError(
                    f"{where}: completion has {len(completion)} messages; "
                    "give samples of a single turn of the model"
                )
            completion = completion[0]["content"]
        samples.append(
            Sample(
                where,
                None,
                log.text(row["prompt"], where, "prompt"),
                log.text(completion, where, "completion"),
                reward=None if name is None else _number(row.get(name), where, name),
                step=row.get("step"),
            )
        )
    return samples


def _reward_column(log: Log) -> str | None:
    if "reward" in log.columns:
        return "reward"
    found = [
        name
        for name in log.columns
        if name not in _TRL
        and all(row.get(name) is None or isinstance(row[name], (bool, int, float))
                for _, row in log.rows)
    ]  # fmt: skip
    if len(found) == 1:
        return found[0]
    if not found and log.lookup.by_id:
        return None
    raise UserError(
        f"{log.path}: {len(found)} columns may be the reward ({', '.join(found) or 'none'}); "
        "name it by reward="
    )


def _vllm(log: Log) -> list[Sample]:
    asked = {}
    for number, row in json_lines(log.requests) if log.requests is not None else ():
        if not isinstance(row.get("body"), dict) or "custom_id" not in row:
            raise UserError(
                f"{log.requests}, line {number}: no custom_id or no body; "
                "give the input file of vllm run-batch"
            )
        asked[str(row["custom_id"])] = row["body"]
    samples = []
    for where, row in log.rows:
        key = str(row.get("custom_id"))
        response = row.get("response")
        body = response.get("body") if isinstance(response, dict) else None
        if row.get("error") is not None or not isinstance(body, dict) or not body.get("choices"):
            raise UserError(
                f"{where}: the request {key!r} failed; draw it again, or take it out of the file"
            )
        request = asked.get(key, {})
        known = log.lookup.by_id.get(key)
        prompt = known.text if known else request.get("prompt", request.get("messages"))
        if prompt is None:
            raise UserError(
                f"{where}: the prompt of the request {key!r} is not in vLLM's output; give the "
                "task that has a prompt of this id, or the batch's input file by requests="
            )
        law = {name: request.get(name) for name in (*LAW, "seed")}
        law["max_new_tokens"] = request.get("max_completion_tokens", request.get("max_tokens"))
        bent = tuple(
            f"{name} {request[name]}"
            for name, neutral in _BENDING.items()
            if request.get(name) not in (None, neutral, [], {})
        )
        text = log.text(prompt, where, "prompt")
        for choice in body["choices"]:
            message = choice.get("message") or {}
            samples.append(
                Sample(
                    where,
                    key,
                    text,
                    choice.get("text", message.get("content")),
                    _ids(choice.get("token_ids"), where),
                    logprob=_summed(choice.get("logprobs")),
                    finish_reason=choice.get("finish_reason"),
                    law=dict(law),
                    bent=bent,
                    engine="vllm",
                    quantised=_precision(None, str(body.get("model", "")), said=False),
                    prompt_ids=_ids(choice.get("prompt_token_ids"), where),
                )
            )
    return samples


READERS: Mapping[str, Callable[[Log], list[Sample]]] = {
    "plain": _plain, "verl": _verl, "trl": _trl, "vllm": _vllm,
}  # fmt: skip


def _number(value: Any, where: str, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise UserError(f"{where}: {name} is {str(value)[:40]!r}; give a number")


def _ids(value: Any, where: str) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise UserError(f"{where}: the token ids are no list of whole numbers; leave them out")
    return value


def _summed(logprobs: Any) -> float | None:
    """The log-probability of a completion from either of vLLM's two formats."""
    if not isinstance(logprobs, dict):
        return None
    if logprobs.get("token_logprobs"):
        values = logprobs["token_logprobs"]
    else:
        values = [token.get("logprob") for token in logprobs.get("content") or []]
    return math.fsum(values) if values and None not in values else None


def _precision(quantization: Any, engine: Any, *, said: bool) -> bool | None:
    """Whether the engine was quantised: None where nothing says so."""
    if said and str(quantization).lower() not in ("", "none", "false"):
        return True
    if engine and _QUANTISED.search(str(engine)):
        return True
    return False if said else None
