"""From the content of a report to its page."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from passgrad.files import write_atomic
from passgrad.measurement.report import charts
from passgrad.measurement.report.content import LayerRow, PromptRow, ReportContent
from passgrad.measurement.report.text import Excerpt, excerpts, number, one_line, pairs
from passgrad.palette import GROUNDS, style_of

if TYPE_CHECKING:
    from jinja2 import Template

#: at most so many prompts are shown one by one, those that weigh most
MAX_PROMPTS = 1_000

#: so many of them are in sight, the others behind a click
FIRST_PROMPTS = 20

#: at most so many bars in one figure, and rows in the table beside it
MAX_BARS, MAX_LAYERS = 60, 10

#: what stands for which object: the colours of the book
_INKS = {"along": "pass@1", "against": "pass@k", "curve": "pass@k", "mark": "conflict"}


def write_report(content: ReportContent, path: Path | str) -> Path:
    """Write the page; the name never stands for half of it. Returns the path."""
    path = Path(path)
    write_atomic(path, render_report(content).encode())
    return path


def render_report(content: ReportContent) -> str:
    """The page as one string of HTML.

    It stays below 1 MB for 500 prompts, whatever they say: long texts are cut, and say so. Of more
    than :data:`MAX_PROMPTS` prompts those that weigh most are shown.
    """
    from markupsafe import Markup

    style = colours() + own("report.css")
    script = own("report.js")
    z = NormalDist().inv_cdf((1 + content.level) / 2)
    ordered = _ordered(content.prompts)
    shown = _kept(ordered)
    texts = excerpts([text for row in shown for text in (row.prompt, row.right, row.wrong)])
    rows = _prompt_views(shown, texts, ordered)
    at_k = next(row for row in content.curve if row.k == content.chosen_k)
    return template("report.html.jinja").render(
        content=content,
        agreement=charts.agreement_chart(shown, z),
        curve=charts.curve_chart(content),
        cosine=charts.cosine_chart(content),
        curve_rows=sorted(content.curve, key=lambda row: row.k),
        at_k=at_k,
        sign=_sign(content),
        has_unsolved=any(not math.isnan(row.unsolved) for row in content.curve),
        against=[row for row in rows if row.against],
        along=[row for row in rows if not row.against],
        first=FIRST_PROMPTS,
        counts=_counts(content, z),
        has_share=any(math.isfinite(row.contribution) for row in content.prompts),
        left_out=len(ordered) - len(shown),
        layers=_layer_views(content),
        step_verdict=one_line(content.step_verdict, 600),
        realised=any(not math.isnan(row.realised.value) for row in content.step),
        has_metrics=any(row.metric != "plain" for row in content.layers),
        settings=pairs(content.settings),
        provenance=pairs(content.provenance),
        level=f"{100 * content.level:.6g}%",
        labelled=[one_line(text, 1000) for text in content.warnings],
        not_measured=[one_line(text, 1000) for text in content.not_measured],
        verdict=one_line(content.verdict, 600),
        next_step=one_line(content.next_step, 1000),
        next_command=one_line(content.next_command, 600),
        title=one_line(content.title, 120),
        # Only these two texts are not escaped: they are files of the package, and the page allows
        # no other script or style, by their hashes.
        style=Markup(style),
        script=Markup(script),
        style_hash=digest(style),
        script_hash=digest(script),
        number=number,
        one_line=one_line,
    )


def _sign(content: ReportContent) -> str:
    """What the band says of the orders beyond 1: "conflict", "none" or "open"."""
    bands = [row.product for row in content.curve if row.k > 1]
    if any(product.band_high < 0 for product in bands):
        return "conflict"
    return "none" if bands and all(product.band_low > 0 for product in bands) else "open"


@cache
def template(name: str) -> Template:
    """A template of the reports; everything that it shows is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(own),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


@cache
def own(name: str) -> str:
    """A file of this room, as text."""
    return resources.files("passgrad.measurement.report").joinpath(name).read_text(encoding="utf-8")


def colours() -> str:
    """The inks of both themes as custom properties."""

    def rules(theme: str) -> str:
        inks = {name: getattr(style_of(of), theme) for name, of in _INKS.items()}
        return "".join(f"--{name}:{ink};" for name, ink in inks.items())

    light = f"--ground:{GROUNDS['light']};{rules('light')}"
    dark = f"--ground:{GROUNDS['dark']};{rules('dark')}"
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def digest(text: str) -> str:
    """What a content security policy calls a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --- prompts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prompt:
    place: int
    id: str
    group: str
    words: str
    row: PromptRow
    share: float
    texts: list[tuple[str, Excerpt | None]]

    @property
    def against(self) -> bool:
        return _weight(self.row) < 0


def _weight(row: PromptRow) -> float:
    """What a prompt is sorted by: its part at the chosen k, or its agreement."""
    return row.contribution if math.isfinite(row.contribution) else row.agreement


def _ordered(prompts: Sequence[PromptRow]) -> list[PromptRow]:
    def key(row: PromptRow) -> tuple[bool, float]:
        weight = _weight(row)
        return (math.isnan(weight), 0.0 if math.isnan(weight) else weight)

    # A part and an agreement are not of one scale: with parts, prompts without one stand last.
    parts = any(math.isfinite(row.contribution) for row in prompts)
    if parts:
        return sorted(prompts, key=lambda r: (not math.isfinite(r.contribution), *key(r)))
    return sorted(prompts, key=key)


def _kept(ordered: Sequence[PromptRow]) -> list[PromptRow]:
    """Those that weigh most, at most :data:`MAX_PROMPTS`, in the same order."""
    if len(ordered) <= MAX_PROMPTS:
        return list(ordered)

    def size(place: int) -> float:
        weight = abs(_weight(ordered[place]))
        return -1.0 if math.isnan(weight) else weight

    largest = sorted(range(len(ordered)), key=size, reverse=True)[:MAX_PROMPTS]
    return [ordered[place] for place in sorted(largest)]


def _prompt_views(
    shown: Sequence[PromptRow], texts: Sequence[Excerpt | None], everyone: Sequence[PromptRow]
) -> list[_Prompt]:
    negative = sum(row.contribution for row in everyone if -math.inf < row.contribution < 0)
    return [
        _Prompt(
            place=place,
            id=one_line(row.id, 60),
            group=one_line(row.group, 40),
            words=one_line(row.prompt, 80),
            row=row,
            share=row.contribution / negative if -math.inf < row.contribution < 0 else math.nan,
            texts=list(
                zip(
                    ("Prompt", "A right answer", "A wrong answer"),
                    texts[3 * place : 3 * place + 3],
                    strict=True,
                )
            ),
        )
        for place, row in enumerate(shown)
    ]


def _counts(content: ReportContent, z: float) -> dict[str, Any]:
    prompts = content.prompts
    samples = [row.num_samples for row in prompts]
    return {
        "prompts": len(prompts),
        "samples": sum(samples),
        "each": f"{min(samples)}"
        if min(samples) == max(samples)
        else f"{min(samples)} to {max(samples)}",
        "against": sum(row.agreement < 0 for row in prompts),
        # An error of 0 is that of a prompt without right or without wrong answers.
        "beyond": sum(
            row.agreement + z * row.agreement_error < 0 < row.agreement_error for row in prompts
        ),
        "none": sum(row.num_correct == 0 for row in prompts),
        "all": sum(row.num_correct == row.num_samples for row in prompts),
    }


# --- parts of the model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layers:
    """The parts of one kind in one metric."""

    metric: str
    bars: charts.BarChart
    caption: str
    rows: list[tuple[str, LayerRow, float]]
    """Name, row, and the share of the negative part (nan where there is none)."""
    intervals: bool
    divides: bool
    count: int
    left_out: int


@dataclass(frozen=True)
class _Kind:
    """The parts of one kind, in each metric."""

    kind: str
    title: str
    metrics: list[_Layers]


#: kinds of rows that have a title of their own, and do not divide the model
_WHOLE, _READINGS = "whole", "final"
_TITLES = {_WHOLE: "All parameters", _READINGS: "What the final layer may be"}


def _layer_views(content: ReportContent) -> list[_Kind]:
    kinds: dict[str, dict[str, list[LayerRow]]] = {}
    for row in content.layers:
        kinds.setdefault(row.kind, {}).setdefault(row.metric, []).append(row)
    return [
        _Kind(
            kind=one_line(kind, 40),
            title=_TITLES.get(kind, f"By {one_line(kind, 40)}"),
            metrics=[
                _layers(kind, metric, rows, content.chosen_k) for metric, rows in metrics.items()
            ],
        )
        for kind, metrics in kinds.items()
    ]


def _layers(kind: str, metric: str, rows: Sequence[LayerRow], k: float) -> _Layers:
    ends = [end for row in rows for end in (row.product.low, row.product.high)]
    intervals = not all(map(math.isnan, ends))
    known = [row for row in rows if math.isfinite(row.product.value)]
    order = sorted(known, key=lambda row: row.product.value)
    negative = [row for row in order if row.product.value < 0]
    total = sum(row.product.value for row in negative)
    bars = list(rows)
    if len(bars) > MAX_BARS:
        largest = sorted(rows, key=lambda row: -abs(row.product.value))[:MAX_BARS]
        bars = [row for row in rows if row in largest]
    caption = f"{len(negative)} of {len(rows)} are negative"
    if not intervals:
        shown = negative[:MAX_LAYERS]
        caption = f"Most in conflict: {caption}"
    elif len(rows) <= MAX_LAYERS:
        # With an interval, one that does not conflict is a finding as well.
        shown = list(rows)
    else:
        shown = order[:MAX_LAYERS]
        caption = f"The {MAX_LAYERS} lowest: {caption}"
    named = f"{one_line(kind, 40)}{'' if metric == 'plain' else f', {one_line(metric, 40)}'}"
    return _Layers(
        metric=one_line(metric, 40),
        bars=charts.bar_chart(bars, named, k),
        caption=caption,
        rows=[
            (
                one_line(row.name, 60),
                row,
                row.product.value / total if -math.inf < row.product.value < 0 else math.nan,
            )
            for row in shown
        ],
        intervals=intervals,
        divides=kind not in _TITLES,
        count=len(rows),
        left_out=len(rows) - len(bars),
    )
