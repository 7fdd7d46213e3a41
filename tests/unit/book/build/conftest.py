"""An experiment of these tests, in a checkout of its own."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from passgrad_book.build.experiment import DOUBLE, HOMES, Tolerance, experiment


class Toy:
    """``doubled`` is the experiment; the rest is what a test may change.

    ``factor`` stands for its code, ``digest`` for the digest of that code, and ``model`` for the
    weights that are at hand; ``runs`` counts its computations.
    """

    def __init__(self):
        self.factor, self.digest, self.model, self.runs = 2.0, "a" * 64, "ab" * 32, 0
        self.tables = None

        def doubled(*, size, seed=0, path=""):
            self.runs += 1
            x = np.arange(1.0, size + 1)
            curve = {
                "x": x,
                "y": self.factor * x + seed,
                "n": range(size),
                "name": list("abcdef")[:size],
            }
            return self.tables or {"curve": pd.DataFrame(curve)}

        doubled.__module__ = "passgrad.metrics"
        declare = experiment(
            version=1, label="size-{size}-seed-{seed}", files=["path"],
            inputs=lambda parameters: {"model": self.model},
        )  # fmt: skip
        self.doubled = declare(doubled)
        loose = {"curve.x": Tolerance(0.5, "a test")}
        self.doubled.witnessed(size=3, tolerance=DOUBLE, columns=loose)


@pytest.fixture
def toy(checkout, monkeypatch):
    """The only experiment there is; its witness is written and its code not yet known."""
    toy = Toy()
    homes = dict(HOMES)
    HOMES.clear()
    HOMES["doubled"] = "experiments.doubled"
    module = SimpleNamespace(doubled=toy.doubled)
    monkeypatch.setitem(sys.modules, "passgrad_book.experiments.doubled", module)
    monkeypatch.setattr("passgrad_book.build.sources.digest", lambda modules: toy.digest)
    (checkout / "data").mkdir()
    yield toy
    HOMES.clear()
    HOMES.update(homes)


@pytest.fixture
def problems(tmp_path):
    """A file that an experiment reads."""
    path = tmp_path / "problems.jsonl"
    path.write_text("{}\n")
    return path
