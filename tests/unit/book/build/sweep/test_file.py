"""Sweep files: what is refused, in one line with the file, the key and the remedy."""

import pytest

from passgrad.errors import UserError
from passgrad_book.build.sweep.file import read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", " is not YAML (line 1); mend it"),
        ("- a", ": the file must map keys to values; it needs the key runs"),
        ("executor: {}", ": runs: missing; add it"),
        ("runs: []", ": runs: there is no run; add an entry with a notebook"),
        (
            "runs: [{notebook: '01'}]\nspeed: 3",
            ": speed: unknown key; known keys here: runs",
        ),
        (
            "runs: [{notebook: '01', gird: {a: [1]}}]",
            ": runs.0.gird: unknown key; known keys here: notebook, profile, parameters, grid, li",
        ),
        (
            "runs: [{notebook: '01'}]\nexecutor: {queue: x}",
            ": executor.queue: unknown key; known keys here: kind, jobs,",
        ),
        ("runs: [{grid: {a: [1]}}]", ": runs.0.notebook: missing; add it"),
        (
            "runs: [{notebook: 3}]",
            ": runs.0.notebook: input should be a valid string, got 3; change",
        ),
        ("runs: [{notebook: '01', grid: {a: 3}}]", ": runs.0.grid.a: input should be a valid list"),
        (
            "runs: [{notebook: '01'}]\nexecutor: {kind: pbs}",
            ": executor.kind: input should be 'local' or 'slurm', got 'pbs'; change the value",
        ),
        (
            "runs: [{notebook: '01'}]\nexecutor: {jobs: 0}",
            ": executor.jobs: input should be greater",
        ),
        (
            "runs: [{notebook: '01'}]\nexecutor: {jobs: '2'}",
            ": executor.jobs: input should be a val",
        ),
    ],
)
def test_what_is_wrong_is_one_line(sweep_file, text, message):
    with pytest.raises(UserError) as caught:
        read(sweep_file(text))
    assert str(caught.value).startswith(f"sweep_test.yml{message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no.yml cannot be read.*give the path of a sweep file"):
        read(tmp_path / "no.yml")


def test_the_example_is_valid(root):
    made = read(root / "examples" / "sweep_toy.yml")
    assert made.runs[0].grid
    assert made.executor.kind == "local"
