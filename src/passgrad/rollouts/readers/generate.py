"""What ``LLM.generate`` of vLLM or the engine of SGLang gives back, written as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passgrad.rollouts.foreign_logs import Log, Row, Sample, reward_of
from passgrad.rollouts.readers.plain import answer_of, completion_text, law_of, precision, prompt_of
from passgrad.rollouts.readers.states import matched
from passgrad.rollouts.readers.values import ids, label, missing, number, refuse, summed, whole
from passgrad.tasks.json_lines import kind_of


def read_generate(log: Log) -> list[Sample]:
    """One sample for each output of a row."""
    weights = log.weights("reward")
    samples = []
    for row in log.rows:
        outputs = row.cells.get("outputs")
        if outputs is None:
            outputs = [row.cells]
        if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
            refuse(row.where, f"outputs is {kind_of(outputs)}; give a list of objects")
        if not outputs:
            refuse(row.where, "outputs is empty; draw again, or take the row out")
        samples += [_sample(log, row, output, weights) for output in outputs]
    return samples


def _sample(log: Log, row: Row, output: Mapping[str, Any], weights: dict[str, float]) -> Sample:
    where, cells = row.where, row.cells
    meta = output.get("meta_info")
    meta = meta if isinstance(meta, dict) else {}
    token_ids = output.get("token_ids")
    if missing(token_ids):
        token_ids = output.get("output_ids")
    logprob = number(output.get("cumulative_logprob"), where, "cumulative_logprob", text=row.text)
    if logprob is None and isinstance(meta.get("output_token_logprobs"), list):
        triples = meta["output_token_logprobs"]
        logprob = summed([part[0] if isinstance(part, list) and part else None for part in triples])
    prompt_ids = ids(cells.get("prompt_token_ids"), where, text=row.text)
    key = label(cells.get("id"), where, "id")
    engine = cells.get("engine")
    own = Row(where, output, row.text)
    sample = Sample(
        where,
        key,
        _prompt(log, row, key, prompt_ids),
        completion_text(output.get("text"), where),
        ids(token_ids, where, text=row.text),
        reward_of(own, weights) if output.keys() & weights.keys() else reward_of(row, weights),
        answer_of(cells.get("answer"), where),
        label(cells.get("group"), where, "group") or "",
        None if logprob is None or logprob != logprob else logprob,
        step=whole(cells.get("step"), where, "step", text=row.text),
        law=law_of(row),
        engine="generate" if missing(engine) else str(engine),
        quantised=precision(
            cells.get("quantization"), engine, said=not missing(cells.get("quantization"))
        ),
        prompt_ids=prompt_ids,
    )
    reason = output.get("finish_reason", meta.get("finish_reason"))
    log.ended(sample, reason)
    stopped = output.get("stop_reason")
    stopped = matched(reason) if missing(stopped) else stopped
    if sample.state in ("stop", "string") and not missing(stopped):
        if isinstance(stopped, bool) or not isinstance(stopped, str | int):
            refuse(where, f"stop_reason is {kind_of(stopped)}; give text or a token id")
        sample.ended_by = stopped
    return sample


def _prompt(log: Log, row: Row, key: str | None, prompt_ids: list[int] | None) -> str:
    if missing(row.cells.get("prompt")) and missing(row.cells.get("messages")) and prompt_ids:
        if any(not 0 <= token < len(log.tokenizer) for token in prompt_ids):
            refuse(row.where, "a token id of the prompt is not the tokenizer's; give its text")
        return str(log.tokenizer.decode(prompt_ids, skip_special_tokens=False))
    return prompt_of(log, row, key)
