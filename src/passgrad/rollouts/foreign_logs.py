r"""Logs of other programs, read one completion at a time: verl, TRL, vLLM, and plain tables.

A log is one file, several, a folder or a pattern; JSON lines, a JSON array, CSV or parquet, plain
or compressed (``.gz``, ``.zst``, ``.bz2``, ``.xz``). Columns of pandas' index are left out.

**plain**: ``prompt`` (text) or ``messages`` (a chat), ``completion`` (text without the end token)
or ``completion_ids``, ``reward``, and optionally ``answer`` (for a verifier, where there is no
reward), ``id``, ``group``, ``logprob``, ``finish_reason``, ``step``, and the sampling law:
``temperature``, ``top_p``, ``top_k`` (0 or -1: none), ``seed``, ``max_new_tokens``, ``engine``,
``quantization`` (a name, or none). Other columns are errors, but those that are named as rewards.

**verl** (``trainer.rollout_data_dir``, JSON lines, a file a step): ``input``, ``output``,
``score``, ``step``, ``gts``, and columns that the reward function added, such as ``acc``. Both
texts are decoded without special tokens, so a chat's marks are missing; given the task, its prompts
stand in for ``input``.

**trl** (``log_completions``, parquet, a file a step): ``step``, ``prompt`` and ``completion`` (text
or messages), ``advantage``, one column for each reward function under its name (older versions:
``reward``), and columns of ``log_extra``.

**batch** (``vllm run-batch``, OpenAI's batches, SGLang's; JSON lines): ``id``, ``custom_id``,
``error`` and ``response.body`` with ``model`` and, for each of ``choices``, ``text`` or
``message.content``, ``finish_reason``, ``stop_reason``, ``logprobs`` and (by ``return_token_ids``)
``token_ids``, ``prompt_token_ids``. The output has neither prompts nor rewards: both come from the
task, whose prompt ids are the ``custom_id``; the sampling law, and prompts, from the batch's input
file (:mod:`passgrad.rollouts.readers.requests`). A setting that is absent there is unknown, since
the engine takes it from the model's generation config.

**generate** (rows made of what ``LLM.generate`` of vLLM or SGLang's engine gives back):
``prompt`` or ``messages`` or ``prompt_token_ids``, and either ``outputs`` (a list of completions)
or one completion: ``text``, ``token_ids`` (SGLang: ``output_ids``), ``cumulative_logprob``,
``finish_reason``, ``stop_reason`` (SGLang: ``meta_info``); ``reward``, ``answer``, ``id``,
``group`` as in a plain table.

**lm-eval** (``samples_*.jsonl`` of ``--log_samples``): ``doc_id``, ``arguments``, ``resps`` (all
repeats), ``target``, ``filter``. A metric there is one for all repeats, so a verifier judges them,
with ``target`` as the reference.

**evalplus** (``*_eval_results.json``, with the samples beside it if they hold ``completion``):
``task_id``, ``solution``, ``base_status``, ``plus_status``. Prompts come from the task.

None of the programs writes down at which precision the engine ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError
from passgrad.lm.tokens import encode
from passgrad.rollouts.logged import Logged, LogSettings
from passgrad.rollouts.readers.states import State, state_of
from passgrad.rollouts.readers.values import clean, missing, number, refuse
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.json_lines import kind_of
from passgrad.tasks.prompt_files import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = (
    "prompt", "messages", "completion", "completion_ids", "reward", "answer", "id", "group",
    "logprob", "finish_reason", "step", "temperature", "top_p", "top_k", "seed", "max_new_tokens",
    "engine", "quantization",
)  # fmt: skip


#: :attr:`Sample.ended_by` where it was the model's end token for certain
MODEL_END = -1


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
    answer: str | None = None
    """The reference, for a verifier."""
    group: str = ""
    logprob: float | None = None
    state: State | None = None
    ended_by: str | int | None = None
    """The stop string or token that ended it, where the log says that it was one."""
    step: int | None = None
    law: dict[str, Any] = field(default_factory=dict)
    bent: tuple[str, ...] = ()
    engine: str | None = None
    quantised: bool | None = None
    prompt_ids: list[int] | None = None


@dataclass(frozen=True)
class Row:
    """One row of a file and its place."""

    where: str
    cells: Mapping[str, Any]
    text: bool = False
    """Whether all cells are text, whatever they mean, as in CSV."""


@dataclass(frozen=True)
class Log:
    """A log's rows, and what is needed to read them."""

    name: str
    """As errors call it."""
    rows: Sequence[Row]
    columns: Mapping[str, None]
    tokenizer: PreTrainedTokenizerBase
    lookup: Prompts
    asked: Logged = field(default_factory=Logged)
    stop: str | None = None
    ends: tuple[int, ...] = ()
    """End tokens of the model; the first stands behind a text that ended."""
    think: str | None = None
    """Behind it the answer begins."""
    stated: LogSettings = field(default_factory=LogSettings)
    vocabulary: int = 0
    """Rows of the model's embedding, where they are more than the tokenizer's tokens."""
    doubts: list[Warning] = field(default_factory=list)
    """What the reader of the log warns of when it is read."""

    def need(self, *names: str) -> None:
        """Raise a :class:`UserError` that names the missing columns."""
        lacking = [name for name in names if name not in self.columns]
        if lacking:
            raise UserError(
                f"{self.name}: no column {' and no '.join(lacking)}; "
                f"the columns are {', '.join(self.columns)}"
            )

    def weights(self, default: str | None) -> dict[str, float]:
        """The columns of rewards with their weights: those that were named, or the usual one."""
        named = self.asked.weights(self.columns)
        self.need(*named)
        if named or default is None:
            return named
        return {default: 1.0}

    def text(self, value: Any, where: str, name: str, **template: Any) -> str:
        """Text, or a chat as text."""
        if isinstance(value, str):
            return clean(value, where, name)
        if isinstance(value, list):
            more = {**self.stated.template, **template}
            return clean(render_chat(self.tokenizer, value, name=where, **more), where, name)
        if missing(value):
            refuse(where, f"no {name}; give text or messages")
        refuse(where, f"{name} is {kind_of(value)}; give text or messages")

    def doubt(self, text: str, kind: type[Warning] = SamplingLawWarning) -> None:
        """Warn of this when the log is read."""
        self.doubts.append(kind(f"{self.name}: {text}"))

    def ended(self, sample: Sample, reason: Any) -> Sample:
        """The sample with the state that a finish reason stands for."""
        sample.state = state_of(reason, sample.where)
        return sample


def reward_of(row: Row, weights: Mapping[str, float], where: str | None = None) -> float | None:
    """The weighted sum of these columns; None if all are empty, NaN if none holds a number.

    As TRL does, a reward function that gave no number is left out of the sum of several.
    """
    where = where or row.where
    values = {name: number(row.cells.get(name), where, name, text=row.text) for name in weights}
    present = {name: value for name, value in values.items() if value is not None}
    if not present:
        return None
    real = {name: value for name, value in present.items() if value == value}
    if not real:
        return float("nan")
    return sum(weights[name] * value for name, value in real.items())


class Prompts:
    """The prompts of a task, by id and by text (with and without special tokens)."""

    def __init__(self, task: Task | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self.by_id: dict[str, Prompt] = {}
        self.by_text: dict[str, Prompt] = {}
        self._bare: dict[str, str] = {}
        for prompt in task.prompts if task else ():
            self.by_id[prompt.id] = prompt
            bare = tokenizer.decode(encode(tokenizer, prompt.text), skip_special_tokens=True)
            self._bare[prompt.id] = bare.strip()
            self.by_text.setdefault(bare.strip(), prompt)
        for prompt in task.prompts if task else ():
            self.by_text[prompt.text.strip()] = prompt

    def find(self, name: str | None, text: str) -> Prompt | None:
        """The task's prompt of this text; of several that of this id."""
        text = text.strip()
        by_id = self.by_id.get(name) if name is not None else None
        if by_id is not None and text in (by_id.text.strip(), self._bare[by_id.id]):
            return by_id
        return self.by_text.get(text)
