"""The figure that :class:`~passgrad.trl.ConflictCallback` leaves in the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.palette import style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series


def _points(ax: Axes, steps: Series, values: Series, of: str, **look: Any) -> None:
    """One mark a measurement, in the ink of the object ``of``."""
    style = style_of(of)
    ax.plot(steps, values, **{"color": style.light, "marker": style.marker, **look})


def draw(table: DataFrame, path: Path) -> None:
    """The measurements over the steps: pass@1 and pass@k, the product, and the agreement."""
    import matplotlib.pyplot as plt

    order = int(table["k"].iloc[-1])
    steps = table["step"]
    canvas, axes = plt.subplots(3, 1, figsize=(6.4, 7.2), sharex=True, layout="constrained")
    # Points of single batches; what is known of their error stands in the second panel.
    line: dict[str, Any] = {"linewidth": 0.8}
    _points(axes[0], steps, table["pass@1"], "pass@1", label="pass@1", **line)
    _points(axes[0], steps, table["pass@k"], "pass@k", label=f"pass@{order}", **line)
    axes[0].set_ylabel("of the batch")
    axes[0].legend()
    estimated = table[table["error_inner_product"].notna()]
    if len(estimated):
        mean, error = estimated["mean_inner_product"], 2 * estimated["error_inner_product"]
        ink = style_of("agreement").light
        label = "mean and twice its error"
        axes[1].plot(estimated["step"], mean, color=ink, label=label)
        axes[1].fill_between(
            estimated["step"], mean - error, mean + error, color=ink, alpha=0.25, linewidth=0
        )
    _points(axes[1], steps, table["inner_product"], "neutral", linestyle="none", label="batch")
    axes[1].axhline(0.0, color=style_of("neutral").light, linewidth=1.0, zorder=0)
    axes[1].set_ylabel(f"$\\langle\\nabla J_{{{order}}}, \\nabla J_1\\rangle$")
    axes[1].legend()
    _points(axes[2], steps, table["negative_agreement"], "conflict", **line)
    axes[2].set_ylabel("share of prompts with\nnegative agreement")
    axes[2].set_ylim(-0.05, 1.05)
    axes[2].set_xlabel("step")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    canvas.savefig(path, dpi=150)
    plt.close(canvas)
