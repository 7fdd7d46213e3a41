r"""What a completion gives as its answer: the text that ``math`` compares with a reference.

In this order: what stands in the last box (``\boxed``, ``\fbox``); a completion that is a formula
and nothing else; the last mathematical expression, in ``$`` signs or plain. Where the reference is
words, a choice or a date, the last statement "the answer is ..." or else the last line stands in
for the expression.
"""

from __future__ import annotations

import re

from passgrad.tasks.answers.units import unit_of

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
_THINKING = re.compile(r"</think(?:ing)?>")
_SPAN = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)"
    r"|(?<!\\)\$(?P<d>[^$\n]*?(?:\\\$[^$\n]*?)*)(?<!\\)\$"
    r"|(?P<e>\\begin\{(?P<name>[a-zA-Z]*matrix|array|cases)\}.+?\\end\{(?P=name)\})",
    re.DOTALL,
)
_JOINT = re.compile(r"\s*(?:,|,?\s*(?:and|or))\s*\Z")
_DIGITS = r"\d+(?:[,.\u2009\u202f\u00a0'_]\d+|\\,\d{3}|\{,\}\d{3}| \d{3}(?!\d))*"
_NUMBER = rf"(?:{_DIGITS}|\.\d+)(?:[eE][+-]?\d+)?[½⅓⅔¼¾⅕⅛⁰¹²³⁴⁵⁶⁷⁸⁹]*"
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_COMMAND = (
    rf"\\(?!(?:times|cdot|div|pm|le|ge|leq|geq|approx)(?![a-zA-Z]))[a-zA-Z]+(?:\[\d+\])?"
    rf"(?:\s*{_BRACES}){{0,3}}"
)
_LETTER = r"(?<![a-zA-Z\\'’])[a-zA-Zπθ∞√](?![a-zA-Z'’])"
_POWER = rf"(?:\^\\circ|\^\s*(?:{_BRACES}|-?\w+|\([^()\s]*\))|\s?\\?%|\s?percent\b|°)*"
_UNIT = rf"(?:{_NUMBER}(?:\s\d+/\d+)?(?:{_COMMAND}|{_LETTER})*|(?:{_COMMAND}|{_LETTER})+|[½⅓⅔¼¾⅕⅛])"
_ATOM = rf"[+\-−±]?\s?[(\[]*[+\-−]?{_UNIT}{_POWER}(?:[)\]]+{_POWER})?"
_SIGN = r"(?:\*\*|[-+*/^×·÷=<>≤≥≈−:]|\\(?:times|cdot|div|pm|le|ge|leq|geq|approx)(?![a-zA-Z]))"
_RUN = re.compile(rf"(?<![\w\\^.]){_ATOM}(?:\s*{_SIGN}\s*{_ATOM})*(?:\s?[apAP]\.?[mM]\b)?")
_UNFINISHED = re.compile(
    rf"\s*(?:{_SIGN}|\\(?:frac|sqrt|text|left)?|(?<![a-zA-Z\\])(?:and|or))\s*\Z"
)
_STATEMENT = re.compile(
    r"\b(?:answer|result|solution|choice|option)s?\b[^.\n:=]{0,40}?"
    r"(?:\b(?:is|are|be)\b|:|=)[ \t]*(?P<said>\S[^\n]*)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<=\w\w)(?<!\b[SDM][tr])(?<!\bM[ts])(?<!\bMrs)(?<!\b[JS]r)\.(?:\s|\Z)|[!?](?:\s|\Z)"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_BOLD = re.compile(r"(?<![\w)*])(\*{1,3}|`)(?=[^\s*])(.+?)(?<=[^\s*])\1(?![\w(*])")
_CHOICE = re.compile(r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+(?P<said>\(?[A-Z]\)?)(?![\w'’])")
_RAISED = re.compile("[²³¹⁰⁴⁵⁶⁷⁸⁹ⁿ⁻⁺½⅓⅔¼¾⅕⅛]")


def without_thinking(completion: str) -> str | None:
    """What follows the last ``</think>``; None where a thinking block is still open."""
    text = _THINKING.split(completion)[-1]
    return None if "<think>" in text else text


def boxed(text: str) -> str | None:
    """What stands in the last box that is not empty; None without one.

    :raises UnfinishedError: If the last box is not closed.
    """
    last, place = None, 0
    while (box := _BOX.search(text, place)) is not None:
        place = box.end()
        if text[place : place + 1] == "{":
            end = _closing(text, place)
            if end is None:
                raise UnfinishedError("the last box is not closed")
            content, place = text[place + 1 : end], end + 1
        else:
            bare = re.compile(r"[^\s$\\]+(?:\\[a-zA-Z]+[^\s$\\]*)*|\\[a-zA-Z]+[^\s$]*").match(
                text, place
            )
            content = bare.group().rstrip(".,;:") if bare else ""
            place = max(place, bare.end() if bare else place)
        last = content if content.strip() else last
    return last


class UnfinishedError(ValueError):
    """The completion ends within its answer."""


def answer_text(
    completion: str,
    *,
    words: bool = False,
    several: bool = False,
    like: re.Pattern[str] | None = None,
) -> str | None:
    """The answer of a completion; None where there is none.

    :param words: Whether the reference is words or a choice.
    :param like: What a date or a time looks like, if the reference is one: the last of them.
    :param several: Whether the reference is a list: plain numbers joined by commas and words are
        one answer then.
    """
    text = without_thinking(completion)
    if text is None:
        return None
    try:
        box = boxed(text)
    except UnfinishedError:
        return None
    if box is not None:
        return box
    text = re.sub(r"(?m)^[#>\s]+", "", _BOLD.sub(r"\2", text))
    text = text.strip()
    if not text:
        return None
    if like is not None:
        places = [found.group() for found in like.finditer(text)]
        return places[-1] if places else None
    if words:
        return _said(text)
    text = re.sub(r"^A\s?:\s|\s*\\\\\s*\Z", "", text).strip()
    text = re.sub(r"(?<![\\a-zA-Z])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|inf|infinity)(?![a-zA-Z])", _named, text)
    if _alone(text):
        return None if _UNFINISHED.search(text) and not text.endswith("$") else text
    return _last_expression(text, several)


def _named(found: re.Match[str]) -> str:
    return r"\pi" if found.group() == "pi" else r"\infty"


def _closing(text: str, start: int) -> int | None:
    """Where the brace that opens at ``start`` is closed."""
    depth, place = 0, start
    for sign in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign.group(), 0)
        if depth == 0 and sign.group() == "}":
            place = start + sign.start()
            return place
    return None


def _alone(text: str) -> bool:
    """Whether a completion is one line without words: a formula and nothing else."""
    bare = re.sub(r"\\[a-zA-Z]+\s*(?:\{[^{}]*\})?", " ", text) if "\\" in text else text
    bare = _RAISED.sub(" ", bare)
    return "\n" not in text and len(text) < 200 and not _WORD.search(bare)


def _said(text: str) -> str:
    """What a text says where words are asked for."""
    statements = [*_STATEMENT.finditer(text), *_CHOICE.finditer(text)]
    if statements:
        statement = max(statements, key=lambda found: found.start("said"))
        said = statement["said"].strip()
        end = _SENTENCE_END.search(said)
        return said[: end.start()] if end else said
    lines = [line.strip() for line in text.splitlines() if line.strip(" *_-#`")]
    last = lines[-1] if lines else text
    spans = list(_spans(last))
    if spans and not last[spans[-1].end() :].strip(" .*"):
        return _content(spans[-1])
    return last


def _spans(text: str) -> list[re.Match[str]]:
    """Marked formulas, without amounts of money that only look like one."""
    spans, place = [], 0
    while (span := _SPAN.search(text, place)) is not None:
        inner = span["d"]
        behind = text[span.end() : span.end() + 1]
        money = inner is not None and re.match(r"\d", inner) is not None
        if inner is not None and (
            not inner.strip() or (money and (inner[-1:].isspace() or behind.isdigit()))
        ):
            place = span.start() + 1
            continue
        spans.append(span)
        place = span.end()
    return spans


def _content(span: re.Match[str]) -> str:
    return next(span[name] for name in ("a", "b", "c", "d", "e") if span[name] is not None)


def _last_expression(text: str, several: bool) -> str | None:
    """The last formula, marked or plain; None if the text ends within one."""
    spans = _spans(text)
    tail_start = spans[-1].end() if spans else 0
    tail = text[tail_start:]
    runs = [run for run in _RUN.finditer(tail) if re.search(r"[\d\\π∞√½⅓⅔¼¾⅕⅛]", run.group())]
    if runs:
        last = runs[-1]
        if _UNFINISHED.match(tail, last.end()):
            return None
        first = last
        if several:
            for run in reversed(runs[:-1]):
                if not _JOINT.match(tail[run.end() : first.start()]):
                    break
                first = run
        money = re.search(r"(?:\\?\$|[€£¥₹])\s?\Z", tail[: first.start()])
        start = money.start() if money else first.start()
        return _matched(tail[start : last.end()]) + _following(tail, last.end())
    if not spans:
        return None
    if re.fullmatch(rf"\s*{_SIGN}\s*", tail):
        return None
    first_span = len(spans) - 1
    while first_span and _JOINT.match(
        text[spans[first_span - 1].end() : spans[first_span].start()]
    ):
        first_span -= 1
    percent = "%" if re.match(r"\s?(?:\\?%|percent\b)", tail) else ""
    return ", ".join(_content(span) for span in spans[first_span:]) + percent


def _matched(run: str) -> str:
    """A plain expression without a bracket at its end that opens before it, or at its beginning
    that closes behind it.
    """
    while run.endswith((")", "]")) and run.count("(") + run.count("[") < run.count(")") + run.count(
        "]"
    ):
        run = run[:-1].rstrip()
    while run.startswith(("(", "[")) and run.count("(") + run.count("[") > run.count(
        ")"
    ) + run.count("]"):
        run = run[1:].lstrip()
    return run


def _following(tail: str, place: int) -> str:
    """The unit behind a plain number, if what follows is one word."""
    word = re.compile(r"\s?[a-zA-Z]+(?:\^\{?\d\}?|[²³])?(?:/[a-zA-Z]+)?").match(tail, place)
    return word.group() if word and unit_of(word.group()) else ""
