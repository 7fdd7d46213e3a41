"""Samples of lm-evaluation-harness, ``samples_*.jsonl`` of ``--log_samples``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Log, Row, Sample
from passgrad.rollouts.logged import BENDING, LAW, bends, check_law
from passgrad.rollouts.readers.plain import answer_of
from passgrad.rollouts.readers.values import label, number, refuse, setting, shown, whole
from passgrad.tasks.json_lines import kind_of

_IGNORED = (
    "until",
    "do_sample",
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "seed",
    "num_beams",
)


def read_lm_eval(log: Log) -> list[Sample]:
    """One sample a repeat; of several filters of one question the first, whose answers are all the
    same before filtering.
    """
    log.need("doc_id", "resps", "arguments")
    weights = log.weights(None)
    seen: dict[tuple[str, str], tuple[str, Any, str]] = {}
    samples: list[Sample] = []
    for row in log.rows:
        cells, where = row.cells, row.where
        key = label(cells.get("doc_id"), where, "doc_id")
        if key is None:
            refuse(where, "no doc_id; give the file as lm-eval wrote it")
        texts = _texts(cells.get("resps"), where)
        source = where.rpartition(", ")[0]
        kept = seen.setdefault((source, key), (str(cells.get("filter")), texts, where))
        if kept[2] != where:
            if kept[0] == str(cells.get("filter")) or kept[1] != texts:
                refuse(where, f"doc_id {key} stands in {kept[2]} too; give each question once")
            if not weights:
                continue
            refuse(where, "a reward is named and there are several filters; keep one filter's rows")
        samples += _samples(log, row, key, texts, weights)
    if len({where for where, _ in seen}) > 1:
        for sample in samples:  # of several tasks: their numbers are not those of one
            sample.prompt_id = None
    return samples


def _samples(
    log: Log, row: Row, key: str, texts: list[str], weights: Mapping[str, float]
) -> list[Sample]:
    where = row.where
    context, arguments = _arguments(row.cells.get("arguments"), where)
    if context.lstrip().startswith('[{"') and '"role"' in context:
        try:
            prompt = log.text(json.loads(context), where, "arguments")
        except ValueError:
            refuse(where, "the arguments are no messages; give the file as lm-eval wrote it")
    else:
        prompt = log.text(context, where, "arguments")
    law, bent = _law(arguments, where)
    _check_until(log, arguments.get("until"), where)
    rewards = _rewards(row, weights, len(texts))
    return [
        Sample(
            where,
            key,
            prompt,
            text,
            reward=reward,
            answer=answer_of(row.cells.get("target"), where),
            law=dict(law),
            bent=bent,
            engine="lm-eval",
        )
        for text, reward in zip(texts, rewards, strict=True)
    ]


def _texts(resps: Any, where: str) -> list[str]:
    """The repeats of a question; ``resps`` has one list for each of its requests."""
    if isinstance(resps, list) and len(resps) == 1 and isinstance(resps[0], list):
        resps = resps[0]
    if not isinstance(resps, list) or not resps or not all(isinstance(text, str) for text in resps):
        refuse(
            where, f"resps is {shown(resps)}; give a task that generates text, one request a doc"
        )
    return resps


def _arguments(value: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    """(context, settings) of a request in either of the two forms."""
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value) if value[name] is not None]
    if isinstance(value, list) and len(value) == 1:
        [request] = value
        if isinstance(request, dict):
            request = [request[name] for name in sorted(request)]
        if isinstance(request, list) and request:
            context, *more = request
            if isinstance(context, list) and len(context) == 1:
                [context] = context  # a chat as JSON
            settings = more[0] if more and more[0] is not None else {}
            if isinstance(context, str) and context and isinstance(settings, dict):
                return context, {k: v for k, v in settings.items() if v is not None}
    refuse(where, f"arguments is {kind_of(value)} of another form; give one request a doc")


def _law(arguments: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    law: dict[str, Any] = {name: setting(arguments.get(name), where, name) for name in LAW}
    law["top_k"] = whole(arguments.get("top_k"), where, "top_k")
    if arguments.get("do_sample") is False:
        law["temperature"] = 0.0
    limit = next((arguments[n] for n in _IGNORED[2:5] if arguments.get(n) is not None), None)
    law["max_new_tokens"] = whole(limit, where, "max_gen_toks")
    check_law(law, where)
    if arguments.get("num_beams") not in (None, 1):
        refuse(where, "num_beams searches where it should draw; draw without it")
    bent = []
    for name, value in arguments.items():
        if name in BENDING:
            if bends(name, value):
                bent.append(f"{name} {value}")
        elif name not in (*_IGNORED, *LAW):
            refuse(where, f"the request has {name!r}, and what it does is not known")
    return law, tuple(bent)


def _check_until(log: Log, until: Any, where: str) -> None:
    """A completion was cut at one of these; which one, lm-eval does not write down."""
    until = [until] if isinstance(until, str) else until or []
    if not isinstance(until, list) or not all(isinstance(text, str) for text in until):
        refuse(where, f"until is {shown(until)}; give a list of texts")
    special = set(log.tokenizer.all_special_tokens)
    strings = [text for text in until if text and text not in special]
    if not strings or log.stop is not None:
        return
    refuse(
        where,
        f"the completions were cut at {' or '.join(map(repr, strings))}, and which of them ended "
        f"at the end of a turn is not written down; say by --stop (stop=) what ended them, one of "
        f"these or the model's end token {log.tokenizer.eos_token!r}",
    )


def _rewards(row: Row, weights: Mapping[str, float], count: int) -> list[float | None]:
    """The sum of these metrics for each repeat; None where none is named."""
    totals: list[float | None] = [None] * count
    for name, weight in weights.items():
        cell = row.cells.get(name)
        values = cell if isinstance(cell, list) else [cell]
        if len(values) != count:
            raise UserError(
                f"{row.where}: {name} has {len(values)} values for {count} repeats; leave "
                "--reward (reward=) out and name a --verifier (verifier=), which judges each"
            )
        for place, value in enumerate(values):
            plain = number(value, row.where, name)
            if plain is None:
                refuse(row.where, f"{name} has no value for repeat {place}")
            totals[place] = (totals[place] or 0.0) + weight * plain
    return totals
