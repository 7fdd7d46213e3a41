"""A log from end to end: verdict, tables, report, and what is refused."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import passgrad as pg
from passgrad.cli import main
from passgrad.errors import UserError
from passgrad.measurement.logs.compared import compare
from passgrad.measurement.logs.fallen import adjusted, p_values
from passgrad.measurement.logs.planning import plan_from_log, plan_log
from passgrad.measurement.logs.run import LoggedRun, logs
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.measurement.logs.weighing import selected, silent_table, weight_table
from passgrad.orders import Orders

KS = [1, 2, 8]


def _conflict(num_prompts: int = 600, answers: int = 16, seed: int = 0) -> Visits:
    """A run that raises hard prompts a little and lowers easy ones: pass@8 rises, pass@1 falls."""
    rng = np.random.default_rng(seed)
    hard = np.arange(num_prompts) < num_prompts // 2
    start = np.where(hard, 0.05, 0.9)
    rows = []
    for step in range(8):
        p = start + np.where(hard, 0.10, -0.25) * (step >= 4)
        rows.append(rng.binomial(answers, p))
    return Visits.of(
        np.tile(np.arange(num_prompts), 8),
        np.repeat(np.arange(8), num_prompts),
        answers,
        np.concatenate(rows),
        groups=np.tile(np.where(hard, "hard", "easy"), 8),
    )


@pytest.fixture(scope="module")
def read() -> LoggedRun:
    return logs(_conflict(), ks=KS, windows=2)


def test_the_verdict_names_the_orders(read: LoggedRun) -> None:
    assert read.whole.orders(1) == [2, 8]
    assert read.whole.orders(-1) == [1]
    assert read.verdict.startswith(
        "From steps 0 to 3 to steps 4 to 7 the run went up pass@k at k = 2, 8 and against pass@k "
        "at k = 1"
    )


def test_the_parts_of_the_groups_add_up(read: LoggedRun) -> None:
    parts = read.whole.groups.groupby("k")["part"].sum()
    assert parts.to_numpy() == pytest.approx(np.asarray(read.whole.product.value))
    hard = read.whole.groups.query("group == 'hard'").set_index("k")
    assert (hard["low"] > 0).all()


def test_groups_by_starting_rate_do_not_rise_by_chance() -> None:
    """Nothing changes, and the prompts that were never solved at first do not seem to rise."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.4, 4000)
    visits = Visits.of(
        np.tile(np.arange(4000), 2), np.repeat([0, 1], 4000), 16, rng.binomial(16, np.tile(p, 2))
    )
    groups = compare(visits, Window(0, 0), Window(1, 1), Orders.of([1, 2, 4, 8])).groups
    known = groups[np.isfinite(groups["low"])]
    assert len(known) > 12
    errors = (known["high"] - known["part"]) / 1.96
    assert (known["part"].abs() < 4 * errors).all()


def test_prompts_that_fell_are_found(read: LoggedRun) -> None:
    table = read.whole.prompts.set_index("prompt_id")
    easy = table[table["group"] == "easy"]
    assert (easy["finding"] == "fell").mean() > 0.8
    assert not (easy["finding"] == "rose").any()
    assert read.record["fell"] == (table["finding"] == "fell").sum()


def test_false_discoveries_are_rare_where_nothing_changes() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(0.5, 0.5, 3000)
    visits = Visits.of(
        np.tile(np.arange(3000), 2), np.repeat([0, 1], 3000), 32, rng.binomial(32, np.tile(p, 2))
    )
    table = compare(visits, Window(0, 0), Window(1, 1), Orders.of(1)).prompts
    assert (table["finding"] == "open").mean() > 0.999


def test_fishers_test_is_scipys() -> None:
    from scipy.stats import fisher_exact

    visits = Visits.of([*range(12)] * 2, [0] * 12 + [1] * 12, 9, [*range(1, 10), 9, 0, 4] * 2)
    n, c = visits.counts(Window(0, 0))
    from passgrad.measurement.logs.change import Pair

    pair = Pair(Window(0, 0), Window(1, 1), np.arange(12), n, c, n, c[::-1].copy())
    rose, fell = p_values(pair)
    for place in range(12):
        table = [
            [pair.correct_after[place], 9 - pair.correct_after[place]],
            [pair.correct_before[place], 9 - pair.correct_before[place]],
        ]
        assert rose[place] == pytest.approx(fisher_exact(table, "greater")[1])
        assert fell[place] == pytest.approx(fisher_exact(table, "less")[1])
    assert (adjusted(rose) >= rose).all()


def test_weights_of_the_never_solved() -> None:
    n, c = np.full(4, 8), np.array([0, 0, 4, 8])
    table = weight_table(n, c, Orders.of([1, 2, 4])).set_index("k")
    assert table.loc[1, "never_solved"] == 0.5
    assert table.loc[2, "never_solved"] == pytest.approx(2 * 2 / (2 * 2 + 2 * 0.5))
    strata = weight_table(n, c, Orders.of(1), masses=np.array([1.0, 1, 1, 5]))
    assert strata["never_solved"].iloc[0] == pytest.approx(0.25)


def test_silent_groups_are_those_without_an_advantage() -> None:
    """At k = 4 of 8 answers, a right one decides nothing where fewer than 3 others are wrong."""
    visits = Visits.of([0] * 9, range(9), 8, range(9))
    table = silent_table(visits, Orders.of([1, 4, 8])).set_index("k")
    assert table.loc[1, "silent"] == pytest.approx(2 / 9)
    rewards = np.tril(np.ones((9, 8)), -1)
    advantages = pg.advantages(rewards, 4, estimator="pkpo-loo1")
    silent = (np.abs(np.asarray(advantages)) < 1e-12).all(axis=1)
    assert table.loc[4, "silent"] == pytest.approx(silent.mean())
    assert np.isnan(table.loc[8, "silent"])
    assert table["redrawn"].tolist() == pytest.approx([2 / 9] * 3)


def test_a_log_without_silent_groups_was_selected() -> None:
    rng = np.random.default_rng(0)
    c = rng.binomial(4, np.tile(rng.beta(0.4, 0.4, 200), 10))
    columns = (np.tile(np.arange(200), 10), np.repeat(np.arange(10), 200))
    assert not selected(Visits.of(*columns, 4, c))
    kept = (c > 0) & (c < 4)
    filtered = Visits.of(columns[0][kept], columns[1][kept], 4, c[kept])
    assert selected(filtered)
    assert "were left out" in logs(filtered, ks=[1], windows=2).remarks[0]


def test_another_sampling_law_is_refused() -> None:
    visits = _conflict(20)
    law = {"temperature": {"1.0": Window(0, 3), "0.6": Window(4, 7)}}
    other = Visits(
        visits.prompt, visits.step, visits.num_samples, visits.num_correct, visits.prompt_ids,
        laws=law,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"temperature is 1.0 in steps 0 to 3 and 0.6 in steps 4"):
        logs(other, ks=[1], windows=2)
    assert logs(other, ks=[1], windows=[Window(0, 1), Window(2, 3)]).whole.num_prompts == 20


def test_prompts_of_a_curriculum_are_named() -> None:
    late = np.arange(60) >= 40
    prompt = np.concatenate([np.flatnonzero(~late), np.arange(60)])
    step = np.repeat([0, 1], [40, 60])
    found = logs(Visits.of(prompt, step, 8, 4), ks=[1], windows=2)
    assert found.whole.num_prompts == 40
    assert "20 of 60 prompts" in found.remarks[-1]


def test_a_folder_is_gone_on_with(tmp_path: Path) -> None:
    visits = _conflict(40)
    path, out = tmp_path / "log.parquet", tmp_path / "out"
    pd.DataFrame(
        {
            "prompt": visits.prompt, "step": visits.step, "num_samples": visits.num_samples,
            "num_correct": visits.num_correct,
        }
    ).to_parquet(path)  # fmt: skip
    first = logs(path, ks=KS, windows=2, out=out)
    assert {"logs.json", "report.html", "changes.parquet", "prompts.parquet"} <= {
        file.name for file in out.iterdir()
    }
    with pytest.raises(UserError, match=r"holds a reading of a log already.*--resume"):
        logs(path, ks=KS, windows=2, out=out)
    again = logs(path, ks=[1, 2], windows=4, out=out, resume=True)
    assert again.whole.num_prompts == first.whole.num_prompts
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(UserError, match="was read from another log"):
        logs(path, ks=KS, windows=2, out=out, resume=True)
    with pytest.raises(UserError, match="is not empty and holds no reading"):
        logs(visits, ks=KS, windows=2, out=tmp_path)


def test_the_report_escapes_what_the_log_says(tmp_path: Path) -> None:
    visits = _conflict(60)
    evil = Visits(
        visits.prompt, visits.step, visits.num_samples, visits.num_correct,
        [f"<script>{name}</script>" for name in visits.prompt_ids],
    )  # fmt: skip
    logs(evil, ks=KS, windows=4, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "Along the run" in page


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visits = _conflict(200)
    path = tmp_path / "log.jsonl"
    rows = zip(visits.prompt, visits.step, visits.num_correct, strict=True)
    path.write_text(
        "\n".join(
            json.dumps({"uid": str(p), "step": int(s), "rewards": [1] * int(c) + [0] * (16 - c)})
            for p, s, c in rows
        )
    )
    out = tmp_path / "out"
    call = ["logs", str(path), "--out", str(out), "--ks", "1,2,8", "--windows", "0:3,4:7"]
    with pytest.raises(SystemExit) as status:
        main(call)
    assert status.value.code == 0
    assert "against pass@k at k = 1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as status:
        main([*call[:-1], "0-3,4-7", "--resume"])
    assert status.value.code == 1
    assert "is neither a number nor windows such as 0:11,24:35" in capsys.readouterr().err


def test_a_plan_scales_with_the_answers() -> None:
    """From a quarter of the answers, the error that it foretells is that of the whole."""
    rng = np.random.default_rng(5)
    p = rng.uniform(0.2, 0.8, 400)
    after = np.clip(p + 0.05, 0, 1)

    def visits(answers: int) -> Visits:
        return Visits.of(
            np.tile(np.arange(400), 2), np.repeat([0, 1], 400), answers,
            np.concatenate([rng.binomial(answers, p), rng.binomial(answers, after)]),
        )  # fmt: skip

    plan = plan_log(logs(visits(16), ks=[1, 2], windows=2), effect=0.02)
    assert np.isfinite(plan.answers).all()
    many = int(plan.answers.max())
    error = np.asarray(logs(visits(many), ks=[1, 2], windows=2).whole.product.error)
    assert np.all(0.02 / error > 0.85 * (1.96 + 1.28))
    assert "or" in str(plan)


def test_a_plan_from_the_folder(tmp_path: Path) -> None:
    logs(_conflict(60), ks=KS, windows=2, out=tmp_path / "out")
    plan = plan_from_log(tmp_path / "out", ks=Orders.of([1, 2]))
    assert plan.to_frame()["k"].tolist() == [1, 2]
    with pytest.raises(UserError, match="holds no finished passgrad logs"):
        plan_from_log(tmp_path)
    with pytest.raises(UserError, match="needs twice as many answers as k"):
        plan_log(logs(_conflict(60), ks=[1, 64], windows=2))


def test_half_a_million_rows_take_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 200_000
    frame = pd.DataFrame(
        {
            "step": np.repeat(np.arange(50), rows // 50),
            "prompt": [f"What is {row % 1000} plus one? " for row in range(rows)],
            "reward": rng.integers(0, 2, rows).astype(float),
        }
    )
    frame.to_parquet(tmp_path / "log.parquet")
    begun = time.process_time()
    logs(tmp_path / "log.parquet", ks=[1, 2, 4], windows=4)
    assert time.process_time() - begun < 4
