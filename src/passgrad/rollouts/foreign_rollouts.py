"""Samples that were drawn elsewhere, as rollouts: tokens, rewards, and what is known of their law.

The layouts and their columns are those of :mod:`passgrad.rollouts.foreign_logs`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from passgrad.errors import UserError
from passgrad.lm.rollouts import SCHEMA, Rollouts
from passgrad.rollouts.foreign_logs import (
    Log,
    Prompts,
    RetokenisedWarning,
    Sample,
)
from passgrad.rollouts.foreign_rewards import settle_rewards
from passgrad.rollouts.foreign_tokens import complete_tokens
from passgrad.rollouts.logged import LAW, Logged, LogSettings
from passgrad.rollouts.readers.files import Paths, files_of, read_rows
from passgrad.rollouts.readers.layouts import READERS, layout_of
from passgrad.rollouts.readers.values import refuse
from passgrad.tasks.base import Task
from passgrad.tasks.verifiers import Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_foreign(
    paths: Paths,
    *,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | None = None,
    verifier: Verifier | None = None,
    stop: str | None = None,
    ends: Sequence[int] = (),
    think: str | None = None,
    vocabulary: int = 0,
    max_new_tokens: int | None = None,
    logged: Logged | None = None,
    **options: Any,
) -> Rollouts:
    """The rollouts of a log, in :data:`passgrad.lm.rollouts.SCHEMA`; what is not known is null.

    Missing token ids are made from the text behind its prompt; the end token is put behind every
    completion that is not known to have been cut off. Completions of the same prompt are put
    together, whatever their ids.

    :param paths: A file, several, a folder, or a pattern.
    :param tokenizer: Of the model that drew the samples.
    :param task: Gives prompts, by id or else by text, groups, and rewards where the log has none.
    :param verifier: Judges, without a task, samples that have a reference and no reward.
    :param stop: Ended a completion; None: the task's stop, or else an end token of the model.
    :param ends: The end tokens of the model; without them that of the tokenizer.
    :param think: Behind it the answer begins, for the verifier.
    :param vocabulary: Rows of the model's embedding, where they are more than the tokenizer's
        tokens: such a row may have been drawn.
    :param max_new_tokens: Where completions were cut off; tells which ones were.
    :param logged: How the log is read.
    :param options: Fields of :class:`passgrad.rollouts.logged.Logged` by themselves.
    :raises UserError: For a file that cannot be read, missing or unknown columns, a reward other
        than 0 or 1, tokens that are not the tokenizer's, different numbers of completions; in one
        line with the file, its line or row, and the remedy.
    :warns SamplingLawWarning: If the samples are not, or may not be, from the policy itself, or are
        of several training steps.
    :warns RetokenisedWarning: If tokens were made from text.
    """
    asked = replace(logged or Logged(), **options)
    files = files_of(paths)
    name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    rows = read_rows(files)
    if stop is None and task is not None:
        stop = task.stop
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    if not ends and tokenizer.eos_token_id is not None:
        ends = (tokenizer.eos_token_id,)
    log = Log(
        name, rows, columns, tokenizer, Prompts(task, tokenizer), asked, stop, tuple(ends), think,
        asked.stated(), vocabulary,
    )  # fmt: skip
    rollouts = rollouts_of(log, task, verifier, max_new_tokens)
    for doubt in log.doubts:
        warnings.warn(doubt, stacklevel=2)
    return rollouts


def rollouts_of(
    log: Log, task: Task | None, verifier: Verifier | None, max_new_tokens: int | None
) -> Rollouts:
    """The rollouts of a log that is read; what is doubtful is added to its doubts."""
    asked = log.asked
    layout = _layout(log)
    if layout == "passgrad":
        return _own(log)
    samples = READERS[layout](log)
    samples = _one_step(log, samples, asked.rollout_step)
    for sample in samples:
        _state_law(sample, log.stated)
    pooled = _name_prompts(samples, log.lookup)
    complete_tokens(log, samples, max_new_tokens)
    settle_rewards(log, samples, task, verifier)
    samples = _even(log, samples, asked.per_prompt)
    _warn_of_law(log, samples)
    if pooled:
        log.doubt(
            f"{pooled} ids have the prompt of another; the completions of one prompt "
            "are taken together, and intervals are those of the distinct prompts",
            RetokenisedWarning,
        )
    try:
        return Rollouts(_table(samples, layout, log.stop, max_new_tokens))
    except UserError as error:
        raise UserError(f"{log.name}: {error}") from None


def _layout(log: Log) -> str:
    """The layout that was named, or that of the columns, which is the same for all rows."""
    if log.asked.layout != "auto":
        return log.asked.layout
    layouts: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for row in log.rows:
        shape = tuple(row.cells)
        if shape not in seen:
            seen.add(shape)
            layouts.setdefault(layout_of(shape), row.where)
    if len(layouts) > 1 and layout_of(log.columns) not in ("evalplus", "plain", "verl", "trl"):
        (first, at), (second, there) = list(layouts.items())[:2]
        raise UserError(
            f"{there}: the columns are those of {second}, and in {at} those of {first}; give files "
            f"of one kind, or name it by --layout (layout=)"
        )
    return layout_of(log.columns)


def _own(log: Log) -> Rollouts:
    """Rollouts of the package."""
    asked = replace(log.asked, layout="auto")
    if asked != Logged():
        raise UserError(
            f"{log.name}: rollouts of passgrad are read as they are; leave out --reward (reward=), "
            "--threshold (threshold=), --rollout-step (rollout_step=), --per-prompt (per_prompt=), "
            "--settings (settings=) and --requests (requests=)"
        )
    cells = [dict(row.cells) for row in log.rows]
    try:
        rollouts = Rollouts(pa.Table.from_pylist(cells))
    except (pa.ArrowException, UserError, TypeError, ValueError) as error:
        raise UserError(f"{log.name}: {' '.join(str(error).split())}") from None
    # The package's engines run at full precision.
    laws = ({name: row[name] for name in LAW} for row in rollouts.table.to_pylist())
    _warn_of_law(log, [Sample("", "", "", "", law=law, quantised=False) for law in laws])
    return rollouts


def _one_step(log: Log, samples: list[Sample], step: int | None) -> list[Sample]:
    steps = sorted({sample.step for sample in samples if sample.step is not None})
    if step is not None:
        samples = [sample for sample in samples if sample.step == step]
        if not samples:
            raise UserError(
                f"{log.name} has no samples of step {step}; it has the steps {steps[:10]}"
            )
    elif len(steps) > 1:
        log.doubt(
            f"the samples are of {len(steps)} training steps ({steps[0]} to {steps[-1]}), "
            "so of different policies unless the learning rate was 0; choose one by "
            "--rollout-step (rollout_step=)"
        )
    return samples


def _state_law(sample: Sample, stated: LogSettings) -> None:
    """What was said of the law, where the log does not say it; never against the log."""
    for name, value in stated.law.items():
        logged = sample.law.get(name)
        if logged is None:
            sample.law[name] = value
        elif logged != value and not (name == "top_k" and max(logged, 0) == max(value, 0)):
            refuse(
                sample.where,
                f"{name} is {logged:g} in the log and {value:g} in --settings (settings=); "
                "keep one",
            )
    sample.bent = tuple(dict.fromkeys((*sample.bent, *stated.bent)))
    if sample.quantised is None:
        sample.quantised = stated.quantised


def _name_prompts(samples: list[Sample], lookup: Prompts) -> int:
    """Ids and groups: the task's, or else the order in which the prompts appear. Samples of the
    same prompt get one id; returns how many ids that took away.
    """
    numbers: dict[str, str] = {}
    firsts: dict[str, Sample] = {}
    ids: dict[str, str] = {}
    gone: set[str] = set()
    taken = {sample.prompt_id for sample in samples if sample.prompt_id is not None}
    fresh = (str(number) for number in range(len(samples) + len(taken)) if str(number) not in taken)
    for sample in samples:
        known = lookup.find(sample.prompt_id, sample.prompt)
        if known is not None:
            sample.prompt_id = known.id
            sample.group = sample.group or known.group
        elif sample.prompt_id is None:
            if sample.prompt not in ids and sample.prompt not in numbers:
                numbers[sample.prompt] = next(fresh)
            sample.prompt_id = ids.get(sample.prompt) or numbers[sample.prompt]
        first = firsts.setdefault(sample.prompt_id, sample)
        if first.prompt != sample.prompt:
            refuse(
                sample.where,
                f"the id {sample.prompt_id!r} has another prompt than in {first.where}; "
                "make the ids distinct",
            )
        same = ids.setdefault(sample.prompt, sample.prompt_id)
        if same != sample.prompt_id:
            gone.add(sample.prompt_id)
            sample.prompt_id = same
        first = firsts[same]
        if first.answer != sample.answer:
            refuse(
                sample.where,
                f"the prompt has another answer than in {first.where}; keep one of them",
            )
        sample.group = first.group
    return len(gone)


def _even(log: Log, samples: list[Sample], per_prompt: int | None) -> list[Sample]:
    """The same number of samples for each prompt."""
    counts = Counter(sample.prompt_id for sample in samples)
    least, most = min(counts.values()), max(counts.values())
    if per_prompt is None:
        if least < most:
            few = next(name for name, count in counts.items() if count == least)
            raise UserError(
                f"{log.name}: prompts have between {least} and {most} completions (the prompt "
                f"{few!r} has {least}); give the same number for each, or "
                "--per-prompt (per_prompt=) to keep as many of each"
            )
        return samples
    if most < per_prompt:
        raise UserError(
            f"{log.name}: no prompt has {per_prompt} completions, the most is {most}; give a "
            "smaller --per-prompt (per_prompt=)"
        )
    taken: Counter[str | None] = Counter()
    kept = []
    for sample in samples:
        taken[sample.prompt_id] += 1
        if counts[sample.prompt_id] >= per_prompt >= taken[sample.prompt_id]:
            kept.append(sample)
    few_count = sum(count < per_prompt for count in counts.values())
    if len(kept) < len(samples):
        log.doubt(
            f"{len(kept)} of {len(samples)} completions are taken, {per_prompt} a prompt; "
            f"{few_count} of {len(counts)} prompts have fewer and are left out"
        )
    return kept


def _warn_of_law(log: Log, samples: Iterable[Sample]) -> None:
    """One warning for what is known to differ from the policy, one for what is not known."""
    known: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for sample in samples:
        temperature, top_p, top_k = (sample.law.get(part) for part in LAW)
        for part in LAW:
            if sample.law.get(part) is None:
                unknown[part] = None
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
        log.doubt(
            f"the samples are not from the policy that is differentiated "
            f"({', '.join(known)}), so its scores do not have mean zero under them and estimates "
            "are biased; draw with temperature 1, top_p 1, no top_k, unquantised"
        )
    if unknown:
        log.doubt(
            f"the log does not say {', '.join(unknown)}; estimates are right only for "
            "samples of the policy itself; say what you know by --settings (settings=), such as "
            "temperature=1, top_p=1, top_k=0, quantised=false"
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
                "finish_reason": sample.state,
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
