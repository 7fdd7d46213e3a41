"""Figures of the book: drawn once for the light page and once for the dark one.

A figure is a function ``draw(axes)``. :func:`show` calls it twice, with the inks of the light and
of the dark page on a transparent ground, and displays one bundle: two SVG images of which the page
shows the one that fits its theme, the alternative text, a link to the data behind the figure, and a
PDF for print.

One object has one colour in the whole book (:data:`COLOURS`) and, for readers who do not tell
colours apart, its own dash and marker. A series is drawn with an interval or declared exact; there
is no third way.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passgrad.errors import UserError
from passgrad.palette import GROUNDS, STYLES, Theme, style_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

#: an alternative text shorter than this cannot say what a figure shows
MIN_ALT = 30

_theme: ContextVar[Theme] = ContextVar("passgrad_theme", default="light")


class _Colours(Mapping[str, str]):
    """Object -> ink, as a hexadecimal string for the theme that is being drawn."""

    def __getitem__(self, name: str) -> str:
        style = style_of(name)
        return style.dark if _theme.get() == "dark" else style.light

    def __iter__(self) -> Iterator[str]:
        return iter(STYLES)

    def __len__(self) -> int:
        return len(STYLES)


COLOURS: Mapping[str, str] = _Colours()


def ink() -> str:
    """Colour of text and axes in the theme that is being drawn."""
    return "#24292f" if _theme.get() == "light" else "#d5dae0"


def ground() -> str:
    """Colour of the page in the theme that is being drawn (for halos and masks)."""
    return GROUNDS[_theme.get()]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, between 1 and 21, by the WCAG 2 definition."""
    import matplotlib.colors as mcolors

    def luminance(colour: str) -> float:
        channels = np.asarray(mcolors.to_rgb(colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ np.array([0.2126, 0.7152, 0.0722]))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@contextmanager
def theme(name: Theme) -> Iterator[None]:
    """Draw with the inks of the light or of the dark page inside this block."""
    import matplotlib as mpl
    import seaborn as sns

    token = _theme.set(name)
    try:
        settings = {
            **sns.plotting_context("notebook", font_scale=0.95),
            **sns.axes_style("ticks"),
            "axes.edgecolor": ink(),
            "axes.facecolor": "none",
            "axes.grid": False,
            "axes.labelcolor": ink(),
            "axes.linewidth": 0.9,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.facecolor": "none",
            "figure.constrained_layout.use": True,
            "font.family": ["sans-serif"],
            "font.sans-serif": [
                "DejaVu Sans"
            ],  # ships with matplotlib, so every machine draws the same
            "grid.color": ink(),
            "legend.frameon": False,
            "lines.linewidth": 2.0,
            "lines.markersize": 5.0,
            "savefig.facecolor": "none",
            "svg.fonttype": "path",
            "svg.hashsalt": "passgrad",
            "text.color": ink(),
            "xtick.color": ink(),
            "ytick.color": ink(),
        }
        with mpl.rc_context(settings):
            yield
    finally:
        _theme.reset(token)


def _array(values: Any) -> np.ndarray:
    """Numbers of a tensor, a series or a sequence as a float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def curve(
    ax: Axes,
    x: Any,
    y: Any,
    *,
    of: str,
    low: Any = None,
    high: Any = None,
    exact: bool = False,
    label: str | None = None,
    **style: Any,
) -> Any:
    """One series: a line with its band ``[low, high]``, or a line that is declared ``exact``.

    :param of: The object that the series belongs to; gives colour, dash and marker
        (:data:`COLOURS`).
    :param low, high: Ends of the interval at each point, same shape as ``y``.
    :param exact: True for values without sampling error: closed forms, quadrature, exact
        probabilities.
    :param label: Text of the legend; the name of the object by default, ``""`` for none.
    :param style: Passed to :meth:`matplotlib.axes.Axes.plot`; overrides the object's own style.
    :raises UserError: When neither an interval nor ``exact=True`` is given, when both are, when
        only one end is given, or when shapes differ.
    """
    xs, ys, band = _series(of, x, y, low, high, exact)
    look = style_of(of)
    marker = look.marker if xs.size <= 16 else None
    keywords = _keywords(of, label, linestyle=look.dash, marker=marker) | style
    (line,) = ax.plot(xs, ys, **keywords)
    if band is not None:
        ax.fill_between(xs, *band, color=keywords["color"], alpha=0.22, linewidth=0)
    return line


def points(
    ax: Axes,
    x: Any,
    y: Any,
    *,
    of: str,
    low: Any = None,
    high: Any = None,
    exact: bool = False,
    label: str | None = None,
    **style: Any,
) -> Any:
    """Unconnected points with vertical intervals ``[low, high]``, or declared ``exact``; see
    :func:`curve`.
    """
    xs, ys, band = _series(of, x, y, low, high, exact)
    keywords = _keywords(of, label, linestyle="none", marker=style_of(of).marker) | style
    if band is not None:
        spread = np.abs(np.vstack([ys - band[0], band[1] - ys]))
        return ax.errorbar(xs, ys, yerr=spread, elinewidth=1.1, capsize=0, **keywords)
    return ax.plot(xs, ys, **keywords)[0]


def _series(
    of: str, x: Any, y: Any, low: Any, high: Any, exact: bool
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Places, values and the ends of the intervals (None for exact values), all of one shape."""
    has_interval = _check_interval(of, low, high, exact)
    xs, ys = _array(x), _array(y)
    if xs.shape != ys.shape:
        raise UserError(
            f"the series {of!r} has {xs.size} places and {ys.size} values; give as many of each"
        )
    if not has_interval:
        return xs, ys, None
    lows, highs = _array(low), _array(high)
    if lows.shape != ys.shape or highs.shape != ys.shape:
        raise UserError(f"the interval of the series {of!r} has not the shape of its values")
    return xs, ys, (lows, highs)


def _keywords(of: str, label: str | None, **look: Any) -> dict[str, Any]:
    """What matplotlib is told about the object: its ink, its name in the legend, its look."""
    return {"color": COLOURS[of], "label": of if label is None else label or None, **look}


def _check_interval(of: str, low: Any, high: Any, exact: bool) -> bool:
    if (low is None) != (high is None):
        raise UserError(f"the series {of!r} has one end of an interval; give both low and high")
    if low is None and not exact:
        raise UserError(
            f"the series {of!r} has no interval: give low and high, or exact=True if it has no "
            f"sampling error"
        )
    if low is not None and exact:
        raise UserError(
            f"the series {of!r} has an interval and is declared exact; keep one of the two"
        )
    return low is not None


def diverging() -> Colormap:
    """Colour map for signed values: negative warm, positive cool, zero the ground of the page."""
    from matplotlib.colors import LinearSegmentedColormap

    stops: list[Any] = [COLOURS["pass@k"], ground(), COLOURS["pass@1"]]
    return LinearSegmentedColormap.from_list(f"passgrad-diverging-{_theme.get()}", stops)


def sequential(of: str = "pass@1") -> Colormap:
    """Colour map for values from zero up: from near the ground of the page to the ink of ``of``."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    start = np.asarray(to_rgb(ground())) * 0.92 + np.asarray(to_rgb(COLOURS[of])) * 0.08
    return LinearSegmentedColormap.from_list(
        f"passgrad-{of}-{_theme.get()}", [tuple(start), COLOURS[of]]
    )


def heatmap(
    ax: Axes,
    matrix: Any,
    *,
    label: str,
    limit: float | None = None,
    groups: Sequence[str] | None = None,
    colorbar: bool = True,
    **style: Any,
) -> Any:
    """A matrix of signed values, symmetric colours about zero, for instance the kernel of the
    prompts.

    :param matrix: Shape (rows, columns).
    :param label: What the colours mean; text of the colour bar.
    :param limit: Absolute value at the end of the colours; the largest absolute entry by default.
    :param groups: One label a row, equal labels adjacent; blocks are separated by lines and named
        on the axes.
    """
    import seaborn as sns

    values = _array(matrix)
    if values.ndim != 2:
        raise UserError(f"a heat map needs a matrix, got {values.ndim} dimension(s)")
    bound = limit if limit is not None else float(np.nanmax(np.abs(values))) or 1.0
    keywords: dict[str, Any] = {
        "cmap": diverging(),
        "vmin": -bound,
        "vmax": bound,
        "square": values.shape[0] == values.shape[1],
        "xticklabels": False,
        "yticklabels": False,
        "rasterized": values.size
        > 150,  # as vectors, a kernel of 200 prompts would weigh megabytes
        "cbar": colorbar,
        "cbar_kws": {"label": label, "shrink": 0.85},
    }
    keywords.update(style)
    sns.heatmap(values, ax=ax, **keywords)
    if colorbar and ax.collections:
        bar = ax.collections[0].colorbar
        if bar is not None and bar.solids is not None:
            bar.outline.set_visible(False)
            bar.solids.set_rasterized(True)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if groups is not None:
        _mark_groups(ax, list(groups), values.shape)
    return ax


def _mark_groups(ax: Axes, groups: list[str], shape: tuple[int, ...]) -> None:
    if len(groups) != shape[0]:
        raise UserError(
            f"a heat map of {shape[0]} rows needs as many group labels, got {len(groups)}"
        )
    starts = [0, *(i for i in range(1, len(groups)) if groups[i] != groups[i - 1])]
    ends = [*starts[1:], len(groups)]
    for edge in starts[1:]:
        ax.axhline(edge, color=ink(), linewidth=1.0)
        if shape[0] == shape[1]:
            ax.axvline(edge, color=ink(), linewidth=1.0)
    centres = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [groups[start] for start in starts]
    ax.set_yticks(centres, names, rotation=90, va="center")
    ax.tick_params(length=0)
    if shape[0] == shape[1]:
        ax.set_xticks(centres, names, rotation=0)


def histogram(ax: Axes, values: Any, *, of: str, label: str | None = None, **style: Any) -> Any:
    """Distribution of exact values over prompts (seaborn's ``histplot``); pass ``weights`` for
    masses.
    """
    import seaborn as sns

    keywords: dict[str, Any] = {
        "color": COLOURS[of],
        "label": of if label is None else label or None,
        "element": "step",
        "alpha": 0.35,
        "linewidth": 1.6,
        "edgecolor": COLOURS[of],
        "ax": ax,
    }
    if keywords["element"] == "step":
        keywords["linestyle"] = style_of(of).dash
    keywords.update(style)
    sns.histplot(x=_array(values), **keywords)
    return ax


def zero(ax: Axes) -> None:
    """A thin line at zero: below it an inner product means conflict."""
    ax.axhline(0.0, color=COLOURS["neutral"], linewidth=1.0, zorder=0)


def k_axis(ax: Axes, ks: Any = None, label: str = "k") -> None:
    """The horizontal axis counts samples: powers of two, written as numbers."""
    from matplotlib.ticker import NullLocator, ScalarFormatter

    ax.set_xscale("log", base=2)
    if ks is not None:
        values = _array(ks)
        powers = 2.0 ** np.arange(
            np.floor(np.log2(values.min())), np.floor(np.log2(values.max())) + 1
        )
        step = max(1, int(np.ceil(powers.size / 9)))
        ax.set_xticks(powers[::step])
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    ax.xaxis.set_major_formatter(formatter)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(label)


def panel(ax: Axes, text: str) -> None:
    """Name of one panel of a figure, above its upper left corner (a figure has no title, its
    caption has).
    """
    ax.annotate(
        text,
        xy=(0.0, 1.0),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=ink(),
    )


def legend(ax: Axes, **where: Any) -> Any:
    """The legend, without a frame and with lines long enough to show their dashes."""
    return ax.legend(**{"handlelength": 3.0, **where})


@dataclass(frozen=True)
class Bundle:
    """What a cell displays: both SVG images, the alternative text, the data and a PDF."""

    light: bytes
    dark: bytes
    pdf: bytes
    alt: str
    csv: bytes | None = None
    rows: int = 0
    name: str = "figure"
    wide: bool = False

    def to_html(self) -> str:
        """Two images, one a theme, and the link to the data."""
        alt = html.escape(self.alt, quote=True)
        kind = "passgrad-figure passgrad-wide" if self.wide else "passgrad-figure"
        images = "".join(
            f'<img class="{classes}" alt="{alt}" src="data:image/svg+xml;base64,{_base64(svg)}"/>'
            for classes, svg in (
                (f"only-light dark-light {kind}", self.light),
                (f"only-dark dark-light {kind}", self.dark),
            )
        )
        link = ""
        if self.csv is not None:
            link = (
                f'<p class="figure-data"><a download="{html.escape(self.name, quote=True)}.csv" '
                f'href="data:text/csv;base64,{_base64(self.csv)}">data behind this figure</a> '
                f"(CSV, {self.rows} rows)</p>"
            )
        return f'<div class="passgrad-bundle">{images}{link}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/html": self.to_html(),
            "application/pdf": _base64(self.pdf),
            "text/plain": self.alt,
        }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def show(
    draw: Callable[[Any], Any],
    *,
    alt: str,
    data: pd.DataFrame | None = None,
    nrows: int = 1,
    ncols: int = 1,
    size: tuple[float, float] = (6.4, 3.6),
    name: str = "figure",
    **layout: Any,
) -> Bundle:
    """Draw a figure for both pages and return what the cell shows.

    :param draw: Called with the axes: one :class:`~matplotlib.axes.Axes` when there is a single
        panel, otherwise the array that :meth:`matplotlib.figure.Figure.subplots` returns. It is
        called once a theme, so it must not compute anything long or draw random numbers.
    :param alt: What the figure shows, with numbers, for readers who do not see it; at least 30
        characters.
    :param data: The numbers behind the figure; offered as a CSV file below it.
    :param size: Width and height in inches.
    :param name: Name of the CSV file, without its ending.
    :param layout: Further arguments of :meth:`~matplotlib.figure.Figure.subplots` (``sharey``,
        ``width_ratios`` ...).
    :raises UserError: When the alternative text is too short, or when the drawing sets a title (the
        caption has it).
    """
    text = " ".join(alt.split())
    if len(text) < MIN_ALT:
        raise UserError(
            f"the alternative text has {len(text)} characters, at least {MIN_ALT} are needed: "
            "say what the figure shows, with its numbers"
        )
    light, pdf = _render(draw, "light", nrows, ncols, size, layout, with_pdf=True)
    dark, _ = _render(draw, "dark", nrows, ncols, size, layout, with_pdf=False)
    csv = None
    if data is not None:
        csv = data.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()
    return Bundle(
        light, dark, pdf, text, csv, 0 if data is None else len(data), name, wide=size[0] > 7
    )


def _render(
    draw: Callable[[Any], Any],
    name: Theme,
    nrows: int,
    ncols: int,
    size: tuple[float, float],
    layout: dict[str, Any],
    *,
    with_pdf: bool,
) -> tuple[bytes, bytes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with theme(name):
        # Not pyplot: a figure of its own leaves no global state behind, whatever happens in draw.
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(nrows, ncols, **layout)
        draw(axes)
        if figure.get_suptitle() or any(
            panel_axes.get_title(loc)
            for panel_axes in figure.axes
            for loc in ("left", "center", "right")
        ):
            raise UserError(
                "a figure has no title: its caption says it; name panels with figures.panel"
            )
        svg = io.BytesIO()
        # Date and Creator would change from run to run and from version to version.
        figure.savefig(
            svg, format="svg", dpi=200, transparent=True, metadata={"Date": None, "Creator": None}
        )
        pdf = io.BytesIO()
        if with_pdf:
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            figure.savefig(pdf, format="pdf", dpi=200, transparent=True, metadata=metadata)
    return svg.getvalue(), pdf.getvalue()
