"""One way of writing for all answers, before they are read."""

from __future__ import annotations

import re
import unicodedata

#: around what stood in ``\text{...}``
OPEN, CLOSE = "\ue000", "\ue001"

_SIGNS = {
    "−": "-", "﹣": "-", "‐": "-", "‑": "-", "–": "-", "×": r"\times ", "÷": "/", "∕": "/",
    "⁄": "/", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "°": r"^\circ ",
    "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "✓": "", r"\checkmark": "", r"\blacksquare": "", r"\varnothing": r"\emptyset ",
    "ℝ": r"\mathbb{R} ", "ℤ": r"\mathbb{Z} ", "…": r"\ldots ", "′": "'", "’": "'",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SPACES = re.compile(r"(?<!\\)\\[,;: >]|\\q?quad\b|~|[\s\u200b\u2060\ufeff]+")
_LOOKS = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:bf|rm|it|sf|tt|[lL]arge|LARGE|huge|Huge|small|normalsize"
    r"|displaystyle|textstyle|boldsymbol|mathstrut)(?![a-zA-Z])|\^\{\}|\\\\\s*\Z"
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{")
_FUNCTIONS = r"sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|max|min|gcd|lcm"
_FRACTIONS = re.compile(r"(\d?)\s?([¼-¾⅐-⅞])")


def tidy(text: str) -> str:
    r"""One way of writing: no marks, plain spaces and digits, ``\frac`` for all fractions."""
    text = _FRACTIONS.sub(_vulgar, text)
    text = re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found.group().translate(_RAISED)}}}", text
    )
    for sign, latex in _SIGNS.items():
        text = text.replace(sign, latex)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z]|\([^()]*\))", r"\\sqrt{\1}", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(
        str(unicodedata.decimal(sign)) if sign > "\x7f" and sign.isdecimal() else sign
        for sign in text
    )
    text = text.replace(r"\!", "").replace("{,}", ",").replace("{.}", ".")
    text = _LOOKS.sub("", text).replace(r"\degree", r"^\circ")
    text = _SPACES.sub(" ", text).strip()
    text = re.sub(r"\\(?:left|right|big|Big|bigg|Bigg)(?![a-zA-Z])\s*\.?", "", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:boxed|fbox)(?![a-zA-Z])", "", text)
    text = re.sub(r"\\([{}])", lambda found: {"{": "\ue002", "}": "\ue003"}[found.group(1)], text)
    text = _TEXT.sub(OPEN + "{", text)
    for _ in range(4):
        text = re.sub(rf"{OPEN}\{{([^{{}}]*)\}}", rf"{OPEN}\1{CLOSE}", text)
    text = text.replace("\ue002", r"\{").replace("\ue003", r"\}")
    text = re.sub(r"^[*_`\"“”]+|[*_`\"“”]+$", "", text).strip()
    inner = re.fullmatch(r"\$\$?(?!\d+(?:[.,]\d+)*$)(.*?)(?<!\\)\$\$?", text)
    text = inner.group(1).strip() if inner else text
    text = text.replace(r"\$", "$" if re.match(r"[+-]? ?\\\$", text) else "")
    lead = re.match(r"([+-]? ?)\$(?= ?\d|\.\d)", text)
    text = (lead.group() if lead else "") + text[lead.end() if lead else 0 :].replace("$", "")
    text = re.sub(r"\\[()\[\]]", "", text).replace(r"\%", "%")
    text = re.sub(r"\s?\b(?:percent|per cent|pct)\b", "%", text)
    text = re.sub(r"(?<![\\a-zA-Z])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=[ (\d\\])", r"\\\1", text)
    text = re.sub(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi", text)
    text = re.sub(r"^([+-]?) ?(?:inf|infinity)$", r"\1\\infty", text, flags=re.IGNORECASE)
    text = text.strip()
    if not re.search(r"(?:\.\.\.|[ap]\.m\.)$", text):
        text = text.rstrip(".,;: ")
    return text.strip()


def _vulgar(found: re.Match[str]) -> str:
    whole, sign = found.groups()
    over, _, under = unicodedata.normalize("NFKC", sign).partition("⁄")
    return rf"{whole}\frac{{{over}}}{{{under}}}"
