import numpy as np
import pandas as pd
import pytest

from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments import two_conventions
from passgrad_book.experiments.conflict_free.frontier import until_conflict
from passgrad_book.experiments.conflict_free.stored import frontier_language

LOOK = {"k": 10, "step_size": 2.0, "steps": 30}


def test_it_stops_at_the_first_conflict():
    world, theta = TwoPointBandit(hard_fraction=0.4), (0.0, -0.5)
    end, table = until_conflict(world, theta, cosine=-0.75, **LOOK)
    assert list(table.columns) == ["step", "pass_at_1", "pass_at_k", "cosine"]
    assert (table["cosine"].iloc[:-1] >= -0.75).all()
    assert table["cosine"].iloc[-1] < -0.75
    assert 0 < table["step"].iloc[-1] < LOOK["steps"]
    measured = conflict(world, end, [10])
    assert table["cosine"].iloc[-1] == pytest.approx(float(measured.cosine[0]))
    assert table["pass_at_1"].iloc[-1] == pytest.approx(float(world.masses @ world.success(end)))
    assert theta == (0.0, -0.5)


def test_it_goes_no_farther_than_it_may():
    _, table = until_conflict(TwoPointBandit(), (0.0, -0.5), cosine=-1.5, **LOOK | {"steps": 4})
    assert table["step"].tolist() == [0, 1, 2, 3, 4]
    _, none = until_conflict(TwoPointBandit(), (-2.0, -2.0), cosine=0.0, **LOOK)
    assert none["step"].tolist() == [0]


def test_the_two_conventions(tiny_model, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(two_conventions, "load_model", lambda _: (tiny_model(), tiny_tokenizer))
    given = {
        "model": "tiny", "seed": 1, "num_prompts": 2, "num_examples": 1, "hard_fraction": 0.25,
        "warmup_steps": 1, "warmup_step_size": 0.1, "warmup_cosine": -1.0,
        "methods": ["pass@k", "constrained"], "k": 4, "steps": 2, "length": 0.01,
    }  # fmt: skip
    tables = frontier_language(**given)
    assert set(tables) == {"path", "prompts", "warmup"}
    path, prompts = tables["path"], tables["prompts"]
    assert path["step"].tolist() == [0, 1, 2] * 2
    assert path["pass_at_1"].iloc[0] == pytest.approx(tables["warmup"]["pass_at_1"].iloc[-1])
    masses = prompts[prompts["method"] == "pass@k"].groupby("group")["mass"].sum()
    assert masses.to_dict() == pytest.approx({"base 10": 0.75, "base 9": 0.25})
    np.testing.assert_allclose(path["length"].dropna(), 0.01, rtol=1e-6)
    again = frontier_language(**given)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])
