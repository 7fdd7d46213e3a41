"""Logs that are drawn at random, with what each of them means.

A case is a table of cells in one of the layouts. Some cells are replaced by values that programs,
tables and people leave behind. What a table means is said here once more, without the readers: the
rows that have to come out, or None where it means nothing and has to be refused.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import numpy as np

END = 0  # of the tokenizer of the tests, which has a token for each sign
PROMPTS = ("1+1=", "3+4=", "5+2=", "2+2=")
ANSWERS = {"1+1=": "2", "3+4=": "7", "5+2=": "7", "2+2=": "4"}
LAYOUTS = ("plain", "verl", "trl", "batch", "generate", "sglang", "lm-eval")

#: what a cell is about, by the layout and its column
KINDS = {
    "plain": {
        "prompt": "prompt", "completion": "text", "completion_ids": "ids", "reward": "reward",
        "finish_reason": "state", "group": "label", "step": "whole", "logprob": "number",
        "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "seed": "seed",
        "max_new_tokens": "limit",
    },
    "verl": {"input": "prompt", "output": "said", "score": "reward", "step": "whole"},
    "trl": {
        "prompt": "prompt", "completion": "message", "correct": "reward", "step": "whole",
        "advantage": "ignored",
    },
    "batch": {"text": "choice", "token_ids": "ids", "finish_reason": "state"},
    "generate": {
        "prompt": "prompt", "text": "text", "token_ids": "ids", "finish_reason": "state",
        "reward": "reward", "cumulative_logprob": "number", "group": "label",
    },
    "sglang": {
        "prompt": "prompt", "text": "text", "output_ids": "ids", "finish_reason": "state",
        "reward": "reward",
    },
    "lm-eval": {"context": "prompt", "text": "choice", "temperature": "temperature",
                "top_p": "top_p", "top_k": "top_k", "max_gen_toks": "limit"},
}  # fmt: skip

ODD = (
    None, math.nan, math.inf, -math.inf, 0, 1, -1, 2, 0.5, 1.0, 0.0, 0.9999999, True, False, "",
    "1", "0", "1.0", "yes", "stop", "LENGTH", " stop ", "eos_token", "abort", "content_filter",
    "tool_calls", "stop_sequence", "unknown", b"x", [], [1], [2, 3], [1.0], [[1]], [True], [-1],
    [10**6], {}, {"type": "length", "length": 5}, {"type": "stop", "matched": 0}, {"a": 1},
    Decimal("1"), Decimal("NaN"), Decimal("1e400"), 10**400, 2**63, 2**40, np.float32(1),
    np.int64(0), np.bool_(True), np.array([2, 3]), "a\0b", "\ud800", datetime(2026, 1, 2), "2",
    "77",
    [{"role": "assistant", "content": "2"}], [{"role": "user", "content": "2"}],
    [{"role": "assistant", "content": [{"type": "text", "text": "7"}]}], (2, 3), "1+1=",
)  # fmt: skip
STATES = {
    "stop": (
        "stop",
        "eos",
        "end_turn",
        "STOP",
        {"type": "stop"},
        {"type": "stop", "matched": None},
    ),
    "length": ("length", "max_tokens", {"type": "length", "length": 9}),
    "broken": ("abort", "content_filter", "error", "cancelled", {"type": "abort"}),
    None: (None, math.nan, ""),
}
_WORDS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    **dict.fromkeys(("abort", "content_filter", "error", "cancelled"), "broken"),
    "tool_calls": "tools", "stop_sequence": "string",
}  # fmt: skip
NOTHING = object()


class MeaninglessError(Exception):
    """The cells mean nothing."""


@dataclass
class Case:
    """Cells by row, and how many of them were replaced."""

    layout: str
    rows: list = field(default_factory=list)
    changes: int = 0


def draw(rng, ids_of):
    """A case; ``ids_of``: the token ids of a text."""
    layout = LAYOUTS[rng.integers(len(LAYOUTS))]
    case = Case(layout)
    num_samples = int(rng.integers(1, 4))
    for prompt in PROMPTS[: rng.integers(1, 4)]:
        for _ in range(num_samples):
            case.rows.append(_row(rng, layout, prompt, ids_of))
    if layout in ("plain", "trl", "generate") and rng.random() < 0.3:
        rng.shuffle(case.rows)
    for _ in range(int(rng.choice(4, p=[0.25, 0.45, 0.2, 0.1]))):
        row = case.rows[rng.integers(len(case.rows))]
        name = list(KINDS[layout])[rng.integers(len(KINDS[layout]))]
        row[name] = ODD[rng.integers(len(ODD))]
        case.changes += 1
    return case


def _row(rng, layout, prompt, ids_of):
    text = "".join(rng.choice(list("0123456789"), size=rng.integers(1, 4)))
    if rng.random() < 0.4:
        text = ANSWERS[prompt]
    right = float(text == ANSWERS[prompt])
    state = list(STATES)[rng.integers(len(STATES))]
    kinds = KINDS[layout]
    values = {
        "prompt": prompt, "text": text, "said": text, "choice": text, "whole": 3,
        "reward": [right, bool(right), int(right), Decimal(int(right)), np.float32(right)][
            rng.integers(5)
        ],
        "message": text if rng.random() < 0.5 else [{"role": "assistant", "content": text}],
        "ids": None if rng.random() < 0.5 else _ids(text, state, ids_of),
        "state": STATES[state][rng.integers(len(STATES[state]))],
        "label": ["g", 0, 1.0, None, math.nan][rng.integers(5)],
        "number": [-0.5, None, math.nan][rng.integers(3)],
        "temperature": [1.0, 1, None, math.nan, 0.7][rng.integers(5)],
        "top_p": [1.0, None, 0.9][rng.integers(3)], "top_k": [0, -1, None, 5.0][rng.integers(4)],
        "seed": [3, None, math.nan][rng.integers(3)],
        "limit": [512.0, 512, None, math.nan, 2][rng.integers(5)], "ignored": 0.1,
    }  # fmt: skip
    return {name: values[kind] for name, kind in kinds.items()}


def _ids(text, state, ids_of):
    return [*ids_of(text), END] if state in ("stop", None) else ids_of(text)


def cells_of(case, number):
    """The cells of a row as the program writes them, all of one log alike."""
    row = case.rows[number]
    if case.layout == "verl":
        return {**row, "gts": "2", "acc": True}
    if case.layout == "batch":
        choice = {name: value for name, value in row.items() if value is not NOTHING}
        body = {"model": "m", "choices": [choice]}
        return {
            "custom_id": row["id"], "error": None,
            "response": {"status_code": 200, "body": body},
        }  # fmt: skip
    if case.layout == "sglang":
        cells = {name: value for name, value in row.items() if name != "finish_reason"}
        return {**cells, "meta_info": {"finish_reason": row["finish_reason"]}}
    if case.layout == "lm-eval":
        arguments = {k: v for k, v in row.items() if k not in ("context", "text")}
        return {
            "doc_id": number, "target": ANSWERS.get(_text(row["context"]), "?"), "filter": "none",
            "arguments": {"gen_args_0": {"arg_0": row["context"], "arg_1": arguments}},
            "resps": [[row["text"]]], "filtered_resps": [row["text"]],
        }  # fmt: skip
    return dict(row)


def _text(value):
    return value if isinstance(value, str) else None


def meaning(case, ids_of):
    """The rows that a case stands for, each prompt's together; None where it stands for none."""
    try:
        rows = [_meant(case, row, ids_of) for row in case.rows]
    except MeaninglessError:
        return None
    by_prompt = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(row)
    if len({len(some) for some in by_prompt.values()}) > 1:
        return None
    for some in by_prompt.values():
        for row in some:
            row["group"] = some[0]["group"]
    return [row for some in by_prompt.values() for row in some]


def _meant(case, row, ids_of):
    value = {kind: row[name] for name, kind in KINDS[case.layout].items()}
    prompt = row["prompt_text"] if case.layout == "batch" else value["prompt"]
    if not isinstance(prompt, str) or not prompt or "\ud800" in prompt:
        raise MeaninglessError
    state = _state(value["state"]) if "state" in value else None
    law = {
        "temperature": _setting(value.get("temperature"), lambda x: x >= 0),
        "top_p": _setting(value.get("top_p"), lambda x: 0 < x <= 1),
        "top_k": _whole(value.get("top_k"), -1, 2**31 - 1),
        "seed": _whole(value.get("seed"), -(2**63), 2**63 - 1),
        "max_new_tokens": _whole(value.get("limit"), 1, 2**31 - 1),
    }
    _whole(value.get("whole"), -math.inf, math.inf)
    text, token_ids, state = _completion(case, value, state, law["max_new_tokens"], ids_of)
    logprob = _number(value.get("number"))
    if case.layout in ("batch", "lm-eval"):
        reward = float(text == ANSWERS.get(prompt, "?"))
    else:
        reward = _number(value["reward"])
        if reward not in (0, 1):
            raise MeaninglessError
    return {
        "prompt": prompt, "completion": text, "completion_ids": token_ids, "reward": reward,
        "finish_reason": state, "group": _label(value.get("label")),
        "logprob": None if logprob is None or math.isnan(logprob) else logprob,
        **law, "top_k": None if law["top_k"] is None else max(law["top_k"], 0),
    }  # fmt: skip


def _completion(case, value, state, limit, ids_of):
    """(text, ids, state)"""
    text = next(value[kind] for kind in ("text", "said", "choice", "message") if kind in value)
    if "message" in value and isinstance(text, list):
        if len(text) != 1 or not isinstance(text[0], dict) or text[0].get("role") != "assistant":
            raise MeaninglessError
        text = text[0]["content"]
        text = text if isinstance(text, str) else text[0]["text"]
    token_ids = _token_ids(value.get("ids"))
    absent = text is None or (isinstance(text, float) and math.isnan(text))
    if not isinstance(text, str) and not (absent and token_ids):
        raise MeaninglessError
    if isinstance(text, str) and "\ud800" in text:
        raise MeaninglessError
    if token_ids is None:
        # An empty text may be a missing one where the layout has other ways to say it.
        if "\0" in text or (not text and case.layout == "plain"):
            raise MeaninglessError
        if state in ("tools", "string"):
            raise MeaninglessError
        token_ids = ids_of(text)
        if state is None:
            state = "length" if limit is not None and len(token_ids) >= limit else "stop"
        token_ids = [*token_ids, END] if state == "stop" else token_ids
    else:
        ended = token_ids[-1:] == [END]
        if state is None:
            state = "stop" if ended else "length"
        if state in ("stop", "tools") and not ended:
            if absent:
                text = "".join(SIGNS.get(token, "?") for token in token_ids)
            token_ids = [*token_ids, END]
        elif state == "string" and not ended:
            raise MeaninglessError
        if absent and not isinstance(text, str):
            cut = token_ids[:-1] if ended and state not in ("length", "broken") else token_ids
            cut = token_ids[:-1] if ended else cut
            text = "".join(SIGNS.get(token, "?") for token in cut)
    if not token_ids:
        raise MeaninglessError
    return text, token_ids, "length" if state in ("length", "broken") else "stop"


#: the sign of each token; the tests fill it in
SIGNS = {}


def _state(value):
    if isinstance(value, dict):
        if value.get("type") is None:
            raise MeaninglessError
        value = value["type"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and not value:
        return None
    if not isinstance(value, str) or value.strip().lower() not in _WORDS:
        raise MeaninglessError
    return _WORDS[value.strip().lower()]


def _number(value):
    """A float, NaN included, or None."""
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float | Decimal):
        raise MeaninglessError
    try:
        value = float(value)
    except OverflowError:
        raise MeaninglessError from None
    if math.isinf(value):
        raise MeaninglessError
    return value


def _setting(value, allowed):
    if isinstance(value, bool | np.bool_):
        raise MeaninglessError
    number = _number(value)
    if number is None or math.isnan(number):
        return None
    if not allowed(number):
        raise MeaninglessError
    return number


def _whole(value, low, high):
    number = _setting(value, lambda x: x == int(x) and abs(x) <= 2**53 and low <= x <= high)
    return None if number is None else int(number)


def _token_ids(value):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple) or not all(type(token) is int for token in value):
        raise MeaninglessError
    if not value or not all(token in SIGNS for token in value):
        raise MeaninglessError
    return list(value)


def _label(value):
    if isinstance(value, bool | np.bool_):
        raise MeaninglessError
    if isinstance(value, str):
        if "\ud800" in value:
            raise MeaninglessError
        return value
    number = value if isinstance(value, int) else _number(value)
    if number is None or number != number:
        return ""
    if number != int(number):
        raise MeaninglessError
    return str(int(number))
