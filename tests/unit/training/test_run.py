"""Runs of ``passgrad train`` on a tiny model: what they leave, how they stop and go on."""

import json
import os
import shutil
import signal

import pandas as pd
import pytest
import torch

from passgrad import UserError
from passgrad.training import Settings, train
from passgrad.training.folder import read_lines
from passgrad.training.run import Stopped


class Killed(Exception):
    """As if the process had ended here."""


class Ending:
    """A progress that ends the run when a number of steps is done."""

    def __init__(self, step, deed):
        self.step, self.deed, self.done = step, deed, 0

    def stage(self, name, total):
        pass

    def note(self, text):
        pass

    def advance(self, amount=1):
        self.done += amount
        if self.done == self.step:
            self.deed()


def kill():
    raise Killed


def lines(out, name="log.jsonl"):
    """The rows of a log without what depends on the clock."""
    clock = ("time", "runtime", "seconds", "per_second")
    return [
        {key: value for key, value in row.items() if not any(word in key for word in clock)}
        for row in read_lines(out / name)
    ]


@pytest.fixture(scope="session")
def whole(given, tmp_path_factory):
    """The folder of a run that nothing disturbed, and its record."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train(Settings(**given), out)


def test_what_a_run_leaves(whole):
    assert 0 < whole[1]["silent_groups"] < 1
    out, record = whole
    assert [row["step"] for row in lines(out)] == [1, 2, 3]
    held = lines(out, "held_out.jsonl")
    assert [row["step"] for row in held] == [0, 1, 2, 3]
    points = record["orders"]["pass@2"]
    assert points["start"]["value"] == held[0]["pass@2"]
    assert points["end"]["value"] == held[-1]["pass@2"]
    assert points["lowest"]["value"] == min(row["pass@2"] for row in held)
    assert points["change"]["low"] <= points["change"]["value"] <= points["change"]["high"]
    assert json.loads((out / "training.json").read_text(encoding="utf-8")) == record
    assert record["provenance"]["seed"] == 0
    assert record["trained"]["biased_settings"] == []
    assert (out / "training.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_weights_can_be_loaded(whole, given):
    from passgrad.lm.models import load_model

    before, _ = load_model(given["model"])
    after, _ = load_model(whole[0] / "model")
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(after.parameters(), before.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.1


def test_silent_groups_are_those_without_advantages(whole):
    out, record = whole
    table = pd.concat(pd.read_parquet(file) for file in (out / "completions").glob("*.parquet"))
    groups = table.groupby(["step", "prompt"])["reward"]
    # pass@1 and pass@2 are mixed: a group moves nothing where all of it is right or wrong.
    assert record["silent_groups"] == pytest.approx(float((groups.nunique() == 1).mean()))


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_that_was_killed_gives_the_same_log(given, tmp_path, whole, step):
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(Settings(**given), out, Ending(step, kill))
    assert not (out / "training.json").exists()
    train(Settings(**given), out)
    for name in ("log.jsonl", "held_out.jsonl"):
        assert lines(out, name) == lines(whole[0], name)
    for file in sorted((whole[0] / "completions").glob("*.parquet")):
        again = pd.read_parquet(out / "completions" / file.name)
        pd.testing.assert_frame_equal(again, pd.read_parquet(file))


def test_a_checkpoint_that_a_kill_cut_short_is_not_taken(given, tmp_path, whole):
    out = tmp_path / "cut"
    shutil.copytree(whole[0], out)
    (out / "checkpoint-3" / "passgrad_state.json").unlink()
    with (out / "log.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    train(Settings(**given), out)
    for name in ("log.jsonl", "held_out.jsonl"):
        assert lines(out, name) == lines(whole[0], name)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_kill_behind_the_last_step_loses_no_weights(given, tmp_path, rank):
    from safetensors.torch import load_file

    out, settings = tmp_path / "late", Settings(**given | {"rank": rank, "steps": 1})
    record = train(settings, out)
    [file] = (out / "model").glob("*.safetensors")
    before = load_file(file)
    shutil.rmtree(out / "model")
    (out / "training.json").unlink()
    again = train(settings, out)
    assert again["orders"] == record["orders"]
    after = load_file(file)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_can_go_on(given, tmp_path, whole, number):
    out = tmp_path / "stopped"
    rare = given | {"checkpoint_every": 100}
    before = signal.getsignal(number)
    with pytest.raises(Stopped):
        train(Settings(**rare), out, Ending(2, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) == before
    assert (out / "checkpoint-2").is_dir()
    train(Settings(**rare), out)
    assert lines(out) == lines(whole[0])


def test_more_steps_can_follow_and_other_settings_cannot(given, tmp_path, whole):
    out = tmp_path / "longer"
    shutil.copytree(whole[0], out)
    longer = train(Settings(**given | {"steps": 4}), out)
    assert longer["steps"] == 4
    assert [row["step"] for row in lines(out)] == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"holds 4 steps, and steps is 2"):
        train(Settings(**given | {"steps": 2}), out)
    with pytest.raises(UserError, match=r"holds a run with k 2, and this one has 3"):
        train(Settings(**given | {"k": 3}), out)


def test_prompts_that_were_changed_are_refused(given, tmp_path, whole):
    out, prompts = tmp_path / "changed", tmp_path / "prompts.jsonl"
    changed = given | {"prompts": str(prompts)}
    shutil.copy(given["prompts"], prompts)
    train(Settings(**changed | {"steps": 1}), out)
    with prompts.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"prompt": "9+9=", "answer": "18"}) + "\n")
    with pytest.raises(UserError, match=r"holds a run with \w+_digest"):
        train(Settings(**changed), out)


def test_settings_that_could_not_begin_can_be_mended(given, tmp_path):
    out, one = tmp_path / "mended", given | {"steps": 1}
    cannot = one | {"objective": "conflict-free", "prompts_per_step": 1, "k": 3}
    with pytest.raises(UserError, match="does not fit into half"):
        train(Settings(**cannot), out)
    assert train(Settings(**one), out)["settings"]["objective"] == "mixture"


def test_folders_of_something_else_are_refused(given, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and holds no run"):
        train(Settings(**given), other)
    with pytest.raises(UserError, match="is a file"):
        train(Settings(**given), other / "thesis.txt")
    assert (other / "thesis.txt").read_text() == "mine"


def test_two_runs_cannot_write_one_folder(given, whole):
    from passgrad.training.folder import held

    with held(whole[0]), pytest.raises(UserError, match="is being written by another run"):
        train(Settings(**given), whole[0])


def test_its_rewards_are_read_as_a_log(whole):
    from passgrad.measurement.logs.counting import read_visits

    assert read_visits(str(whole[0] / "completions")).num_prompts >= 2


def test_an_adapter_is_trained_and_kept(given, tmp_path):
    from passgrad.lm.models import is_adapter, load_model

    out = tmp_path / "adapter"
    some = {"rank": 2, "targets": ["q_proj"], "steps": 1, "objective": "conflict-free"}
    record = train(Settings(**given | some), out)
    assert "pcgrad" in record["trained"]["objective"]
    assert is_adapter(out / "model")
    with pytest.raises(UserError, match="is an adapter; merge it"):
        train(Settings(**given | {"model": str(out / "model")}), tmp_path / "again")
    model, _ = load_model(out / "model")
    assert {name.split(".")[-4] for name, one in model.named_parameters() if one.requires_grad} == {
        "q_proj"
    }


def test_long_answers_are_measured_too(given, tmp_path):
    record = train(
        Settings(**given | {"max_new_tokens": 20, "steps": 1, "rows_at_once": 4}), tmp_path / "long"
    )
    assert record["steps"] == 1


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"held_out": "9"}, "held_out 9 of 9 prompts"),
        ({"held_out": "a lot"}, "which is no file"),
        ({"held_out": "0"}, "held_out is 0"),
        ({"prompts_per_step": 7}, "6 prompts are left to train on"),
        ({"prompts": "conventions", "stop": "x"}, "stop is for a file of prompts"),
        ({"prompts": "convention"}, "convention is no file and no task"),
        ({"model": "no/such/model"}, "no/such/model"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_folder(given, tmp_path, changed, match):
    if changed.get("prompts", "").startswith("conv"):
        changed = {"verifier": "exact", "max_new_tokens": None} | changed
    with pytest.raises(UserError, match=match) as raised:
        train(Settings(**given | changed), tmp_path / "none")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "none").exists()


def test_held_out_prompts_of_a_file(given, tmp_path):
    held = tmp_path / "held.jsonl"
    rows = [{"prompt": f"{i}+5=", "answer": "1"} for i in range(4)]
    held.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = train(Settings(**given | {"held_out": str(held), "steps": 1}), tmp_path / "a")
    assert record["held_out_prompts"] == 4
    rows.append({"prompt": "3+1=", "answer": "3"})
    held.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="1 of its prompts are trained on, such as"):
        train(Settings(**given | {"held_out": str(held)}), tmp_path / "b")


def test_shared_prompts_change_neither_law_nor_gradient(given, tmp_path):
    """The loss of TRL and that with each prompt read once: the same log-probabilities and the same
    gradients, for prompts of several lengths.
    """
    from passgrad.lm.models import load_model
    from passgrad.training.shared import _shared

    model, tokenizer = load_model(given["model"])
    texts = ["1+1=2;1+1=", "3+1=", "1+1=2;1+1=", "3+1=", "3+1="]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, rows))
    made = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    read = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    tails = torch.randint(3, 20, (5, 3), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([made, tails], 1)
    mask = torch.cat([read, torch.ones_like(tails)], 1)
    mask[1, -1] = 0
    kept = mask[:, -3:]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -4:-1].log_softmax(-1)
    plain = logits.gather(-1, tails[..., None])[..., 0] * kept
    shared = _shared(model, ids, mask, 3)[0] * kept
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    weights = torch.tensor([1.0, -2.0, 0.5, 1.0, -1.0])[:, None]
    parameters = [one for one in model.parameters() if one.requires_grad]
    for mine, theirs in zip(
        torch.autograd.grad((shared * weights).sum(), parameters, allow_unused=True),
        torch.autograd.grad((plain * weights).sum(), parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_prompts_are_shared_where_that_is_the_same(given, tmp_path, monkeypatch):
    from passgrad.training import run, shared

    ways = []
    plain = run._Trainer.share_prompts

    def watched(trainer, prompts):
        plain(trainer, prompts)
        ways.append(trainer.shares)

    monkeypatch.setattr(run._Trainer, "share_prompts", watched)
    one = given | {"steps": 1}
    train(Settings(**one), tmp_path / "shared")
    inner = shared._shared
    monkeypatch.setattr(
        shared, "_shared", lambda *some: tuple(part + 0.01 for part in inner(*some))
    )
    train(Settings(**one), tmp_path / "off")
    train(Settings(**one | {"max_new_tokens": 17}), tmp_path / "long")
    assert ways == [True, False, False]
