"""Outputs of batches in OpenAI's form: ``vllm run-batch``, OpenAI's and SGLang's batches."""

from __future__ import annotations

from typing import Any

from passgrad.rollouts.foreign_logs import Log, Sample
from passgrad.rollouts.readers.plain import precision
from passgrad.rollouts.readers.requests import Request, read_requests
from passgrad.rollouts.readers.states import matched
from passgrad.rollouts.readers.values import ids, label, refuse, shown, summed
from passgrad.tasks.json_lines import kind_of


def read_batch(log: Log) -> list[Sample]:
    """One sample a choice."""
    log.need("custom_id", "response")
    asked = {} if log.asked.requests is None else read_requests(log.asked.requests, log)
    samples: list[Sample] = []
    for row in log.rows:
        cells, where = row.cells, row.where
        key = label(cells.get("custom_id"), where, "custom_id")
        response = cells.get("response")
        body = response.get("body") if isinstance(response, dict) else None
        if cells.get("error") or not isinstance(body, dict) or not body.get("choices"):
            refuse(where, f"the request {key!r} failed; draw it again, or take it out of the file")
        if asked and key not in asked:
            refuse(where, f"the request {key!r} is not in {log.asked.requests}; give its file")
        request = asked.get(key or "", Request())
        known = log.lookup.by_id.get(key or "")
        prompt = known.text if known else request.prompt
        if prompt is None:
            refuse(
                where,
                f"the prompt of the request {key!r} is not in the batch's output; give "
                "--prompts (prompts=) with one of this id, or the batch's input file as "
                "--requests (requests=)",
            )
        if not isinstance(body["choices"], list):
            refuse(where, f"choices is {kind_of(body['choices'])}; give a list of completions")
        for choice in body["choices"]:
            if not isinstance(choice, dict):
                refuse(where, f"a choice is {kind_of(choice)}; give objects")
            sample = _sample(log, choice, where, request)
            sample.prompt_id, sample.prompt = key, prompt
            sample.quantised = precision(None, str(body.get("model", "")), said=False)
            samples.append(sample)
    return samples


def _sample(log: Log, choice: dict[str, Any], where: str, request: Request) -> Sample:
    token_ids = ids(choice.get("token_ids"), where)
    sample = Sample(
        where,
        None,
        "",
        _text(choice, where, token_ids),
        token_ids,
        logprob=_logprob(choice.get("logprobs")),
        law=dict(request.law),
        bent=request.bent,
        engine="batch",
        prompt_ids=ids(choice.get("prompt_token_ids"), where),
    )
    log.ended(sample, choice.get("finish_reason"))
    reason = choice.get("stop_reason")
    if reason is None:
        reason = choice.get("matched_stop", matched(choice.get("finish_reason")))
    return request.end(sample, reason, said="stop_reason" in choice or reason is not None)


def _text(choice: dict[str, Any], where: str, token_ids: list[int] | None) -> str | None:
    """The text of a choice; None where its token ids alone say what the model wrote."""
    message = choice.get("message")
    if message is None:
        message = {}
    if not isinstance(message, dict):
        refuse(where, f"message is {kind_of(message)}; give an object with content")
    split = [
        name
        for name in ("reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")
        if message.get(name)
    ]
    if split and token_ids is None:
        refuse(
            where,
            f"the message is split into content and {', '.join(split)}, so the text that the model "
            "wrote is not known; draw with return_token_ids, or without a parser",
        )
    text = choice.get("text", message.get("content"))
    if split or text is None:
        return None
    if not isinstance(text, str):
        refuse(where, f"the text of a choice is {shown(text)}; give text")
    return text


def _logprob(logprobs: Any) -> float | None:
    """The log-probability of a completion from either of the two forms."""
    if not isinstance(logprobs, dict):
        return None
    if logprobs.get("token_logprobs"):
        return summed(logprobs["token_logprobs"])
    content = logprobs.get("content")
    if not isinstance(content, list):
        return None
    return summed([token.get("logprob") if isinstance(token, dict) else None for token in content])
