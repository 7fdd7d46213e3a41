"""Texts from outside, made fit to be shown: nothing invisible, nothing endless."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

#: what the texts of one report may take together, in bytes of HTML
TEXT_BUDGET = 300_000

#: no single text is shown beyond this many characters
MAX_CHARACTERS = 4_000

_ESCAPED = {"<": 4, ">": 4, "&": 5, '"': 5, "'": 5}

# Joiners that emoji and the scripts of India and Persia are written with.
_KEPT = "\n\t\u200c\u200d"


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a text, and how many characters there were."""

    text: str
    length: int
    shown: int

    @property
    def cut(self) -> bool:
        return self.shown < self.length


def visible(text: str) -> str:
    """The text with every character that shows nothing, or moves its neighbours, spelled out.

    Control and format characters (direction overrides, zero-width marks), surrogates without
    partner and non-characters become ``⟨U+202E⟩``. Line breaks are brought to one form.
    """
    return "".join(_spelled(_unix(text)))


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _spelled(text: str) -> list[str]:
    return [char if _shown(char) else f"⟨U+{ord(char):04X}⟩" for char in text]


def _shown(char: str) -> bool:
    if char in _KEPT:
        return True
    # Cn: not assigned, non-characters among them, which HTML forbids.
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def one_line(text: object, limit: int) -> str:
    """A label: visible, on one line, with an ellipsis where it was cut.

    At most ``limit`` characters, and ``2 * limit`` bytes of HTML.
    """
    text = str(text)
    # Cut first: a text of megabytes is not walked through for its first words.
    words = " ".join(visible(text[: 4 * limit]).split())
    costs = accumulate(_cost(char) for char in words)
    fitting = min(limit, sum(1 for total in costs if total <= 2 * limit))
    if fitting < len(words) or len(text) > 4 * limit:
        return words[: min(fitting, limit - 1)].rstrip() + "…"
    return words


def excerpts(texts: Sequence[str | None], budget: int = TEXT_BUDGET) -> list[Excerpt | None]:
    """The beginnings of the texts that fit the budget together.

    Short texts are shown whole; what is left is shared evenly by the long ones.
    """
    whole = [None if text is None else _unix(text) for text in texts]
    # A character takes at least a byte, so that no text is shown beyond this: the rest need not be
    # looked at.
    lengths = [0 if text is None else min(len(text), MAX_CHARACTERS) for text in whole]
    most = math.ceil(min(_even_limit(lengths, budget), MAX_CHARACTERS))
    heads = [[] if text is None else _spelled(text[:most]) for text in whole]
    costs = [[_cost(piece) for piece in head] for head in heads]
    limit = _even_limit([sum(cost) for cost in costs], budget)
    found: list[Excerpt | None] = []
    for text, head, cost in zip(whole, heads, costs, strict=True):
        if text is None:
            found.append(None)
            continue
        shown = sum(1 for total in accumulate(cost) if total <= limit)
        found.append(Excerpt("".join(head[:shown]), len(text), shown))
    return found


def _cost(piece: str) -> int:
    return _ESCAPED.get(piece) or len(piece.encode())


def _even_limit(sizes: Sequence[int], budget: int) -> float:
    """The largest L with sum of min(size, L) <= budget."""
    left = float(budget)
    rest = sorted(sizes)
    for place, size in enumerate(rest):
        share = left / (len(rest) - place)
        if size > share:
            return share
        left -= size
    return math.inf


def number(value: float, digits: int = 3) -> str:
    """A number for a table: minus sign, powers of ten, and a dash for what is not known."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        text = f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def pairs(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values of settings, nested ones as ``outer.inner``, as labels."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += pairs(value, f"{name}.")
        else:
            found.append((one_line(name, 80), one_line(_plain(value), 600)))
    return found


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(part) for part in value)
    return str(value)
