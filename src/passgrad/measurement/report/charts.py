"""Geometry of the report's figures: from values to places in the view box of an SVG image.

Nothing here writes markup: the template does, so that one rule escapes every text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from passgrad.measurement.report.content import CurveRow, LayerRow, PromptRow, ReportContent
from passgrad.measurement.report.text import number, one_line

#: of every image, in units of the view box: near the width of a telephone, where it is shown 1:1
WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 26, 46

#: the points of the agreement figure stand so far from its frame, as a share of its side
_AIR = 0.06


@dataclass(frozen=True)
class Axis:
    """Values from ``start`` to ``end`` on pixels from ``first`` to ``last``."""

    start: float
    end: float
    first: float
    last: float

    def at(self, value: float) -> float:
        """The place of a value; beyond the ends, the nearer end."""
        share = (min(max(value, self.start), self.end) - self.start) / (self.end - self.start)
        return round(self.first + share * (self.last - self.first), 1)


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A marker with its interval (pixels) and the words that go with it."""

    x: float
    y: float
    low: float
    high: float
    label: str
    place: int = 0
    against: bool = False


@dataclass(frozen=True)
class Chart:
    """One image."""

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    zero: float
    y_name: str
    x_name: str
    alt: str
    points: list[Point]
    band: str = ""
    line: str = ""
    x_mark: tuple[float, float] | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def _finite(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _round_ticks(start: float, end: float, count: int = 5) -> list[float]:
    """Round numbers between two ends, a step of 1, 2 or 5 times a power of ten apart."""
    raw = (end - start) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(start / step - 1e-9)
    return [step * i for i in range(first, math.floor(end / step + 1e-9) + 1)]


def upright(values: Iterable[float]) -> tuple[Axis, list[Tick], str]:
    """An axis that holds the values and 0, its ticks, and the power of ten taken out of them."""
    held = [*_finite(values), 0.0]
    low, high = min(held), max(held)
    if high - low < 1e-300:
        low, high = -1.0, 1.0
    pad = _AIR * (high - low)
    axis = Axis(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    places = _round_ticks(axis.start, axis.end)
    power = math.floor(math.log10(max(abs(place) for place in places)))
    power = 0 if -3 < power < 4 else power
    ticks = [Tick(axis.at(v), _short(v / 10.0**power)) for v in places]
    factor = number(10.0**power).removeprefix("1·") if power else ""
    return axis, ticks, f" (in {factor})" if factor else ""


def _short(value: float) -> str:
    return f"{value:.6g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def log_axis(ks: Sequence[float]) -> tuple[Axis, list[Tick]]:
    """An axis of log2 k that holds these orders, and its ticks."""
    logs = [math.log2(k) for k in ks]
    low, high = min(logs), max(logs)
    if high - low < 0.5:
        low, high = low - 0.5, high + 0.5
    axis = Axis(low, high, LEFT + 14, WIDTH - RIGHT - 14)
    powers = range(math.ceil(low), math.floor(high) + 1)
    every = max(1, math.ceil(len(powers) / 8))
    ticks = [Tick(axis.at(i), f"{2**i}") for i in powers[::every]]
    return axis, ticks or [Tick(axis.at(log), f"{k:g}") for log, k in zip(logs, ks, strict=True)]


def path(places: Iterable[tuple[float, float]]) -> str:
    """Lines through the places, broken where one of them is not known."""
    words, pen = [], "M"
    for x, y in places:
        if math.isnan(y):
            pen = "M"
            continue
        words.append(f"{pen}{x:g} {y:g}")
        pen = "L"
    return "".join(words)


def _open(value: float, instead: float) -> float:
    """An end that is not known or not finite, drawn as if it were ``instead``."""
    return value if math.isfinite(value) else instead


def curve_chart(content: ReportContent) -> Chart:
    """<grad J_k, grad J_1> over log2 k: line, intervals, simultaneous band, threshold."""
    rows = sorted(content.curve, key=lambda row: row.k)
    line = sorted(content.line) or [(row.k, row.product.value) for row in rows]
    known = [(k, v) for k, v in line if k >= 1 and math.isfinite(v)]
    x, x_ticks = log_axis([row.k for row in rows] + [k for k, _ in known])
    products = [row.product for row in rows]
    values = [v for p in products for v in (p.value, p.low, p.high, p.band_low, p.band_high)]
    y, y_ticks, factor = upright([*values, *(v for _, v in known)])
    lower = [(x.at(math.log2(r.k)), y.at(_open(r.product.band_low, y.start))) for r in rows]
    upper = [(x.at(math.log2(r.k)), y.at(_open(r.product.band_high, y.end))) for r in rows]
    verdict = one_line(content.verdict, 600)
    mark = None
    if content.threshold is not None and not math.isnan(content.threshold.low):
        low = max(content.threshold.low, 2**x.start)
        high = min(content.threshold.high, 2**x.end)
        high = 2**x.end if math.isnan(high) else high
        if low <= high:
            mark = (x.at(math.log2(low)), x.at(math.log2(high)))
    return Chart(
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        zero=y.at(0),
        y_name=f"⟨∇Jₖ, ∇J₁⟩{factor}",
        x_name="k (log scale)",
        alt=f"Inner product of grad J_k with grad J_1 over k, {_course(rows)}. {verdict}",
        points=[_curve_point(row, x, y) for row in rows if math.isfinite(row.product.value)],
        band=path([*upper, *reversed(lower)]) + "Z" if len(rows) > 1 else "",
        line=path((x.at(math.log2(k)), y.at(v)) for k, v in known),
        x_mark=mark,
    )


def _curve_point(row: CurveRow, x: Axis, y: Axis) -> Point:
    product = row.product
    label = (
        f"k = {row.k:g}: {number(product.value)}, interval {number(product.low)} to "
        f"{number(product.high)}, band {number(product.band_low)} to {number(product.band_high)}"
    )
    return Point(
        x.at(math.log2(row.k)),
        y.at(product.value),
        y.at(_open(product.low, y.start)),
        y.at(_open(product.high, y.end)),
        label,
        against=product.value < 0,
    )


def _course(rows: Sequence[CurveRow]) -> str:
    first, last = rows[0], rows[-1]
    if first is last:
        return f"{number(first.product.value)} at k = {first.k:g}"
    return (
        f"from {number(first.product.value)} at k = {first.k:g} to "
        f"{number(last.product.value)} at k = {last.k:g}"
    )


def cosine_chart(content: ReportContent) -> Chart | None:
    """The cosine over log2 k; None where no k has one."""
    rows = sorted(content.curve, key=lambda row: row.k)
    known = [row for row in rows if math.isfinite(row.cosine.value)]
    if not known:
        return None
    x, x_ticks = log_axis([row.k for row in rows])
    low = min([0.0, *_finite(v for r in known for v in (r.cosine.value, r.cosine.low))])
    high = max([1.0, *_finite(r.cosine.value for r in known)])
    low, high = max(low, -1.0), min(high, 1.0)
    y = Axis(low - 0.04 * (high - low), high + 0.04 * (high - low), HEIGHT - BOTTOM, TOP)
    points = [
        Point(
            x.at(math.log2(row.k)),
            y.at(row.cosine.value),
            y.at(_open(row.cosine.low, row.cosine.value)),
            y.at(_open(row.cosine.high, row.cosine.value)),
            f"k = {row.k:g}: cosine {number(row.cosine.value)}, interval "
            f"{number(row.cosine.low)} to {number(row.cosine.high)}",
            against=row.cosine.value < 0,
        )
        for row in known
    ]
    return Chart(
        x_ticks=x_ticks,
        y_ticks=[Tick(y.at(v), _short(v)) for v in _round_ticks(low, high)],
        zero=y.at(0),
        y_name="cosine of the two gradients",
        x_name="k (log scale)",
        alt=(
            f"Cosine of grad J_k and grad J_1 over k, from {number(known[0].cosine.value)} at k = "
            f"{known[0].k:g} to {number(known[-1].cosine.value)} at k = {known[-1].k:g}."
        ),
        points=points,
        line=path(
            (x.at(math.log2(r.k)), y.at(r.cosine.value) if r in known else math.nan) for r in rows
        ),
    )


def agreement_chart(prompts: Sequence[PromptRow], z: float) -> Chart:
    """Agreement a(x) over the success rate, one point a prompt, with z standard errors."""
    known = [row for row in prompts if math.isfinite(row.agreement)]
    values = np.array([row.agreement for row in known] or [0.0])
    errors = np.array([_open(row.agreement_error, 0.0) for row in known] or [0.0])
    y, y_ticks, factor = upright([*(values - z * errors), *(values + z * errors)])
    x = Axis(0.0, 1.0, LEFT + 14, WIDTH - RIGHT - 14)
    points = [
        Point(
            x.at(row.success),
            y.at(row.agreement),
            y.at(row.agreement - z * _open(row.agreement_error, 0.0)),
            y.at(row.agreement + z * _open(row.agreement_error, 0.0)),
            f"{one_line(row.id, 40)}: success {row.num_correct}/{row.num_samples}, agreement "
            f"{number(row.agreement)}. {one_line(row.prompt, 90)}",
            place,
            row.agreement < 0,
        )
        for place, row in enumerate(prompts)
        if math.isfinite(row.agreement)
    ]
    # In the order in which the arrow keys walk: by success, then by agreement.
    points.sort(key=lambda point: (point.x, -point.y))
    against = sum(point.against for point in points)
    return Chart(
        x_ticks=[Tick(x.at(i / 4), f"{i / 4:g}") for i in range(5)],
        y_ticks=y_ticks,
        zero=y.at(0),
        y_name=f"agreement a(x){factor}",
        x_name="success rate p(x)",
        alt=(
            f"Agreement over success rate of {len(points)} prompts: "
            f"{against} lie below 0 and pull against pass@1."
        ),
        points=points,
    )


@dataclass(frozen=True)
class Bar:
    """The value of one part of the model, with its interval (``low`` = ``high`` without one)."""

    x: float
    width: float
    y: int
    name: str
    label: str
    against: bool
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class BarChart:
    """One image of bars, one below the other."""

    bars: list[Bar]
    zero: float
    height: int
    alt: str
    width: int = WIDTH


#: height of one bar with its name, and where bars start and end
_ROW, _BARS_FROM, _BARS_TO = 20, 150, WIDTH - 64
#: intervals are drawn up to so many times the largest bar beyond the bars
_REACH = 2.0


def bar_chart(rows: Sequence[LayerRow], kind: str, k: float) -> BarChart:
    """The inner product by part of the model, in the order given, bars from 0; the intervals, cut
    where they would leave no room for the bars.
    """
    values = [*_finite(row.product.value for row in rows), 0.0]
    ends = _finite(end for row in rows for end in (row.product.low, row.product.high))
    room = _REACH * max(map(abs, values))
    low = max(min([*values, *ends]), min(values) - room)
    high = min(max([*values, *ends]), max(values) + room)
    x = Axis(low, high if high > low else low + 1.0, _BARS_FROM, _BARS_TO)
    bars = []
    for place, row in enumerate(rows):
        product = row.product
        value = _open(product.value, 0.0)
        ends = sorted((x.at(0), x.at(value)))
        has_interval = math.isfinite(product.value) and not (
            math.isnan(product.low) or math.isnan(product.high)
        )
        name, label = one_line(row.name, 18), number(product.value)
        title = f"{one_line(row.name, 60)}: {label}"
        if has_interval:
            title += f", interval {number(product.low)} to {number(product.high)}"
        bars.append(
            Bar(
                ends[0],
                round(max(ends[1] - ends[0], 0.5), 1),
                place * _ROW,
                name,
                label,
                product.value < 0,
                x.at(product.low) if has_interval else x.at(value),
                x.at(product.high) if has_interval else x.at(value),
                title,
            )
        )
    against = sum(bar.against for bar in bars)
    return BarChart(
        bars=bars,
        zero=x.at(0),
        height=len(rows) * _ROW + 4,
        alt=(
            f"Inner product of grad J_k with grad J_1 at k = {k:g} by {one_line(kind, 60)}: "
            f"negative in {against} of {len(bars)}."
        ),
    )
