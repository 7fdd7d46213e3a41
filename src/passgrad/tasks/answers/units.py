"""Units behind numbers: two that are both known and differ make two amounts different."""

from __future__ import annotations

import re

# One line a unit: its names. Amounts in different units are not converted.
_NAMES = """
mm millimeter millimeters millimetre millimetres
cm centimeter centimeters centimetre centimetres
m meter meters metre metres
km kilometer kilometers kilometre kilometres
inch inches
ft foot feet
yd yard yards
mi mile miles
mg milligram milligrams
g gram grams
kg kilogram kilograms
lb lbs pound pounds
oz ounce ounces
s sec second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years
degree degrees deg °
°C °c celsius
°F °f fahrenheit
rad radian radians
l liter liters litre litres
ml milliliter milliliters
$ dollar dollars usd
cent cents
€ euro euros eur
£ gbp
¥ yen jpy
₹ rupee rupees inr
km/h kph kmh
m/s
m/s^2
mph
unit units
"""
_CANONICAL = {
    name: line.split()[0] for line in _NAMES.strip().splitlines() for name in line.split()
}
#: signs that stand before an amount
CURRENCIES = "$€£¥₹"


def unit_of(text: str) -> str:
    """The unit that a text names, such as "cm^2"; empty where it is none that is known."""
    bare = text.strip().strip(".").replace("²", "^2").replace("³", "^3")
    bare = re.sub(r"\^ ?\{(\d)\}", r"^\1", bare).replace("^\\circ", "°")
    bare = re.sub(r"^(?:square|sq\.?) (.*)$", r"\1^2", bare)
    bare = re.sub(r"^cubic (.*)$", r"\1^3", bare).replace(" ", "")
    if bare in _CANONICAL:
        return _CANONICAL[bare]
    base, caret, power = bare.partition("^")
    if base not in _CANONICAL and len(base) > 1:
        base = base.lower()
    name = _CANONICAL.get(base, "")
    if not name or (caret and not power.isdigit()):
        return ""
    return name + caret + power
