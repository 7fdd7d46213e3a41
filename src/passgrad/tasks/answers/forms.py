r"""How an answer is read: as a number, a list, an equation, words, or a formula.

A number is read exactly, in any of these notations: ``1000``, ``1,000``, ``1 000`` (any space),
``1\,000``, ``1{,}000``, ``1.000,5``, ``1e3``, ``10^3``, ``3 \times 10^5``, ``1/2``, ``\frac12``,
``2 1/2``, ``½``, ``50%``, ``0.\overline{3}``, digits of any script, behind a currency or before a
unit. A comma with no more than two or with four digits behind it separates: ``1,5`` is a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from passgrad.tasks.answers.tidy import CLOSE, OPEN, tidy
from passgrad.tasks.answers.units import CURRENCIES, unit_of

# Beyond these a number is compared as text: its value would take seconds to compute.
_LONGEST, _LARGEST_POWER = 1000, 5000

_INTEGER = r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+|(?:'\d{3})+|(?:_\d{3})+)(?!\d)|\d+"
_DECIMAL = (
    rf"(?:[1-9]\d{{0,2}}(?:(?:\.\d{{3}})+|(?: \d{{3}})+),\d+"
    rf"|[1-9]\d{{0,2}}(?:\.\d{{3}}){{2,}}(?![\d.])"
    rf"|(?:{_INTEGER})(?:\.\d*)?|\.\d+)"
)
_POWER = r"10 ?(?:\^|\*\*) ?\{?(?P<power>[+-]?\d+)\}?"
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?(?:"
    rf"(?:(?P<whole>{_INTEGER}) ?)?\\frac ?(?:\{{ ?(?P<over>-?(?:{_DECIMAL})) ?\}}|(?P<over1>\d)) ?"
    rf"(?:\{{ ?(?P<under>{_DECIMAL}) ?\}}|(?P<under1>\d))"
    rf"|(?P<whole2>\d+) (?P<over2>\d+) ?/ ?(?P<under2>\d+)"
    rf"|(?P<over3>{_DECIMAL}) ?/ ?(?P<under3>{_DECIMAL})"
    rf"|{_POWER.replace('power', 'power1')}"
    rf"|(?P<digits>{_DECIMAL})(?P<repeated>\\overline ?\{{\d+\}})?"
    rf"(?:[eE](?P<exponent>[+-]?\d+)| ?(?:\\times|\\cdot|\*|x) ?{_POWER})?(?![eE][+-]?\d)"
    r")"
)
CLOCK = re.compile(r"\d{1,4}(?: ?: ?\d{1,4})+(?: ?[ap]\.?m\.?)?", re.IGNORECASE)
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}")
_AMOUNT = re.compile(
    rf"([^{OPEN}]*[\w)}}\]!']) ?"
    rf"((?:{OPEN}[^{CLOSE}]+{CLOSE}|(?<= )[a-zA-Z/ ]{{2,}})(?: ?\^\{{?\d\}}?)?)"
)
_LARGE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Number:
    """A value; ``places`` behind the point and ``significant`` digits if it is written as a
    decimal.
    """

    value: Fraction
    places: int | None = None
    significant: int = 0
    unit: str = ""


@dataclass(frozen=True)
class Many:
    """A list; its ``mark`` is the pair of brackets. Without one, in braces or as a union the
    order does not matter.
    """

    mark: str
    items: tuple[Reading, ...]


@dataclass(frozen=True)
class Equation:
    """``left`` = ``right``; ``text`` is the whole."""

    left: str
    right: Reading
    text: str


@dataclass(frozen=True)
class Words:
    """Text, a choice, a date, a time, a ratio, a sequence with an ellipsis."""

    text: str


@dataclass(frozen=True)
class Formula:
    """LaTeX of an expression or a relation."""

    latex: str


Reading = Number | Many | Equation | Words | Formula


def read(text: str) -> Reading | None:
    """What an answer is; None for an empty one."""
    return _read(tidy(text))


def choice_of(text: str) -> str:
    """The letter of a choice such as "B", "(B)", "B." or "B) Paris"; empty for another text."""
    found = re.match(
        r"(?:option|choice|answer)? ?\(?([a-z])\)?(?:$|[.):,]|(?<=\)) )",
        text.replace(OPEN, "").replace(CLOSE, ""), re.IGNORECASE,
    )  # fmt: skip
    return found.group(1).lower() if found else ""


def _read(text: str) -> Reading | None:
    text = text.strip()
    bare = text.replace(OPEN, "").replace(CLOSE, "").strip()
    if not bare:
        return None
    if len(bare) > _LONGEST:
        return Words(_folded(bare))
    number = _number(text)
    if number is not None:
        return number
    if re.search(r"\\[lcvd]?dots|\.\.\.", bare):
        return Words(re.sub(r"\\[lcvd]?dots|\.\.\.", "...", bare).replace(" ", ""))
    if CLOCK.fullmatch(bare) or DATE.fullmatch(bare):
        shown = re.sub(r"(?<!\d)0+(?=\d)", "", _folded(bare).replace(" ", ""))
        return Words(re.sub(r"([ap])\.?m$", r"\1m", shown))
    return _matrix(text) or _list(text) or _single(text, bare)


def _single(text: str, bare: str) -> Reading | None:
    sides = _sides(text)
    if sides is not None:
        right = _read(sides[1])
        return Equation(_folded(sides[0]), right, bare) if right is not None else None
    if re.search(r"\\pm(?![a-z])", bare) and bare.count("\\pm") == 1:
        items = tuple(_read(bare.replace("\\pm", sign).lstrip("+ ")) for sign in "+-")
        return Many("", tuple(item for item in items if item is not None))
    member = re.fullmatch(r"[a-zA-Z] ?\\in (.+)", bare)
    if member:
        return _read(member.group(1))
    amount = _AMOUNT.fullmatch(text)
    if (
        amount
        and not _LETTERS.search(re.sub(r"\\[a-zA-Z]+", " ", amount[1]))
        and unit_of(amount[2].replace(OPEN, "").replace(CLOSE, ""))
    ):
        return _read(amount[1])
    stripped = re.sub(r"\\[a-zA-Z]+", " ", bare)
    single = re.fullmatch(r"\(?([a-zA-Z])\)?[.):]?", bare)
    if single:
        return Words(single.group(1).lower())
    if _LETTERS.search(stripped):
        return Words(_folded(bare))
    return Formula(bare)


def _folded(text: str) -> str:
    bare = text.replace(OPEN, "").replace(CLOSE, "")
    return " ".join(re.sub(r"[\"“”*`]", "", bare).split()).casefold().strip(" .,;:'")


def _sides(text: str) -> tuple[str, str] | None:
    """What stands before and behind the last "=" outside brackets."""
    place = None
    for found in _outside(text, re.compile(r"(?<![<>!:\\=])=(?!=)|\\approx(?![a-z])")):
        place = found
    return None if place is None else (text[: place[0]].strip(), text[place[1] :].strip())


def _outside(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where a pattern stands outside all brackets."""
    depth, inside = 0, [0] * (len(text) + 1)
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        inside[place + 1] = depth
    return [found.span() for found in pattern.finditer(text) if inside[found.start()] == 0]


def _pieces(text: str, pattern: re.Pattern[str]) -> list[str]:
    cuts = _outside(text, pattern)
    starts = [0, *(end for _, end in cuts)]
    ends = [*(start for start, _ in cuts), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


_THOUSANDS = re.compile(r"(?<![\d,.])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,]\d|\d)")
_SEPARATOR = re.compile(
    rf",|;|{OPEN} ?(?:,? ?and|,? ?or) ?{CLOSE}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])"
)
_UNION = re.compile(r"\\cup(?![a-z])")


def _list(text: str) -> Reading | None:
    joined = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
    for mark, pattern, whole in (("", _SEPARATOR, joined), ("union", _UNION, text)):
        pieces = [piece for piece in _pieces(whole, pattern) if piece]
        if len(pieces) > 1:
            items = tuple(item for item in map(_read, pieces) if item is not None)
            if mark == "" and any(isinstance(item, Words) and " " in item.text for item in items):
                continue  # a sentence with a comma
            return Many(mark, items)
    bare = text.replace(OPEN, "").replace(CLOSE, "").strip()
    for left, right in ((r"\{", r"\}"), ("{", "}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")):
        inner = bare[len(left) : len(bare) - len(right)]
        if not (bare.startswith(left) and bare.endswith(right)) or not _balanced(inner):
            continue
        pieces = _pieces(inner, re.compile("[,;]"))
        if len(pieces) == 1 and left == r"\{":
            return _read(inner)
        items = tuple(item for item in map(_read, pieces) if item is not None)
        if len(pieces) > 1 and len(items) == len(pieces):
            return Many("" if right in (r"\}", "}") else left + right, items)
    return None


def _balanced(inner: str) -> bool:
    depth = 0
    for sign in inner:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _matrix(text: str) -> Many | None:
    found = re.fullmatch(
        r"\\begin\{(?P<name>(?:[pbBvV]|small)?matrix|array)\}(?:\{[lcr|]*\})?(?P<rows>.*)"
        r"\\end\{(?P=name)\}", text, re.DOTALL,
    )  # fmt: skip
    if not found or (found["name"][0] in "vV"):
        return None
    rows = [row for row in re.split(r"\\\\", found["rows"]) if row.strip()]
    read_rows = [tuple(_read(cell) or Words("") for cell in row.split("&")) for row in rows]
    return Many("matrix", tuple(Many("row", cells) for cells in read_rows))


def _number(text: str) -> Number | None:
    """A number with an amount's currency or unit, and nothing else."""
    currency = ""
    lead = re.match(rf"([+-]?) ?([{re.escape(CURRENCIES)}]) ?(?=[\d.])", text)
    if lead:
        currency, text = lead.group(2), lead.group(1) + text[lead.end() :]
    bracketed = re.fullmatch(r"\((.*)\)", text)
    found = _NUMBER.match(bracketed.group(1) if bracketed else text)
    if found is None or (bracketed and "," in text):
        return None
    rest = (bracketed.group(1) if bracketed else text)[found.end() :]
    scale = re.match(rf" ?{OPEN}? ?({'|'.join(_LARGE)})\b", rest)
    if scale:
        rest = rest[scale.end() :].removeprefix(CLOSE)
    percent = re.match(r" ?%", rest)
    rest = rest[percent.end() :] if percent else rest
    unit = _unit(rest)
    parts = _value(found)
    if parts is None or unit is None or (currency and unit):
        return None
    value, places, significant = parts
    if scale:
        power = _LARGE[scale[1]]
        value, places = value * 10**power, None if places is None else places - power
    if percent:
        value, places = value / 100, None if places is None else places + 2
    return Number(value, places, significant, currency or unit)


def _unit(rest: str) -> str | None:
    """The unit that a rest names, empty for one that is not known; None if it is no unit."""
    bare = rest.replace(OPEN, "").replace(CLOSE, "")
    if not bare.strip():
        return ""
    known = unit_of(bare)
    if known and (len(bare.strip()) > 1 or rest[:1] in (" ", OPEN, "°")):
        return known
    marked = rest.strip().startswith(OPEN)
    plain = re.fullmatch(r" ?[^\W\d_]{2,}[^\d=<>,;:\\+*]*(?:\^\{?\d\}?)?", bare)
    joined = re.search(r"\b(?:and|or)\b", bare)
    if (plain or (marked and re.fullmatch(r"[^\d=<>,;\\]*(?:\^\{?\d\}?)?", bare))) and not joined:
        return ""
    return None


def _value(found: re.Match[str]) -> tuple[Fraction, int | None, int] | None:
    """(value, places, significant digits) of a number; None where it has none."""
    part = found.groupdict()
    sign = -1 if part["sign"] == "-" else 1
    exponent = part["exponent"] or part["power"] or part["power1"] or "0"
    if len(exponent) > 6 or abs(int(exponent)) > _LARGEST_POWER:
        return None
    scale = Fraction(10) ** int(exponent)
    if part["power1"]:
        return sign * scale, None, 0
    if part["digits"] is None:
        return _ratio(part, sign)
    digits = _plain(part["digits"])
    whole, _, behind = digits.partition(".")
    value = Fraction(digits.rstrip(".") if whole else f"0{digits}")
    if part["repeated"]:
        period = re.sub(r"\D", "", part["repeated"])
        value += Fraction(int(period), 10 ** len(behind) * (10 ** len(period) - 1))
        return sign * value * scale, None, 0
    if not behind and exponent == "0":
        return sign * value, None, 0
    return sign * value * scale, len(behind) - int(exponent), len((whole + behind).lstrip("0"))


def _ratio(part: dict[str, str | None], sign: int) -> tuple[Fraction, None, int] | None:
    for over, under, whole in (
        ("over", "under", "whole"), ("over1", "under1", "whole"), ("over", "under1", "whole"),
        ("over1", "under", "whole"), ("over2", "under2", "whole2"), ("over3", "under3", ""),
    ):  # fmt: skip
        top, bottom = part.get(over), part.get(under)
        if top is not None and bottom is not None:
            divisor = Fraction(_plain(bottom))
            if divisor == 0:
                return None
            lead = Fraction(_plain(part.get(whole) or "0"))
            return sign * (lead + Fraction(_plain(top)) / divisor), None, 0
    return None


def _plain(digits: str) -> str:
    """Digits with a point and nothing else."""
    digits = re.sub("['_]", "", digits)
    if re.fullmatch(r"[+-]?\d+(?:[. ]\d{3})+,\d+", digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    return digits.replace(",", "").replace(" ", "")
