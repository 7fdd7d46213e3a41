"""How completions that were drawn elsewhere are read: the options of a log."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from passgrad.errors import UserError
from passgrad.lm.rollouts import Sampling
from passgrad.plain_yaml import Scalar, read_mapping

Layout = Literal[
    "auto", "passgrad", "plain", "verl", "trl", "batch", "generate", "lm-eval", "evalplus"
]
LAYOUTS: tuple[str, ...] = get_args(Layout)

LAW = ("temperature", "top_p", "top_k")
#: settings of a request that bend the law, with the values that do not
BENDING: Mapping[str, tuple[Any, ...]] = {
    "min_p": (0,),
    "typical_p": (1,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "length_penalty": (1, 0),
    "no_repeat_ngram_size": (0,),
    "logit_bias": (),
    "min_tokens": (0,),
    "min_new_tokens": (0,),
    "allowed_token_ids": (),
    "bad_words": (),
    "thinking_token_budget": (),
    "watermarking": (False,),
}
_LIMITS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_gen_toks")
_OTHER = ("seed", "quantised", "quantization", "chat_template_kwargs", *_LIMITS)


@dataclass(frozen=True)
class LogSettings:
    """What is said of the law of a log that the log itself does not say."""

    law: Mapping[str, float] = field(default_factory=dict)
    """``temperature``, ``top_p``, ``top_k``, ``seed``, ``max_new_tokens``."""
    bent: tuple[str, ...] = ()
    """Other settings that bend the law, in words."""
    quantised: bool | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is called with."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """How rollouts drawn elsewhere are read; each needs ``rollouts``.

    :raises UserError: For an unknown layout or setting, a threshold that is no number, a count
        below 1, and a file of settings that cannot be read.
    """

    reward: str | Sequence[str] | Mapping[str, float] | None = None
    """The column of rewards, NAME or NAME=WEIGHT; the sum of several."""
    threshold: float | None = None
    """A reward above this is right; None wants 0 and 1."""
    rollout_step: int | None = None
    """Takes the completions of this training step alone."""
    per_prompt: int | None = None
    """Takes the first so many completions of each prompt, and leaves out prompts with fewer."""
    layout: Layout = "auto"
    """Which program wrote the log; "auto" tells by the columns."""
    settings: Mapping[str, Any] | Sampling | str | Path | Sequence[str] | None = None
    """What the log was drawn with and does not say: KEY=VALUE, or a YAML or JSON file of them;
    temperature, top_p, top_k, seed, max_tokens, quantised, chat_template_kwargs, and others that
    bend the law."""
    requests: str | Path | None = None
    """The input file of a batch, for its prompts and settings."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(
                f"unknown layout {self.layout!r}{_meant(str(self.layout), LAYOUTS)}; "
                f"the layouts are {', '.join(LAYOUTS)}"
            )
        if self.threshold is not None and (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, int | float)
            or not math.isfinite(self.threshold)
        ):
            raise UserError(f"threshold is {self.threshold!r}; give a finite number")
        if self.per_prompt is not None and (
            isinstance(self.per_prompt, bool)
            or not isinstance(self.per_prompt, int)
            or self.per_prompt < 1
        ):
            raise UserError(f"per_prompt is {self.per_prompt!r}; give a whole number of at least 1")
        self.weights({})
        self.stated()

    def weights(self, columns: Mapping[str, Any] | Sequence[str]) -> dict[str, float]:
        """The columns that are summed, with their weights; empty where none is named.

        :param columns: Those of the file, where a name may have an equals sign in it.
        """
        if self.reward is None:
            return {}
        if isinstance(self.reward, Mapping):
            named: dict[str, Any] = dict(self.reward)
        else:
            named = {}
            for text in [self.reward] if isinstance(self.reward, str) else self.reward:
                name, equals, weight = str(text).rpartition("=")
                if text in columns or not equals:
                    name, weight = str(text), "1"
                if name in named:
                    raise UserError(f"reward names {name!r} twice; name each column once")
                named[name] = weight
        weights = {}
        for name, weight in named.items():
            try:
                weights[name] = float(weight)
            except (TypeError, ValueError):
                raise UserError(
                    f"reward gives {name!r} the weight {weight!r}; write NAME or NAME=NUMBER"
                ) from None
            if not math.isfinite(weights[name]) or not name:
                raise UserError(f"reward is {self.reward!r}; write NAME or NAME=NUMBER")
        if not weights:
            raise UserError("reward names no column; write NAME or NAME=NUMBER")
        return weights

    def stated(self) -> LogSettings:
        """The settings, read."""
        given = self.settings
        if given is None:
            return LogSettings()
        if isinstance(given, Sampling):
            return LogSettings(asdict(given))
        if isinstance(given, Mapping):
            return _sorted(dict(given), "settings")
        flat: dict[str, Any] = {}
        for text in [given] if isinstance(given, str | Path) else given:
            name, equals, value = str(text).partition("=")
            if not equals or Path(text).is_file():
                flat |= _file(Path(text))
            else:
                flat[name.strip()] = _value(name.strip(), value)
        return _sorted(flat, "settings")


def _value(name: str, text: str) -> Any:
    """What KEY=VALUE gives: JSON, or one of the words that stand for its constants."""
    words = {"none": None, "yes": True, "no": False}
    try:
        return json.loads(text)
    except ValueError:
        lowered = text.strip().lower()
        if lowered in words or lowered in ("true", "false", "null"):
            return words[lowered] if lowered in words else json.loads(lowered)
        if name == "quantization":
            return text
        raise UserError(
            f"settings: {name} is {text!r}; give a number, true or false, or JSON"
        ) from None


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"settings: {str(path)!r} is no file and not KEY=VALUE; give a YAML or JSON file, or "
            "such as temperature=1"
        )
    return {name: _typed(name, value) for name, value in read_mapping(path).items()}


def _typed(name: str, value: Any) -> Any:
    if isinstance(value, Scalar):
        return str(value) if value.quoted else None if value.null else _value(name, value)
    if isinstance(value, list):
        return [_typed(name, part) for part in value]
    return {key: _typed(key, part) for key, part in value.items()}


def _sorted(flat: Mapping[str, Any], where: str) -> LogSettings:
    law: dict[str, float] = {}
    bent = []
    quantised: bool | None = None
    template: Mapping[str, Any] = {}
    for name, value in flat.items():
        if name in (*LAW, "seed", *_LIMITS):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{where}: {name} is {value!r}; give a number")
            law["max_new_tokens" if name in _LIMITS else name] = value
        elif name in BENDING:
            if bends(name, value):
                bent.append(f"{name} {value}")
        elif name == "quantised":
            if value is not None and not isinstance(value, bool):
                raise UserError(f"{where}: quantised is {value!r}; give true or false")
            quantised = value
        elif name == "quantization":
            quantised = str(value).lower() not in ("", "none", "false")
        elif name == "chat_template_kwargs":
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: chat_template_kwargs is {value!r}; give an object")
            template = dict(value)
        else:
            names = (*LAW, *_OTHER, *BENDING)
            raise UserError(
                f"{where} has no {name!r}{_meant(name, names)}; the settings are {', '.join(names)}"
            )
    check_law(law, where)
    return LogSettings(law, tuple(bent), quantised, template)


def check_law(law: Mapping[str, float | None], where: str) -> None:
    """Raise a UserError for settings that no engine takes."""
    temperature, top_p, top_k = (law.get(name) for name in LAW)
    if temperature is not None and not 0 <= temperature < math.inf:
        raise UserError(f"{where}: temperature is {temperature}; give 0 or a positive number")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"{where}: top_p is {top_p}; give a number in (0, 1]")
    if top_k is not None and (top_k != int(top_k) or not -1 <= top_k < 2**31):
        raise UserError(f"{where}: top_k is {top_k}; give a whole number, 0 or -1 for none")
    limit, seed = law.get("max_new_tokens"), law.get("seed")
    if limit is not None and (limit != limit or limit != int(limit) or not 1 <= limit < 2**31):
        raise UserError(f"{where}: max_new_tokens is {limit}; give a whole number of at least 1")
    if seed is not None and (seed != int(seed) or not -(2**63) <= seed < 2**63):
        raise UserError(f"{where}: seed is {seed}; give a whole number of 64 bits")


def bends(name: str, value: Any) -> bool:
    """Whether a setting of :data:`BENDING` has a value that bends the law."""
    return value is not None and value not in ([], {}, "") and value not in BENDING[name]


def _meant(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {close[0]!r}?" if close else ""
