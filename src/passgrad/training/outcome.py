"""What came of a run: start, lowest point and end on held-out prompts, as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from passgrad.palette import style_of
from passgrad.stats import paired_change
from passgrad.stats.intervals import Prompts


def outcome(
    held_out: Sequence[Mapping[str, Any]],
    orders: Sequence[int],
    reading: Prompts,
    silent: float | None,
) -> dict[str, Any]:
    """Of the rows of ``held_out.jsonl``: for each order its start, lowest point, end, and the
    change from start to end with an interval of its own, of the same prompts at both.

    The lowest point is the lowest of all that were measured, and lies low by that choice; the
    interval is that of the measurement.

    :param silent: The share of groups whose advantages were all 0.
    """
    start, end = held_out[0], held_out[-1]
    found: dict[str, Any] = {"steps": end["step"], "silent_groups": silent, "orders": {}}
    change = paired_change(
        start["num_samples"], start["num_correct"], end["num_correct"], list(orders),
        prompts=reading, simultaneous=False,
    ).to_frame()  # fmt: skip
    for place, k in enumerate(orders):
        name = f"pass@{k}"
        lowest = min(held_out, key=lambda row: row[name])
        points = {
            word: {
                "step": row["step"], "value": row[name], "low": row[f"{name}_low"],
                "high": row[f"{name}_high"],
            }
            for word, row in (("start", start), ("lowest", lowest), ("end", end))
        }  # fmt: skip
        moved = {
            "value": float(change["change"][place]), "low": float(change["low"][place]),
            "high": float(change["high"][place]),
        }  # fmt: skip
        found["orders"][name] = points | {"change": moved}
    return found


def silent_share(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of groups of training whose advantages were all 0, from the rows of ``log.jsonl``:
    all steps have as many groups.
    """
    shares = [row["passk/silent_groups"] for row in steps if "passk/silent_groups" in row]
    return sum(shares) / len(shares) if shares else None


def table(found: Mapping[str, Any]) -> list[str]:
    """The lines that the command prints."""
    head = ("", "start", "lowest", "end", "change")
    lines = ["".join(f"{cell:<24}" if cell else f"{'':8}" for cell in head).rstrip()]
    for name, points in found["orders"].items():
        cells = [
            f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
            for one in (points["start"], points["lowest"], points["end"])
        ]
        moved = points["change"]
        cells.append(f"{moved['value']:+.3f} [{moved['low']:+.3f}, {moved['high']:+.3f}]")
        lines.append(f"{name:<8}" + "".join(f"{cell:<24}" for cell in cells).rstrip())
    if found["silent_groups"] is not None:
        lines.append(f"groups that moved nothing: {found['silent_groups']:.0%}")
    return lines


def draw(
    held_out: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]],
    orders: Sequence[int], path: Path,
) -> None:  # fmt: skip
    """Held-out pass@1 and pass@k over the steps with their intervals; behind them, faintly, the
    success rate of the batches.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    canvas = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = canvas.subplots()
    batches = [row for row in steps if "reward" in row]
    axes.plot(
        [row["step"] for row in batches], [row["reward"] for row in batches],
        color=style_of("neutral").light, linewidth=0.6, label="batches, pass@1",
    )  # fmt: skip
    places = [row["step"] for row in held_out]
    for k in orders:
        name = f"pass@{k}"
        style = style_of(name)
        low, high = ([row[f"{name}_{end}"] for row in held_out] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=style.light, alpha=0.15, linewidth=0)
        axes.plot(
            places, [row[name] for row in held_out], color=style.light, linestyle=style.dash,
            marker=style.marker, label=f"held out, {name}",
        )  # fmt: skip
    axes.set(xlabel="step", ylabel="share solved", ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")
    canvas.savefig(path, metadata={"Date": None})
