"""Draw the figure of the README from the stored results of the two-conventions experiment.

Run by `make figures`. Two runs give the same bytes.
"""

from __future__ import annotations

import pandas as pd

from passgrad_book.build import figures, paths, results

EXPERIMENT = "two_conventions"
#: columns: seed (choice of prompts), k, cosine between the gradients of pass@1 and pass@k
TABLE = "conflict"

ALT = "Cosine between the gradients of pass@1 and pass@k against k for SmolLM2-135M, exact values."


def curves() -> pd.DataFrame:
    """One row a seed and k, from every stored seed."""
    folder = paths.results() / EXPERIMENT / "cpu"
    names = sorted(path.stem for path in folder.glob("seed-*.json"))
    frames = [
        results.load(EXPERIMENT, name)[TABLE].assign(seed=int(name.removeprefix("seed-")))
        for name in names
    ]
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    """Write the light and the dark image."""
    by_k = curves().groupby("k")["cosine"]
    middle, low, high = by_k.median(), by_k.min(), by_k.max()

    def draw(ax):
        figures.zero(ax)
        figures.curve(ax, middle.index, middle, of="pass@k", low=low, high=high, label="")
        figures.k_axis(ax, middle.index)
        ax.set_ylabel("cosine of the gradients\nof pass@1 and pass@k")

    bundle = figures.show(draw, alt=ALT)
    target = paths.root() / "book" / "_static"
    for name, image in (("conflict.svg", bundle.light), ("conflict-dark.svg", bundle.dark)):
        results.write_atomic(target / name, image)
        print(f"book/_static/{name}: {len(image) / 1024:.0f} kB")


if __name__ == "__main__":
    main()
