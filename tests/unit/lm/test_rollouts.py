"""The table of completions."""

import math
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from passgrad.errors import UserError
from passgrad.lm.rollouts import SCHEMA, Rollouts, Sampling


def row(prompt="x", sample=0, reward=1.0, **changes):
    columns = {
        "prompt_id": prompt, "group": "g", "prompt": "1+1=", "sample": sample,
        "completion_ids": [5, 6], "completion": "2", "reward": reward, "logprob": -0.5,
        "finish_reason": "stop", "engine": "transformers", "max_new_tokens": 4, "stop": "\n",
    }  # fmt: skip
    return columns | asdict(Sampling()) | changes


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


@pytest.fixture
def rollouts():
    rewards = {"b": [1, 0, 1], "a": [0, 0, 0]}
    return Rollouts(
        table(*(row(x, i, r) for x, mine in rewards.items() for i, r in enumerate(mine)))
    )


def test_prompts_keep_their_order(rollouts):
    assert rollouts.prompt_ids == ["b", "a"]
    assert rollouts.num_samples == 3
    assert rollouts.rewards.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert rollouts.num_correct.tolist() == [2, 0]
    assert rollouts.num_correct.dtype.kind == "i"


def test_interleaved_rows_find_their_prompt():
    mixed = Rollouts(table(row("b", 0, 1.0), row("a", 0, 0.0), row("b", 1, 0.0), row("a", 1, 1.0)))
    assert mixed.rewards.tolist() == [[1, 0], [0, 1]]


def test_the_policy_itself_is_the_default_law():
    assert Sampling() == Sampling(seed=0, temperature=1.0, top_p=1.0, top_k=0)


def test_round_trip(rollouts, tmp_path):
    path = rollouts.write(tmp_path / "new" / "folder" / "r.parquet")
    again = Rollouts.read(path)
    assert again.table.equals(rollouts.table)
    assert again.table.schema == SCHEMA
    assert [p.name for p in path.parent.iterdir()] == ["r.parquet"]


def test_a_write_that_fails_leaves_the_old_file(rollouts, tmp_path, monkeypatch):
    path = rollouts.write(tmp_path / "r.parquet")
    before = path.read_bytes()

    def fail(table, where, **options):
        with open(where, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        rollouts.write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]


def damaged(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[4:middle] = bytes(middle - 4)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: p.write_text("not parquet at all"), "cannot be read as parquet"),
        (lambda p: p.write_bytes(p.read_bytes()[:-20]), "cannot be read as parquet"),
        (lambda p: p.write_bytes(b""), "cannot be read as parquet"),
        (damaged, "cannot be read as parquet"),
        (lambda p: pq.write_table(pa.table({"a": [1]}), p), r"the rollouts lack the columns \['pr"),
        (lambda p: pq.write_table(table(), p), "the table of rollouts is empty"),
        (
            lambda p: pq.write_table(table(row("x", 0), row("x", 1), row("y", 0)), p),
            "between 1 and 2 completions; give the same number",
        ),
        (
            lambda p: pq.write_table(retyped("reward", pa.string(), "good"), p),
            "the column reward",
        ),
        (
            lambda p: pq.write_table(retyped("completion_ids", pa.string(), "5 6"), p),
            "the column completion_ids",
        ),
    ],
)
def test_bad_files(rollouts, tmp_path, spoil, message):
    path = rollouts.write(tmp_path / "r.parquet")
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        Rollouts.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def retyped(name, kind, value):
    whole = table(row())
    place = SCHEMA.names.index(name)
    return whole.set_column(place, name, pa.array([value], kind))


def test_columns_of_a_wider_type_are_taken():
    """What other tools wrote: 64-bit counts, large strings, columns in another order."""
    whole = table(row())
    place = SCHEMA.names.index("sample")
    wide = whole.set_column(place, "sample", pa.array([0], pa.int64()))
    wide = wide.select(sorted(wide.column_names)).append_column("note", pa.array(["x"]))
    assert Rollouts(wide).table.schema == SCHEMA


@pytest.mark.parametrize(("reward", "name"), [(math.nan, "nan"), (0.5, "0.5"), (-1.0, "-1")])
def test_rewards_that_are_not_binary(reward, name):
    bad = Rollouts(table(row("x", 0, 1.0), row("x", 1, reward)))
    with pytest.raises(UserError, match=name):
        _ = bad.rewards
    with pytest.raises(UserError, match=name):
        _ = bad.num_correct


def test_a_missing_reward_is_not_binary():
    bad = Rollouts(table(row("x", 0, 1.0), row("x", 1, None)))
    with pytest.raises(UserError, match=r"rewards\[0, 1\] is nan"):
        _ = bad.rewards
    assert np.isnan(bad.table["reward"].to_numpy()[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature is 0; give a positive number"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"top_k": -1}, "top_k is -1"),
    ],
)
def test_laws_that_are_none(settings, message):
    with pytest.raises(UserError, match=message):
        Sampling(**settings)
