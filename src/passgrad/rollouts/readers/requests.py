"""The input file of a batch: prompts, the sampling law, and what else shaped the completions.

Every field of a request is honoured (it gives the prompt, or says how a completion ended), said to
bend the law, known to change nothing, or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from passgrad.rollouts.foreign_logs import MODEL_END, Log, Sample
from passgrad.rollouts.logged import BENDING, LAW, bends, check_law
from passgrad.rollouts.readers.values import label, refuse, setting, shown, whole
from passgrad.tasks.json_lines import kind_of
from passgrad.tasks.tables import read_table

_LIMITS = ("max_completion_tokens", "max_tokens", "max_new_tokens")
_PROMPT = (
    "prompt", "messages", "tools", "tool_choice", "chat_template", "chat_template_kwargs",
    "add_generation_prompt", "continue_final_message", "add_special_tokens",
)  # fmt: skip
_ENDS = ("stop", "stop_token_ids", "include_stop_str_in_output")
# Fields that change neither the prompt nor the law.
_NEUTRAL = (
    "model", "n", "user", "stream", "stream_options", "stream_interval", "logprobs", "top_logprobs",
    "prompt_logprobs", "logprob_token_ids", "return_token_ids", "return_tokens_as_token_ids",
    "return_token_offsets", "return_prompt_text", "skip_special_tokens", "detokenize",
    "spaces_between_special_tokens", "priority", "request_id", "session_id", "cache_salt",
    "metadata", "store", "service_tier", "include_reasoning", "separate_reasoning",
    "stream_reasoning", "parallel_tool_calls", "truncation_side", "mm_payload", "return_mm_kwargs",
    "routed_experts_prompt_start", "prompt_cache_key", "safety_identifier", "rid", "lora_path",
    "return_hidden_states",
)  # fmt: skip
_GRAMMARS = (
    "structured_outputs", "response_format", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "guided_whitespace_pattern", "guided_decoding_backend", "structural_tag",
    "regex", "ebnf", "json_schema",
)  # fmt: skip
# Fields that are refused, but for these values, at which they do nothing.
_REFUSED: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    **dict.fromkeys(_GRAMMARS, ("restricts the completions to a grammar", (False,))),
    "use_beam_search": ("searches where it should draw", (False,)),
    "best_of": ("keeps the best of several", (0, 1)),
    "ignore_eos": ("goes on behind the end of a turn", (False,)),
    "echo": ("puts the prompt before the completion", (False,)),
    "suffix": ("fills in the middle", ("",)),
    "truncate_prompt_tokens": ("shortens prompts", ()),
    "documents": ("is put into the prompt by the chat template", ()),
    "reasoning_effort": ("is put into the prompt by the chat template", ()),
    "reasoning": ("is put into the prompt by the chat template", ()),
    "functions": ("is put into the prompt by the engine", ()),
    "function_call": ("is put into the prompt by the engine", ()),
    "prompt_embeds": ("is no text", ()),
    "logits_processors": ("changes the law", ()),
    "custom_logit_processor": ("changes the law", ()),
    "vllm_xargs": ("may change the law", ()),
    "custom_params": ("may change the law", ()),
    "kv_transfer_params": ("is of another engine", ()),
    "ec_transfer_params": ("is of another engine", ()),
    "repetition_detection": ("ends completions that repeat themselves", ()),
    "stop_regex": ("ends completions at a pattern", ()),
    "no_stop_trim": ("leaves stop strings in the text", (False,)),
    "mm_processor_kwargs": ("is of images", ()),
    "media_io_kwargs": ("is of images", ()),
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What was asked for under one ``custom_id``."""

    prompt: str | None = None
    law: Mapping[str, Any] = field(default_factory=dict)
    bent: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    """The strings at which a completion ended."""
    asked: bool = False
    """Whether it is known what was asked for."""
    keeps_stop: bool = False
    """Whether the text of a completion holds the string that ended it."""

    def end(self, sample: Sample, reason: Any, *, said: bool) -> Sample:
        """The sample, with what ended it.

        :param reason: The stop string or the stop token; None for the model's end token.
        :param said: Whether the log says so.
        """
        if sample.state not in ("stop", "string"):
            return sample
        if isinstance(reason, str) or (isinstance(reason, int) and not isinstance(reason, bool)):
            sample.ended_by = reason
            if isinstance(reason, str) and self.keeps_stop and sample.completion is not None:
                sample.completion = sample.completion.removesuffix(reason)
        elif reason is not None:
            refuse(sample.where, f"stop_reason is {shown(reason)}; give text or a token id")
        elif self.stops and not said:
            names = " or ".join(map(repr, self.stops))
            refuse(
                sample.where,
                f"it may have ended at {names} or at the end of a turn, and does not say which; "
                "take the samples with such an end out, or draw without stop strings",
            )
        elif self.asked:
            sample.ended_by = MODEL_END
        return sample


def read_requests(path: str | Path, log: Log) -> dict[str, Request]:
    """The requests of a file by their ``custom_id``.

    :raises UserError: For a file that is no input of a batch, an id that stands twice, and a
        request that cannot be honoured, in one line with file and row.
    """
    requests: dict[str, Request] = {}
    for at, row in read_table(path):
        key = label(row.get("custom_id"), at.name, "custom_id")
        body = row.get("body")
        if not isinstance(body, dict) or key is None:
            at.fail("no custom_id or no body; give the input file of the batch")
        if key in requests:
            at.fail(f"the request {key!r} stands twice; make the ids distinct")
        requests[key] = _request(body, at.name, log)
    if not requests:
        refuse(str(path), "no requests; give the input file of the batch")
    return requests


def _request(body: Mapping[str, Any], where: str, log: Log) -> Request:
    bent = []
    for name, value in body.items():
        if name in BENDING:
            if bends(name, value):
                bent.append(f"{name} {shown(value)}")
        elif name in _REFUSED:
            reason, harmless = _REFUSED[name]
            if value not in (None, [], {}, *harmless) and value != {"type": "text"}:
                refuse(
                    where,
                    f"{name} {reason}, so the samples are not of the policy on a prompt that is "
                    "known; draw without it",
                )
        elif name not in (*_PROMPT, *_ENDS, *_NEUTRAL, *LAW, *_LIMITS, "seed"):
            refuse(
                where,
                f"the request has {name!r}, and what it does to the samples is not known; draw "
                "without it, or take it out of the file if it does nothing",
            )
    law: dict[str, Any] = {name: setting(body.get(name), where, name) for name in LAW}
    law["top_k"], law["seed"] = (whole(body.get(n), where, n) for n in ("top_k", "seed"))
    limit = next((body[name] for name in _LIMITS if body.get(name) is not None), None)
    law["max_new_tokens"] = whole(limit, where, "max_tokens")
    check_law(law, where)
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        refuse(where, f"stop is {shown(stops)}; give a text or a list of them")
    return Request(
        _prompt(body, where, log),
        law,
        tuple(bent),
        tuple(stops),
        True,
        body.get("include_stop_str_in_output") is True,
    )


def _prompt(body: Mapping[str, Any], where: str, log: Log) -> str | None:
    """The text that the engine was given; None where the request has none."""
    messages, prompt = body.get("messages"), body.get("prompt")
    if messages is None:
        if isinstance(prompt, list):
            prompt = _only(prompt, where, log)
        if prompt is None:
            return None
        if body.get("add_special_tokens") is False:
            refuse(where, "add_special_tokens leaves the begin token out; draw without it")
        return log.text(prompt, where, "prompt") or None
    if body.get("add_generation_prompt") is False or body.get("continue_final_message"):
        refuse(where, "the completion goes on with the last message; draw turns of the model")
    if body.get("add_special_tokens"):
        refuse(where, "add_special_tokens puts the begin token there twice; draw without it")
    template = body.get("chat_template_kwargs") or {}
    if not isinstance(template, dict):
        refuse(where, f"chat_template_kwargs is {kind_of(template)}; give an object")
    template = dict(template)
    tools = body.get("tools")
    if tools:
        if body.get("tool_choice") not in (None, "auto"):
            refuse(
                where,
                f"tool_choice {shown(body['tool_choice'])} decides on a call instead of the model; "
                "draw with auto",
            )
        template["tools"] = tools
    if body.get("chat_template") is not None:
        template["chat_template"] = body["chat_template"]
    return log.text(messages, where, "messages", **template)


def _only(prompt: list[Any], where: str, log: Log) -> str:
    """The text of a prompt that is a list: of one text, or of token ids."""
    if len(prompt) == 1 and isinstance(prompt[0], str | list):
        [first] = prompt
        return first if isinstance(first, str) else _only(first, where, log)
    if prompt and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        if any(not 0 <= token < len(log.tokenizer) for token in prompt):
            refuse(where, "a token id of the prompt is not the tokenizer's; give its text")
        return str(log.tokenizer.decode(prompt, skip_special_tokens=False))
    refuse(where, "the request has several prompts, or none; ask for one a request")
