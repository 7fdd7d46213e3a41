import json
import os
import sys

import pytest
import yaml

from passgrad.errors import UserError
from passgrad_book.build import results
from passgrad_book.build.claims import load, measured
from passgrad_book.build.claims import reproduce as module
from passgrad_book.build.claims.reproduce import arguments, digest, inputs, reproduce, run_command


class Runner:
    """Notes what it is asked to run, and answers with a problem or None."""

    def __init__(self, problem=None):
        self.commands, self.problem = [], problem

    def __call__(self, command, timeout):
        self.commands.append(command)
        return self.problem


def state(project):
    return json.loads((project / "_build" / "claims.json").read_text())


def test_one_run_serves_every_claim_that_names_it(project, shown):
    runner = Runner()
    found = reproduce(["C1", "C3", "C2"], run=runner, progress=shown)
    assert [one.claim.id for one in found] == ["C1", "C3", "C2"]
    assert all(one.failures == () for one in found)
    (command,) = runner.commands
    assert command[1:5] == ["-m", "passgrad.cli", "run", "toy"]
    assert shown.stages == [["commands of the claims", 1, 1]]
    assert shown.notes[0].startswith("[1/1] passgrad run toy  about ")
    kept = state(project)
    assert kept["claims"]["C3"]["measured"]["cosine"] == pytest.approx(-0.7746, abs=1e-4)
    assert kept["claims"]["C3"]["verdict"] == "reproduced"
    assert {"seconds", "time", "device"} <= set(kept["claims"]["C3"])


def test_what_is_done_is_not_run_again(project):
    first, second, third = Runner(), Runner(), Runner()
    reproduce(["C3"], run=first)
    reproduce(["C3"], run=second)
    reproduce(["C3"], run=third, fresh=True)
    assert (len(first.commands), len(second.commands), len(third.commands)) == (1, 0, 1)


def test_a_changed_notebook_is_run_again(project):
    (project / "notebooks").unlink()
    (project / "notebooks" / "profiles").mkdir(parents=True)
    notebook = project / "notebooks" / "toy.py"
    notebook.write_text("# %%\nfrom passgrad import metrics\n")
    claim = load().select(["C3"])[0]
    before = digest(claim)
    assert digest(claim) == before
    notebook.write_text("# %%\nfrom passgrad import metrics, errors\n")
    assert digest(claim) != before


def test_a_command_that_fails_fails_its_claims_and_the_others_go_on(project):
    class Half(Runner):
        def __call__(self, command, timeout):
            super().__call__(command, timeout)
            return "exit status 1: no such cell" if "toy" in command else None

    runner = Half()
    found = {one.claim.id: one for one in reproduce(["C3", "C5"], run=runner)}
    assert found["C3"].failures == ("C3: passgrad run toy: exit status 1: no such cell",)
    assert found["C3"].verdict == "not reproduced"
    assert found["C5"].failures == ()
    assert len(runner.commands) == 2
    # and is run again
    again = Runner()
    reproduce(["C3", "C5"], run=again)
    assert len(again.commands) == 1


def test_checks_alone_need_no_run(project):
    runner = Runner()
    (found,) = reproduce(["C20"], run=runner)
    assert runner.commands == []
    assert found.failures == ()


def test_gpu_claims_are_left_out(project):
    runner = Runner()
    (found,) = reproduce(["C23"], run=runner)
    assert runner.commands == []
    assert found.verdict == "needs a GPU"


def test_the_environment_of_a_run_keeps_its_results_apart(processes, project):
    names = f"os.environ[{results.RESULTS_VARIABLE!r}], os.environ['PASSGRAD_ROOT']"
    script = f"import os; print({names}); raise SystemExit(os.getcwd())"
    before = dict(os.environ)
    line = run_command([sys.executable, "-c", script], 60)
    assert line == f"exit status 1: {project}"
    assert dict(os.environ) == before
    assert run_command([sys.executable, "-c", "pass"], 60) is None
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert run_command(slow, 0.5) == "stopped after 0 minutes"


def test_a_fresh_result_is_what_is_measured(project, monkeypatch):
    """The check after a run reads what the run left in _build, not what ships."""
    stored = results.load("word_problems", "seed-0")

    def run(command, timeout):
        with module._reading_fresh_results():
            key = results.Key("word_problems", 1, "seed-0", {})
            results.obtain(key, lambda: {"counts": stored["counts"].assign(correct=3.0)})

    content = yaml.safe_load((project / "claims.yml").read_text())
    for claim in content["claims"]:
        if claim["id"] == "E19":
            claim["command"] = "passgrad run language_sampled"
    (project / "claims.yml").write_text(yaml.safe_dump(content))
    before = (project / "data" / "manifest.json").read_bytes()
    (found,) = reproduce(["E19"], run=run)
    assert found.measured["right"] == 72
    assert found.verdict == "not reproduced"
    assert (project / "data" / "manifest.json").read_bytes() == before
    assert results.load("word_problems", "seed-0")["counts"]["correct"].sum() < 72


def test_seconds_and_machine_can_be_kept(project):
    found = reproduce(["C3"], run=Runner())
    module.store(found)
    kept = measured.read()["C3"]
    assert set(kept["rerun"]) == {"measured", "seconds", "device", "time"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("rm -rf data", "C1: command: 'rm -rf data' is neither passgrad run"),
        ("passgrad run none", "notebooks/none.py is not there"),
        ("pytest tests/theory/test_none.py", "tests/theory/test_none.py is not there"),
    ],
)
def test_a_faulty_command_is_one_line(entry, write, command, message):
    (claim,) = load(write(entry | {"command": command})).claims
    with pytest.raises(UserError, match=message):
        _ = arguments(claim), inputs(claim)
