"""The figure that :class:`~passgrad.trl.ConflictCallback` leaves in the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad import figures

if TYPE_CHECKING:
    from pandas import DataFrame


def draw(table: DataFrame, path: Path) -> None:
    """The measurements over the steps: pass@1 and pass@k, the product, and the agreement."""
    import matplotlib.pyplot as plt

    order = int(table["k"].iloc[-1])
    steps = table["step"]
    with figures.theme("light"):
        canvas, axes = plt.subplots(3, 1, figsize=(6.4, 7.2), sharex=True, layout="constrained")
        # Points of single batches; what is known of their error stands in the second panel.
        plain: dict[str, Any] = {"exact": True, "linestyle": "-", "linewidth": 0.8}
        figures.points(axes[0], steps, table["pass@1"], of="pass@1", **plain)
        name = f"pass@{order}"
        figures.points(axes[0], steps, table["pass@k"], of="pass@k", label=name, **plain)
        axes[0].set_ylabel("of the batch")
        figures.legend(axes[0])
        known = table[table["error_inner_product"].notna()]
        if len(known):
            mean, error = known["mean_inner_product"], 2 * known["error_inner_product"]
            figures.curve(
                axes[1],
                known["step"],
                mean,
                of="agreement",
                low=mean - error,
                high=mean + error,
                label="mean and twice its error",
            )
        figures.points(
            axes[1], steps, table["inner_product"], of="neutral", label="batch", exact=True
        )
        figures.zero(axes[1])
        axes[1].set_ylabel(f"$\\langle\\nabla J_{{{order}}}, \\nabla J_1\\rangle$")
        figures.legend(axes[1])
        figures.points(
            axes[2], steps, table["negative_agreement"], of="conflict", label="", **plain
        )
        axes[2].set_ylabel("share of prompts with\nnegative agreement")
        axes[2].set_ylim(-0.05, 1.05)
        axes[2].set_xlabel("step")
        axes[2].xaxis.get_major_locator().set_params(integer=True)
        canvas.savefig(path, dpi=150)
        plt.close(canvas)
