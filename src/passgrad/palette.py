"""The inks of the project: one colour an object, on a light and on a dark page.

An object also has a dash and a marker of its own, for readers who do not tell colours apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from passgrad.errors import UserError

Theme = Literal["light", "dark"]

#: grounds of the two pages; images are transparent, contrast is judged against these
GROUNDS: Mapping[Theme, str] = {"light": "#ffffff", "dark": "#14181e"}


@dataclass(frozen=True)
class Style:
    """Ink of one object on either page, and the second cue: dash pattern and marker."""

    light: str
    dark: str
    dash: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = "o"


_DASHED = (0, (5.0, 2.0))
_DOTTED = (0, (1.2, 1.6))
_DASH_DOT = (0, (6.0, 1.8, 1.4, 1.8))
_LONG = (0, (9.0, 2.5))

# Hues after Okabe and Ito, darkened for the white page and lightened for the dark one until text in
# these inks has a contrast of at least 4.5:1.
#: object -> its ink, dash and marker
STYLES: dict[str, Style] = {
    "pass@1": Style("#0063a8", "#5cb8f0", "-", "o"),
    "pass@k": Style("#b34700", "#ff9a57", _DASHED, "s"),
    "easy": Style("#00735a", "#36cfa0", "-", "^"),
    "hard": Style("#a03a80", "#ee9bce", _DASHED, "v"),
    "exact": Style("#24292f", "#e6e9ed", "-", "o"),
    "sampled": Style("#806000", "#e6c04a", _DOTTED, "D"),
    "population": Style("#24292f", "#e6e9ed", "-", "o"),
    "agreement": Style("#5b4bb5", "#ada2f5", "-", "P"),
    "weight": Style("#806000", "#e6c04a", _DASH_DOT, "X"),
    "vllm": Style("#0063a8", "#5cb8f0", "-", "o"),
    "transformers": Style("#b34700", "#ff9a57", _DASHED, "s"),
    "neutral": Style("#5f6872", "#9aa4af", "-", "."),
    "conflict": Style("#5f6872", "#9aa4af", _DOTTED, "x"),
    "control": Style("#5b4bb5", "#ada2f5", _DASH_DOT, "P"),
    "score": Style("#00735a", "#36cfa0", "-", "^"),
    "bootstrap": Style("#a32020", "#ff8f86", _DASHED, "P"),
    "normal": Style("#806000", "#e6c04a", _DOTTED, "D"),
    "spread": Style("#0063a8", "#5cb8f0", "-", "o"),
    "two clusters": Style("#a03a80", "#ee9bce", _DASH_DOT, "v"),
    "alike": Style("#5f6872", "#9aa4af", _LONG, "s"),
    "bound": Style("#7a4f2a", "#d9ae84", _LONG, "d"),
    "sharper bound": Style("#40607f", "#93b4d4", _DASHED, "h"),
    "arcsin": Style("#006d77", "#5ccbd6", _DASH_DOT, "^"),
    "arcsin pass@k": Style("#4f6800", "#b5d14a", _DOTTED, "v"),
    "log": Style("#7a3fb0", "#c79bf2", _LONG, "P"),
    "truncated log": Style("#a03a80", "#ee9bce", _DOTTED, "D"),
    "plug-in": Style("#5f6872", "#9aa4af", _LONG, "X"),
    "cross-fit": Style("#0063a8", "#5cb8f0", "-", "D"),
    "same-sample": Style("#a32020", "#ff8f86", _DASH_DOT, "v"),
    "pkpo": Style("#5f6872", "#9aa4af", _DOTTED, "x"),
    "pkpo-loo": Style("#7a4f2a", "#d9ae84", _DASH_DOT, "d"),
    "pkpo-loo1": Style("#0063a8", "#5cb8f0", "-", "o"),
    "pcgrad": Style("#4f6800", "#b5d14a", _DASH_DOT, "d"),
    "mixture": Style("#5f6872", "#9aa4af", _LONG, "s"),
    "annealed": Style("#806000", "#e6c04a", _DOTTED, "D"),
    "mgda": Style("#7a3fb0", "#c79bf2", _LONG, "X"),
    "cagrad": Style("#a03a80", "#ee9bce", _DOTTED, "v"),
    "constrained": Style("#00735a", "#36cfa0", "-", "^"),
    "centred-l2o": Style("#a03a80", "#ee9bce", _DASHED, "v"),
}

# Data sets of the chapter on mathematics.
STYLES |= {
    "conventions": STYLES["hard"],
    "arithmetic": STYLES["easy"],
    "chain_sum": STYLES["pass@1"],
    "gcd": STYLES["pass@k"],
    "gsm_symbolic": STYLES["agreement"],
    "gsm8k": STYLES["weight"],
    "math": STYLES["bound"],
}

# Passes over completions, in the chapter on their cost.
STYLES |= {
    "log-probabilities": STYLES["exact"],
    "gradient": STYLES["agreement"],
    "derivatives": STYLES["arcsin"],
    "decoding": STYLES["bound"],
}

# Families of the language world are the easy and the hard prompts of the theory.
STYLES["base 10"] = STYLES["easy"]
STYLES["base 9"] = STYLES["hard"]

# pass@k at a given k: one warm hue, told apart by depth, dash and marker.
_BY_K: tuple[tuple[float, Style], ...] = (
    (1, STYLES["pass@1"]),
    (3, Style("#8a5a00", "#f0c05a", _DOTTED, "D")),
    (7, Style("#a25000", "#ffae62", _DASH_DOT, "X")),
    (20, STYLES["pass@k"]),
    (math.inf, Style("#a32020", "#ff8f86", _LONG, "P")),
)


def style_of(name: str) -> Style:
    """Ink, dash and marker of an object of the book, by its name.

    ``pass@10`` and the like are known for every k. Raises :class:`UserError` for an unknown name.
    """
    if name in STYLES:
        return STYLES[name]
    match = re.fullmatch(r"pass@(\d+(?:\.\d+)?)", name)
    if match:
        k = float(match.group(1))
        return next(style for limit, style in _BY_K if k <= limit)
    raise UserError(f"no colour is set for {name!r}; known: {', '.join(STYLES)}, pass@<number>")
