"""The reading of a log as one page of HTML that stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup

from passgrad.files import write_atomic
from passgrad.measurement.logs.compared import WindowChange
from passgrad.measurement.report import charts
from passgrad.measurement.report.render import colours, digest, own, template
from passgrad.measurement.report.text import number, one_line, pairs

if TYPE_CHECKING:
    from passgrad.measurement.logs.run import LoggedRun

#: so many prompts of each kind are shown; the table beside the report has all
SHOWN = 40


def write_report(result: LoggedRun, path: Path) -> None:
    """Write the page; the name never stands for half of it."""
    write_atomic(path, render(result).encode())


def render(result: LoggedRun) -> str:
    """The page as one string."""
    style = colours() + own("report.css")
    whole, record = result.whole, result.record
    prompts = whole.prompts
    fell = prompts[prompts["finding"] == "fell"]
    rose = prompts[prompts["finding"] == "rose"].sort_values("change", ascending=False)
    largest = max(whole.ks)
    return template("logs.html.jinja").render(
        title="What did this run do to pass@k?",
        verdict=one_line(result.verdict, 600),
        whole=whole,
        curve=curve_chart(whole, result.verdict),
        over_time=[
            over_time_chart(result.changes, k) for k in dict.fromkeys((whole.ks[0], largest))
        ]
        if len(result.changes) > 1
        else [],
        curve_rows=_rows(whole.to_frame()),
        change_rows=_rows(result.curve()) if len(result.changes) > 1 else [],
        groups=group_rows(whole),
        group_ks=list(dict.fromkeys(whole.groups["k"])),
        weights=_rows(result.weights),
        silent=_rows(result.silent),
        fell=_rows(fell.head(SHOWN)),
        rose=_rows(rose.head(SHOWN)),
        num_fell=len(fell),
        num_rose=len(rose),
        num_open=len(prompts) - len(fell) - len(rose),
        record=record,
        remarks=[one_line(text, 1000) for text in result.remarks],
        settings=pairs(
            {
                "windows": [f"{first}:{last}" for first, last in record["windows"]],
                "orders": list(whole.ks),
                "reading": record["reading"],
                "level": record["level"],
                "false discoveries": record["false_discoveries"],
                "prompts in the log": record["prompts"],
                "prompts compared": record["compared_prompts"],
                "answers": record["answers"],
            }
        ),
        provenance=pairs(record["provenance"]),
        level=f"{100 * record['level']:.6g}%",
        style=Markup(style),
        style_hash=digest(style),
        number=number,
        points=points,
        one_line=one_line,
    )


def group_rows(whole: WindowChange) -> list[dict[str, object]]:
    """A row a group, with its part at each order."""
    return [
        {
            "group": name,
            "num_prompts": int(rows["num_prompts"].iloc[0]),
            "parts": [
                f"{points(part)} ± {100 * (high - part):.2f}"
                if math.isfinite(high)
                else f"{points(part)}"
                for part, high in zip(rows["part"], rows["high"], strict=True)
            ],
        }
        for name, rows in whole.groups.groupby("group", sort=False)
    ]


def points(value: float) -> str:
    """A share in percentage points, with its sign."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:+.2f}".replace("-", "−")


def _rows(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def curve_chart(change: WindowChange, verdict: str) -> charts.Chart:
    """E[w_k (p' - p)] over log2 k with its intervals and band."""
    product = change.product
    return _chart(
        [float(k) for k in change.ks],
        charts.log_axis(list(change.ks)),
        [product[place] for place in range(len(change.ks))],
        [f"k = {k}" for k in change.ks],
        "change of Jₖ to first order, points",
        "k (log scale)",
        f"First-order change of pass@k over k. {one_line(verdict, 600)}",
        log=True,
    )


def over_time_chart(changes: Sequence[WindowChange], k: int) -> charts.Chart:
    """The same at one k, from each window to the next."""
    place = list(changes[0].ks).index(k)
    middles = [(change.after.first + change.after.last) / 2 for change in changes]
    axis = charts.Axis(min(middles), max(middles), charts.LEFT + 14, charts.WIDTH - 26)
    ticks = [
        charts.Tick(axis.at(middle), f"{change.after.first}–{change.after.last}")
        for middle, change in zip(middles, changes, strict=True)
    ]
    return _chart(
        middles,
        (axis, ticks),
        [change.product[place] for change in changes],
        [f"{change.before} to {change.after}" for change in changes],
        f"pass@{k}: change to first order, points",
        "steps of the later window",
        f"First-order change of pass@{k} from each window to the next",
        log=False,
    )


def _chart(
    xs: Sequence[float],
    horizontal: tuple[charts.Axis, list[charts.Tick]],
    intervals: Sequence[object],
    names: Sequence[str],
    y_name: str,
    x_name: str,
    alt: str,
    *,
    log: bool,
) -> charts.Chart:
    x, x_ticks = horizontal
    ends = ("value", "low", "high", "band_low", "band_high")
    parts = np.array([[100 * float(getattr(at, end)) for end in ends] for at in intervals])
    y, y_ticks, factor = charts.upright(parts.ravel())
    places = [x.at(math.log2(value) if log else value) for value in xs]
    lower = [(at, y.at(row[3])) for at, row in zip(places, parts, strict=True)]
    upper = [(at, y.at(row[4])) for at, row in zip(places, parts, strict=True)]
    return charts.Chart(
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        zero=y.at(0),
        y_name=f"{y_name}{factor}",
        x_name=x_name,
        alt=alt,
        points=[
            charts.Point(
                at, y.at(row[0]), y.at(row[1]), y.at(row[2]),
                f"{name}: {row[0]:+.2f} points, interval {row[1]:+.2f} to {row[2]:+.2f}",
                against=row[0] < 0,
            )
            for at, row, name in zip(places, parts, names, strict=True)
        ],
        band=charts.path([*upper, *reversed(lower)]) + "Z" if log and len(xs) > 1 else "",
        line=charts.path([(at, y.at(row[0])) for at, row in zip(places, parts, strict=True)]),
    )  # fmt: skip
