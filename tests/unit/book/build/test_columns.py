import numpy as np
import pandas as pd
import pytest

from passgrad.interference import conflict
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.build import columns

KS = [1, 2, 5, 10]


@pytest.fixture
def tables():
    curve = conflict(GaussianBandit().sample(6, 4, seed=0), (-2.0, -1.0), KS)
    return {"conflict": curve.to_frame(), "prompts": curve.prompts_frame()}


def test_the_columns_of_a_measurement_fit(tables):
    found = columns.gaps(tables)
    assert set(found) == {
        "inner_product", "cosine", "mean_weight", "pass_at_k", "weight", "mean_agreement", "mass",
    }  # fmt: skip
    assert max(found.values()) < 1e-12


@pytest.mark.parametrize(
    ("table", "column", "identity"),
    [
        ("conflict", "inner_product", "inner_product"),
        ("conflict", "cosine", "cosine"),
        ("conflict", "mean_weight", "mean_weight"),
        ("conflict", "pass_at_k", "pass_at_k"),
        ("prompts", "agreement", "inner_product"),
        ("prompts", "success", "weight"),
        ("prompts", "weight_5", "weight"),
        ("prompts", "mass", "mass"),
    ],
)
def test_a_changed_number_is_noticed(tables, table, column, identity):
    changed = tables | {table: tables[table].copy()}
    changed[table].loc[2, column] *= 1.01
    assert columns.gaps(changed)[identity] > columns.TOLERANCE


def test_other_results_are_left_alone(tables):
    assert columns.gaps({"prompts": tables["prompts"]}) == {}
    assert columns.gaps({"counts": pd.DataFrame({"n": [1]})}) == {}
    estimates = tables["conflict"].assign(standard_error=0.1)
    assert columns.gaps({"prompts": tables["prompts"], "intervals": estimates}) == {}


def test_without_norms_the_product_is_compared_with_its_terms(tables):
    short = tables["conflict"][["k", "inner_product"]]
    found = columns.gaps({"prompts": tables["prompts"], "exact": short})
    assert found["inner_product"] < 1e-12
    assert "cosine" not in found
    short = short.assign(inner_product=short["inner_product"] * 1.01)
    assert (
        columns.gaps({"prompts": tables["prompts"], "exact": short})["inner_product"]
        > columns.TOLERANCE
    )


def test_pair_names_the_tables(tables):
    assert columns.pair(tables) == ("prompts", "conflict")
    twice = pd.concat([tables["conflict"]] * 2)
    assert columns.pair(tables | {"conflict": twice}) is None
    assert np.isfinite(list(columns.gaps(tables).values())).all()


@pytest.fixture
def walk():
    orders = pd.DataFrame(
        {"step": [0, 0, 5, 5], "k": [2, 8, 2, 8], "inner_product": [0.9, -0.3, 1e-40, 0.0],
         "norm": [1.0, 2.0, 1e-30, 0.0], "cosine": [0.9, -0.15, np.nan, np.nan],
         "part_easy": [1.0, 0.2, 1e-39, 0.0], "part_hard": [-0.1, -0.5, 0.0, 0.0]}
    )  # fmt: skip
    return {"orders": orders, "path": pd.DataFrame({"step": [0, 5], "norm_at_1": [1.0, 1e-12]})}


def test_parts_along_a_path_add_up(walk):
    assert max(columns.along_a_path(walk).values()) < 1e-12
    assert columns.along_a_path({"orders": walk["orders"]}) == {}
    for column, identity in (("part_easy", "parts"), ("cosine", "path_cosine")):
        changed = walk["orders"].copy()
        changed.loc[1, column] += 0.01
        assert columns.along_a_path(walk | {"orders": changed})[identity] > columns.TOLERANCE


def test_the_ends_of_a_path_are_those_of_the_prompts():
    prompts = pd.DataFrame(
        {"method": ["a", "a"], "mass": [0.5, 0.5], "success_start": [0.2, 0.6],
         "success_end": [0.4, 0.8]}
    )  # fmt: skip
    path = pd.DataFrame(
        {"method": ["a", "a"], "step": [0, 3], "pass_at_1": [0.4, 0.6], "pass_at_k": [0.6, 0.8]}
    )
    tables = {"prompts": prompts, "path": path}
    assert max(columns.at_the_ends(tables, 2).values()) < 1e-12
    assert columns.at_the_ends(tables, 3)["end"] > 0.01
    assert columns.at_the_ends(tables, None) == {}
    assert columns.at_the_ends({"path": path}, 2) == {}


def test_every_step_of_an_ascent_is_looked_at(tables):
    both = {
        name: pd.concat([frame.assign(step=step) for step in (0, 3)], ignore_index=True)
        for name, frame in tables.items()
    }
    assert max(columns.gaps(both).values()) < 1e-12
    both["conflict"].loc[6, "inner_product"] *= 1.01
    assert columns.gaps(both)["inner_product"] > columns.TOLERANCE
    assert columns.gaps({"conflict": both["conflict"], "prompts": tables["prompts"]}) == {}


def test_a_training_run_follows_from_its_prompts():
    prompts = pd.DataFrame(
        {"step": [0, 0, 1, 1], "p": [0.2, 0.6, 0.4, 0.8], "agreement": [0.3, -0.1, 0.5, 0.3]}
    )
    steps = pd.DataFrame(
        {"step": [0.0, 1.0], "pass@1": [0.4, 0.6], "pass@2": [0.6, 0.8],
         "norm pass@1": [0.1**0.5, 0.4**0.5]}
    )  # fmt: skip
    tables = {"prompts": prompts, "steps": steps}
    assert max(columns.along_a_training(tables).values()) < 1e-12
    for column, identity in (
        ("pass@2", "training_pass_at_k"),
        ("norm pass@1", "training_agreement"),
    ):
        changed = steps.copy()
        changed.loc[1, column] += 0.01
        assert columns.along_a_training(tables | {"steps": changed})[identity] > columns.TOLERANCE
    assert columns.along_a_training({"steps": steps}) == {}
