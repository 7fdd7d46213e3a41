"""Why a completion ended, in the words of many programs."""

from __future__ import annotations

import json
from typing import Any, Literal

from passgrad.rollouts.readers.values import missing, refuse, shown

#: "stop": the model ended it. "length": it was cut off. "broken": it was broken off by something
#: else, such as an aborted request. "tools": the model ended it with a call of a tool. "string": at
#: a stop string, which is not in the text.
State = Literal["stop", "length", "broken", "tools", "string"]

_STATES: dict[str, State] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "eos_token_id", "end_turn", "end_of_text", "finish_stop"),
        "stop",
    ),
    **dict.fromkeys(("stop_sequence", "stop_string", "stop_str"), "string"),
    **dict.fromkeys(
        ("length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens",
         "model_length", "model_context_window_exceeded", "truncated"),
        "length",
    ),
    **dict.fromkeys(
        ("abort", "aborted", "cancelled", "canceled", "content_filter", "error", "failed",
         "timeout", "safety", "refusal", "recitation", "repetition", "incomplete", "preempted"),
        "broken",
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tools"),
}  # fmt: skip


def state_of(value: Any, where: str) -> State | None:
    """The state that a finish reason stands for; None where the log does not say it.

    SGLang writes an object with ``type``.

    :raises UserError: For a reason that is not known.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            refuse(where, f"finish_reason is {shown(value)}; give stop, length or nothing")
    if isinstance(value, dict):
        value = value.get("type")
        if value is None:
            refuse(where, "finish_reason is an object without type; give stop, length or nothing")
    if missing(value) or (isinstance(value, str) and not value):
        return None
    if not isinstance(value, str) or value.strip().lower() not in _STATES:
        refuse(where, f"finish_reason is {shown(value)}; give stop, length or nothing")
    return _STATES[value.strip().lower()]


def matched(value: Any) -> Any:
    """What ended a completion, where SGLang's finish reason says it: a token id or a text."""
    return value.get("matched") if isinstance(value, dict) else None
