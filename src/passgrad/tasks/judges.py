"""Functions that judge, in the forms that people have them, as one form.

``f(completion, answer)``; verl's ``compute_score(data_source, solution_str, ground_truth,
extra_info)``; TRL's ``reward(prompts, completions, **columns)``, of one completion at a time. The
first two return a bool, 1, 0 or -1, or a dict with ``score`` or ``acc``; the third a list of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: the forms, for an error
FORMS = (
    "give f(completion, answer), verl's compute_score(data_source, solution_str, ground_truth, "
    "extra_info) or TRL's reward(completions, answer, **kwargs)"
)
# Under these names a data set has its references.
_ANSWERS = ("answer", "answers", "solution", "ground_truth", "target", "reference", "label", "gold")
# How much of a message or of what was printed is kept.
_SHOWN = 160


@dataclass(frozen=True)
class About:
    """What a judge may ask for beside completion and reference."""

    prompt: str = ""
    group: str = ""


Judge = Callable[[str, Any, About], Any]


def two(function: Callable[[str, Any], Any]) -> Judge:
    """A function of completion and reference."""
    return lambda completion, reference, about: function(completion, reference)


def adapted(function: Callable[..., Any]) -> Judge:
    """A judge that calls a function as it wants to be called.

    :raises TypeError: If its parameters have none of the forms.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions of C have none
        return two(function)
    wanted = signature.parameters
    if {"solution_str", "ground_truth"} <= wanted.keys():
        return _by_name(function, wanted, _verl)
    if "completions" in wanted:
        return _in_trl(function, wanted)
    try:
        signature.bind("", "")
    except TypeError:
        raise TypeError(f"the parameters {signature} are none of the forms: {FORMS}") from None
    return two(function)


def _verl(completion: str, reference: Any, about: About) -> dict[str, Any]:
    return {
        "data_source": about.group, "solution_str": completion, "ground_truth": reference,
        "extra_info": {},
    }  # fmt: skip


def _trl(completion: str, reference: Any, about: About) -> dict[str, Any]:
    return {
        "prompts": [about.prompt], "completions": [completion], "completion_ids": [[]],
        "trainer_state": None, "log_extra": _ignore, "log_metric": _ignore,
        **{name: [reference] for name in _ANSWERS},
    }  # fmt: skip


def _ignore(*_: Any, **__: Any) -> None:
    pass


def _by_name(
    function: Callable[..., Any],
    wanted: Mapping[str, inspect.Parameter],
    values: Callable[[str, Any, About], dict[str, Any]],
) -> Judge:
    """A judge that passes what a function names; all, where it takes any name.

    :raises TypeError: If it requires something that is not there.
    """
    there = values("", "", About())
    kinds = {parameter.kind for parameter in wanted.values()}
    any_name = inspect.Parameter.VAR_KEYWORD in kinds
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for name, parameter in wanted.items():
        required = parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
        if required and name not in there:
            raise TypeError(f"the argument {name!r} is not known here: {FORMS}")

    def call(completion: str, reference: Any, about: About) -> Any:
        given = values(completion, reference, about)
        return function(**{k: v for k, v in given.items() if any_name or k in wanted})

    return call


def _in_trl(function: Callable[..., Any], wanted: Mapping[str, inspect.Parameter]) -> Judge:
    """Completions as text, or as messages where the function takes them for such."""
    as_text = _by_name(function, wanted, _trl)

    def messages(completion: str, reference: Any, about: About) -> dict[str, Any]:
        return _trl(completion, reference, about) | {
            "prompts": [[{"role": "user", "content": about.prompt}]],
            "completions": [[{"role": "assistant", "content": completion}]],
        }

    as_messages = _by_name(function, wanted, messages)
    in_chat = False

    def call(completion: str, reference: Any, about: About) -> Any:
        nonlocal in_chat
        if in_chat:
            return as_messages(completion, reference, about)
        try:
            return as_text(completion, reference, about)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            try:
                value = as_messages(completion, reference, about)
            except Exception:
                raise error from None
            in_chat = True
            return value

    return call


def verdict(judge: Judge, completion: str, reference: Any, about: About) -> tuple[float, str]:
    """(reward, reason): the reason is empty when the judge said right or wrong, and otherwise says
    what it did, with its message and the beginning of what it printed.
    """
    heard = _Heard()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            value = judge(completion, reference, about)
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            score = _score(value)
            if score is not None:
                return score, ""
            reason = (
                f"the verifier returned {repr(value)[:60]}, which is neither 0 nor 1, nor a score "
                "that is"
            )
    except BaseException as error:  # SystemExit and MemoryError too: nothing stops the others
        message = " ".join(str(error).split())[:_SHOWN] if isinstance(error, Exception) else ""
        reason = f"the verifier raised {type(error).__name__}" + (message and f": {message}")
    printed = " ".join("".join(heard.parts).split())[:_SHOWN]
    return 0.0, reason + (printed and f"; it printed {printed!r}")


async def _awaited(value: Any) -> Any:
    return await value


def _score(value: Any) -> float | None:
    """1 or 0 for what a judge returned; None where it is no verdict."""
    if isinstance(value, Mapping):
        value = value["acc"] if "acc" in value else value.get("score")
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if not isinstance(value, (bool, int, float)) or value not in (1, 0, -1):
        return None
    return float(value == 1)


class _Heard(io.TextIOBase):
    """The beginning of what is printed."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = 2 * _SHOWN

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        self.parts.append(text[: self.room])
        self.room -= min(len(text), self.room)
        return len(text)
