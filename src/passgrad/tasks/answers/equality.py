"""Whether an answer equals a reference, as a person would say: the verifier ``math``.

Numbers are equal when their values are. A decimal of at least six significant digits also equals
a value that is no decimal and rounds to it: 0.333333 is 1/3, and 0.33 is not. Two known units must
be the same. Lists in brackets have an order, bare ones and those in braces have none. Words are
compared as words, without case. What else there is, formulas, math-verify compares; a constant
must agree in value too.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Any

from passgrad.tasks.answers.forms import (
    CLOCK,
    DATE,
    Equation,
    Formula,
    Many,
    Number,
    Reading,
    Words,
    choice_of,
    read,
)
from passgrad.tasks.answers.text import answer_text, boxed
from passgrad.tasks.answers.tidy import tidy

_SIGNIFICANT = 6
# Digits to which constants that are no fractions have to agree.
_AGREE = 25
_NAME = re.compile(r"(?:[^\W\d_]|\\[a-z]+|[a-z][a-z ]*)(?:_\{?\w+\}?)?(?: ?\([^()]*\))?'*")
# Marks that the parser drops or does not know; with them only the same text is equal.
_TEXTUAL = re.compile(r"'|\d_|\\equiv|\\p?mod(?![a-z])|\\prime|\\overline|\\overrightarrow|\\angle")


def is_right(completion: str, answer: str) -> bool:
    """Whether the answer that a completion gives equals the reference.

    :raises ValueError: If the reference is none.
    """
    wanted = reference(answer)
    words = wanted.text if isinstance(wanted, Words) else ""
    several = isinstance(wanted, Many)
    named = isinstance(wanted, Many) and all(isinstance(item, Words) for item in wanted.items)
    like = next((one for one in (DATE, CLOCK) if one.fullmatch(words)), None)
    given = answer_text(completion, words=bool(words) or named, several=several, like=like)
    if given is None:
        return False
    if len(words) == 1 and words == choice_of(tidy(given)):
        return True
    drawn = read(given)
    return drawn is not None and equal(wanted, drawn)


@functools.lru_cache(maxsize=4096)
def reference(answer: str) -> Reading:
    """The reading of a reference.

    :raises ValueError: If it is empty, NaN, or LaTeX that cannot be read.
    """
    text = answer.rpartition("####")[2]
    box = boxed(text)
    if box is None and re.search(r"\$|\\\(|\\\[", text) and isinstance(read(text), Words):
        box = answer_text(text)  # a sentence around a formula
    wanted = read(text if box is None else box)
    if wanted is None:
        raise ValueError("the reference is empty")
    _check(wanted)
    return wanted


def _check(wanted: Reading) -> None:
    if isinstance(wanted, Words) and wanted.text in ("nan", "<na>", "nat"):
        raise ValueError("the reference is NaN, a missing value")
    if isinstance(wanted, Many):
        for item in wanted.items:
            _check(item)
    if (
        isinstance(wanted, Formula)
        and not _TEXTUAL.search(wanted.latex)
        and _parsed(wanted.latex) is None
    ):
        raise ValueError("the reference is no number, words or LaTeX that can be read")
    if isinstance(wanted, Equation):
        _check(wanted.right)


def equal(wanted: Reading, drawn: Reading) -> bool:
    """Whether two readings are the same answer; not symmetric where one is an equation."""
    if wanted == drawn:
        return True
    if isinstance(wanted, Equation) or isinstance(drawn, Equation):
        return _equations(wanted, drawn)
    if isinstance(wanted, Many) or isinstance(drawn, Many):
        return isinstance(wanted, Many) and isinstance(drawn, Many) and _lists(wanted, drawn)
    if isinstance(wanted, Words):
        return isinstance(drawn, Words) and _words(wanted.text, drawn.text)
    if isinstance(drawn, Words):
        return False
    if isinstance(wanted, Number) and isinstance(drawn, Number):
        return _numbers(wanted, drawn)
    return _formulas(wanted, drawn)


def _words(wanted: str, drawn: str) -> bool:
    """Times without morning or afternoon go with both."""
    hours = [one[:-2] for one in (wanted, drawn) if CLOCK.fullmatch(one) and one[-1] == "m"]
    return wanted == drawn or (len(hours) == 1 and hours[0] in (wanted, drawn))


def _numbers(wanted: Number, drawn: Number) -> bool:
    if wanted.unit and drawn.unit and wanted.unit != drawn.unit:
        return False
    if wanted.value == drawn.value:
        return True
    if wanted.places is not None and drawn.places is not None:
        # What adding decimals in binary leaves.
        gap, size = abs(wanted.value - drawn.value), abs(wanted.value)
        return max(wanted.significant, drawn.significant) >= 15 and gap <= size / 10**14
    return _rounds(wanted, drawn.value) or _rounds(drawn, wanted.value)


def _rounds(decimal: Number, value: Fraction) -> bool:
    """Whether a value that is no decimal itself rounds to a decimal."""
    if decimal.places is None or decimal.places < 1 or decimal.significant < _SIGNIFICANT:
        return False
    return abs(decimal.value - value) <= Fraction(1, 2 * 10**decimal.places)


def _lists(wanted: Many, drawn: Many) -> bool:
    if wanted.mark != drawn.mark or len(wanted.items) != len(drawn.items):
        return False
    if wanted.mark not in ("", "union"):
        return all(map(equal, wanted.items, drawn.items))
    left = list(drawn.items)
    for item in wanted.items:
        found = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _equations(wanted: Reading, drawn: Reading) -> bool:
    if isinstance(wanted, Equation) and isinstance(drawn, Equation):
        if wanted.left == drawn.left:
            return equal(wanted.right, drawn.right)
        if _NAME.fullmatch(wanted.left) and _NAME.fullmatch(drawn.left):
            return False
        return _formulas(Formula(wanted.text), Formula(drawn.text))
    if isinstance(drawn, Equation):
        return not _of_unknowns(drawn) and equal(wanted, drawn.right)
    assert isinstance(wanted, Equation)
    return _NAME.fullmatch(wanted.left) is not None and equal(wanted.right, drawn)


def _of_unknowns(equation: Equation) -> bool:
    """Whether an equation such as 2x - y = 0 is an answer itself, and its 0 is none."""
    first = equation.left.partition("=")[0].strip()
    letters = re.search(r"[a-z]", re.sub(r"\\[a-z]+", "", first))
    zero = isinstance(equation.right, Number) and equation.right.value == 0
    return zero and letters is not None and _NAME.fullmatch(first) is None


def _formulas(wanted: Number | Formula, drawn: Number | Formula) -> bool:
    texts = [one.latex for one in (wanted, drawn) if isinstance(one, Formula)]
    if len(texts) == 2 and len({re.sub(r" |(?<=_){(\w)}", r"\1", one) for one in texts}) == 1:
        return True
    if any(map(_TEXTUAL.search, texts)) or not _same_case(texts):
        return False
    a, b = (_parsed(_latex(one)) for one in (wanted, drawn))
    if a is None or b is None:
        return False
    import sympy
    from math_verify import verify

    constants = [
        isinstance(one, sympy.Expr) and not one.free_symbols and not one.has(sympy.nan, sympy.zoo)
        for one in (a, b)
    ]
    if all(constants):
        return _constants(a, b) or _decimal(wanted, b) or _decimal(drawn, a)
    if any(constants) and all(isinstance(one, sympy.Expr) for one in (a, b)):
        return bool(sympy.simplify(a - b) == 0)
    return bool(verify([a], [b], timeout_seconds=None))


def _constants(a: Any, b: Any) -> bool:
    """Whether two constants have the same value, to many digits and relative to their size."""
    if a.is_infinite or b.is_infinite:
        return bool(a == b)
    gap = (a - b).doit()
    if gap == 0:
        return True
    if gap.is_Rational:
        return False
    size = max(abs(complex_number.evalf(_AGREE)) for complex_number in (a, b))
    return bool(abs(gap.evalf(_AGREE)) <= size * 10 ** (5 - _AGREE))


def _decimal(number: Number | Formula, constant: Any) -> bool:
    """Whether a constant such as pi rounds to a decimal of enough digits."""
    if not isinstance(number, Number) or not constant.is_real or constant.is_infinite:
        return False
    value = constant.evalf(_AGREE + number.significant)
    return value.is_Float and _rounds(number, Fraction(str(value)))


def _same_case(texts: list[str]) -> bool:
    """Whether letters differ in more than case: the parser takes A for a."""
    letters = [set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", one))) for one in texts]
    folded = [{letter.lower() for letter in one} for one in letters]
    return len(texts) < 2 or letters[0] == letters[1] or folded[0] != folded[1]


def _latex(one: Number | Formula) -> str:
    if isinstance(one, Formula):
        return one.latex
    value = one.value
    text = str(abs(value.numerator))
    text = text if value.denominator == 1 else rf"\frac{{{text}}}{{{value.denominator}}}"
    return f"-{text}" if value < 0 else text


@functools.lru_cache(maxsize=1024)
def _parsed(latex: str) -> Any:
    """The expression, with decimals as exact fractions; None where there is none."""
    from math_verify import LatexExtractionConfig, parse

    text = re.sub(
        r"(?<![\d,])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,])",
        lambda m: m.group().replace(",", ""),
        latex,
    )
    text = re.sub(r"(\d*)\.(\d+)", _exact, text)
    text = text.replace("**", "^")
    text = re.sub(r"\^ ?(-?\d{2,}|-\d)", r"^{\1}", text)
    text = re.sub(r"\^ ?\(([^()]*)\)", r"^{\1}", text)
    found = parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)
    value: Any = next((one for one in found if not isinstance(one, str)), None)
    if hasattr(value, "free_symbols") and not re.search(r"_\{?i|\\(?:sum|prod|vec|hat)", text):
        import sympy

        unit = [one for one in value.free_symbols if one.name == "i"]
        value = value.subs(dict.fromkeys(unit, sympy.I)) if unit else value
    return value


def _exact(found: re.Match[str]) -> str:
    whole, behind = found.groups()
    return rf"\frac{{{int(whole + behind)}}}{{1{'0' * len(behind)}}}"
