"""Samples that were drawn elsewhere, as rollouts: tokens, rewards, and what is known of their law.

The layouts and their columns are those of :mod:`passgrad.rollouts.foreign_logs`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from passgrad.errors import UserError
from passgrad.lm.rollouts import SCHEMA, Rollouts, Sampling
from passgrad.lm.tokens import encode, stop_ids
from passgrad.rollouts.foreign_logs import (
    LAW,
    READERS,
    Layout,
    Log,
    Prompts,
    RetokenisedWarning,
    Sample,
    SamplingLawWarning,
    layout_of,
    read_rows,
)  # fmt: skip
from passgrad.tasks.base import Task
from passgrad.tasks.thinking import answer_of
from passgrad.tasks.verifiers import Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_foreign(
    path: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout = "auto",
    task: Task | None = None,
    requests: str | Path | None = None,
    reward: str | None = None,
    step: int | None = None,
    stop: str | None = None,
    max_new_tokens: int | None = None,
    settings: Sampling | None = None,
    quantised: bool | None = None,
) -> Rollouts:
    """The rollouts of a log, in :data:`passgrad.lm.rollouts.SCHEMA`; what is not known is null.

    Missing token ids are made from the text behind its prompt; the end token is put behind every
    completion that is not known to have been cut off.

    :param tokenizer: Of the model that drew the samples.
    :param layout: See the module; "auto" tells them apart by their columns.
    :param task: Gives prompts, by id or else by text, groups, and rewards where the log has none.
    :param requests: vLLM's batch input file.
    :param reward: The column that holds the reward, where that is not clear.
    :param step: Takes the samples of this training step alone.
    :param stop: Ended a completion; None: the task's stop, or else the model's end
        token.
    :param max_new_tokens: Where completions were cut off; tells which ones were.
    :param settings: The sampling law, where the log does not say it.
    :param quantised: Whether the engine ran at reduced precision, where the log does not say it.
    :raises UserError: For a file that cannot be read, missing or unknown columns, a reward other
        than 0 or 1, tokens that are not the tokenizer's, different numbers of completions; in one
        line with the file, its line or row, and the remedy.
    :warns SamplingLawWarning: If the samples are not, or may not be, from the policy itself, or are
        of several training steps.
    :warns RetokenisedWarning: If tokens were made from text.
    """
    path = Path(path)
    rows = read_rows(path)
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    layout = layout_of(columns) if layout == "auto" else layout
    if layout == "passgrad":
        made = _own(path, [row for _, row in rows])
        # The package's engines run at full precision.
        laws = ({name: row[name] for name in LAW} for _, row in rows)
        _warn_of_law(path, [Sample("", "", "", "", law=law, quantised=False) for law in laws])
        return made
    if layout not in READERS:
        raise UserError(
            f"unknown layout {layout!r}; the layouts are auto, passgrad, {', '.join(READERS)}"
        )
    if stop is None and task is not None:
        stop = task.stop
    lookup = Prompts(task, tokenizer)
    samples = READERS[layout](Log(path, rows, columns, tokenizer, lookup, reward, requests))
    samples = _one_step(path, samples, step)
    _name_prompts(samples, lookup)
    _tokens(path, samples, tokenizer, stop, max_new_tokens)
    _judge(path, samples, task, lookup)
    for sample in samples:
        for name in (*LAW, "seed"):
            if sample.law.get(name) is None and settings is not None:
                sample.law[name] = getattr(settings, name)
        if sample.quantised is None:
            sample.quantised = quantised
    _warn_of_law(path, samples)
    try:
        return Rollouts(_table(samples, layout, stop, max_new_tokens))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _own(path: Path, rows: list[dict[str, Any]]) -> Rollouts:
    try:
        return Rollouts(pa.Table.from_pylist(rows))
    except (pa.ArrowException, UserError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def _one_step(path: Path, samples: list[Sample], step: int | None) -> list[Sample]:
    steps = sorted({sample.step for sample in samples if sample.step is not None})
    if step is not None:
        samples = [sample for sample in samples if sample.step == step]
        if not samples:
            raise UserError(f"{path} has no samples of step {step}; it has the steps {steps[:10]}")
    elif len(steps) > 1:
        warnings.warn(
            f"{path}: the samples are of {len(steps)} training steps ({steps[0]} to {steps[-1]}), "
            "so of different policies; choose one by step=",
            SamplingLawWarning,
            stacklevel=3,
        )
    return samples


def _name_prompts(samples: list[Sample], lookup: Prompts) -> None:
    """Ids and groups: the task's, or else the order in which the prompts appear."""
    numbers: dict[str, str] = {}
    texts: dict[str, tuple[str, str]] = {}
    for sample in samples:
        known = lookup.find(sample.prompt_id, sample.prompt)
        if known is not None:
            sample.prompt_id = known.id
            sample.group = sample.group or known.group
        elif sample.prompt_id is None:
            sample.prompt_id = numbers.setdefault(sample.prompt, str(len(numbers)))
        text, first = texts.setdefault(sample.prompt_id, (sample.prompt, sample.where))
        if text != sample.prompt:
            raise UserError(
                f"{sample.where}: the id {sample.prompt_id!r} has another prompt than in {first}; "
                "make the ids distinct"
            )


def _judge(path: Path, samples: list[Sample], task: Task | None, lookup: Prompts) -> None:
    """Rewards in {0, 1}: the log's, or else the task's verdict."""
    rewards: Sequence[float] | np.ndarray
    unjudged = [sample for sample in samples if sample.reward is None]
    if unjudged and task is None:
        raise UserError(
            f"{unjudged[0].where}: no reward; give a column of rewards (reward= names it), or the "
            "task whose verifier judges"
        )
    if unjudged and task is not None:
        prompts = []
        for sample in unjudged:
            known = lookup.find(sample.prompt_id, sample.prompt)
            if known is None:
                raise UserError(
                    f"{sample.where}: the prompt is not among those of the task {task.name}, so it "
                    "cannot be judged; give the task that the samples were drawn for"
                )
            prompts.append(known)
        answers = [answer_of(x.completion or "", x.prompt, task.think) for x in unjudged]
        texts = [answer or "" for answer in answers]
        if isinstance(task.verify, Verifier):
            rewards, incidents = task.verify.judge(texts, prompts)
            if incidents:
                warnings.warn(
                    f"{path}: {sum(len(one.places) for one in incidents)} completions had no "
                    f"verdict and count as wrong; first: {incidents[0]}",
                    stacklevel=3,
                )
        else:
            rewards = [float(task.verify(*pair)) for pair in zip(texts, prompts, strict=True)]
        for sample, answer, value in zip(unjudged, answers, rewards, strict=True):
            # As in passgrad.rollouts.sampling: no answer without its stop, and none in thoughts.
            cut = answer is None or (sample.finish_reason == "length" and task.stop is not None)
            sample.reward = 0.0 if cut else float(value)
    for sample in samples:
        if sample.reward not in (0, 1):
            raise UserError(
                f"{sample.where}: the reward is {sample.reward:g}, and pass@k needs 0 or 1; "
                "threshold it first, or name another column by reward="
            )


def _tokens(
    path: Path,
    samples: list[Sample],
    tokenizer: PreTrainedTokenizerBase,
    stop: str | None,
    max_new_tokens: int | None,
) -> None:
    """Token ids where they are missing, and text where that is; the end token where it belongs."""
    if stop is None and tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end token; name by stop= what ended a completion")
    ends = (tokenizer.eos_token_id,) if stop is None else stop_ids(tokenizer, stop)
    made, ambiguous, assumed, prompts = [], [], [], []
    prefixes: dict[str, list[int]] = {}
    for sample in samples:
        if sample.prompt not in prefixes:
            prefixes[sample.prompt] = encode(tokenizer, sample.prompt)
        prefix = prefixes[sample.prompt]
        if sample.prompt_ids is not None and sample.prompt_ids != prefix:
            prompts.append(sample)
        if sample.ids is None:
            if not isinstance(sample.completion, str):
                raise UserError(f"{sample.where}: no completion; give its text or its token ids")
            ids, clear = retokenise(tokenizer, sample.prompt, sample.completion, prefix)
            made.append(sample)
            if not clear:
                ambiguous.append(sample)
            limit = sample.law.get("max_new_tokens") or max_new_tokens
            cut = sample.finish_reason == "length" or (
                sample.finish_reason is None and limit is not None and len(ids) >= limit
            )
            if sample.finish_reason is None and limit is None:
                assumed.append(sample)
            sample.finish_reason = "length" if cut else "stop"
            sample.ids = ids if cut else [*ids, *ends]
        elif any(not 0 <= one < len(tokenizer) for one in sample.ids):
            raise UserError(
                f"{sample.where}: a token id is outside the tokenizer's {len(tokenizer)}; "
                "give the model that the samples were drawn from"
            )
        else:
            ended = bool(sample.ids) and tuple(sample.ids[-len(ends) :]) == ends
            if sample.finish_reason is None:
                sample.finish_reason = "stop" if ended else "length"
            if sample.completion is None:
                body = sample.ids[: -len(ends)] if ended else sample.ids
                sample.completion = tokenizer.decode(body, skip_special_tokens=False)
        if not sample.ids:
            raise UserError(f"{sample.where}: a completion without tokens; take it out")
    total = len(samples)
    texts = []
    if made:
        texts.append(
            f"{len(made)} of {total} completions have no token ids and were tokenised again, which "
            "gives other tokens where the model drew a rare spelling"
        )
    if ambiguous:
        texts.append(
            f"{len(ambiguous)} are ambiguous, since they merge with the prompt, do not read back "
            f"as the same text, or spell a special token; first: {ambiguous[0].where}"
        )
    if assumed:
        texts.append(
            f"{len(assumed)} do not say why they ended and get an end token; max_new_tokens= tells "
            "which were cut off"
        )
    if prompts:
        texts.append(
            f"the prompts of {len(prompts)} were other tokens for the engine than they are here; "
            f"first: {prompts[0].where}"
        )
    if texts:
        warnings.warn(f"{path}: " + "; ".join(texts), RetokenisedWarning, stacklevel=3)


def retokenise(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    prefix: Sequence[int] | None = None,
) -> tuple[list[int], bool]:
    """(ids, clear): tokens of the completion behind its prompt, and whether no other reading is in
    sight.

    It is not clear if the last token of the prompt would merge with the completion (the completion
    is then tokenised alone), if the tokens do not read back as the same text, or if one is special.
    """
    prefix = encode(tokenizer, prompt) if prefix is None else list(prefix)
    whole = encode(tokenizer, prompt + completion)
    special = set(tokenizer.all_special_ids)
    if whole[: len(prefix)] != prefix:
        alone = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
        return alone, False
    ids = whole[len(prefix) :]

    def read(tokens: Sequence[int]) -> str:
        return tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    return ids, read(whole) == read(prefix) + completion and not special & set(ids)


def _warn_of_law(path: Path, samples: Iterable[Sample]) -> None:
    """One warning for what is known to differ from the policy, one for what is not known."""
    samples = list(samples)
    known: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for sample in samples:
        temperature, top_p, top_k = (sample.law.get(name) for name in LAW)
        for name in LAW:
            if sample.law.get(name) is None:
                unknown[name] = None
        if temperature not in (None, 1):
            known[f"temperature {temperature:g}"] = None
        if top_p is not None and top_p < 1:
            known[f"top_p {top_p:g}"] = None
        if top_k is not None and top_k > 0:
            known[f"top_k {top_k:g}"] = None
        known |= dict.fromkeys(sample.bent)
        if sample.quantised is None:
            unknown["the engine's precision"] = None
        elif sample.quantised:
            known["a quantised engine"] = None
    if known:
        warnings.warn(
            f"{path}: the samples are not from the policy that is differentiated "
            f"({', '.join(known)}), so its scores do not have mean zero under them and estimates "
            "are biased; draw with temperature 1, top_p 1, no top_k, unquantised",
            SamplingLawWarning,
            stacklevel=3,
        )
    if unknown:
        warnings.warn(
            f"{path}: the log does not say {', '.join(unknown)}; estimates are right only for "
            "samples of the policy itself; say what you know by settings= and quantised=",
            SamplingLawWarning,
            stacklevel=3,
        )


def _table(
    samples: Sequence[Sample], layout: str, stop: str | None, max_new_tokens: int | None
) -> pa.Table:
    numbers: dict[str | None, int] = {}
    rows: list[dict[str, Any]] = []
    for sample in samples:
        number = numbers[sample.prompt_id] = numbers.get(sample.prompt_id, -1) + 1
        top_k, seed = sample.law.get("top_k"), sample.law.get("seed")
        rows.append(
            {
                "prompt_id": sample.prompt_id,
                "group": sample.group,
                "prompt": sample.prompt,
                "sample": number,
                "completion_ids": sample.ids,
                "completion": sample.completion,
                "reward": sample.reward,
                "logprob": sample.logprob,
                "finish_reason": sample.finish_reason,
                "engine": sample.engine or layout,
                "seed": None if seed is None else int(seed),
                "temperature": sample.law.get("temperature"),
                "top_p": sample.law.get("top_p"),
                "top_k": None if top_k is None else max(int(top_k), 0),
                "max_new_tokens": sample.law.get("max_new_tokens") or max_new_tokens,
                "stop": stop,
            }
        )
    # The prompts' rows together, in the order of their first.
    order = {name: place for place, name in enumerate(numbers)}
    rows.sort(key=lambda row: (order[row["prompt_id"]], row["sample"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)
