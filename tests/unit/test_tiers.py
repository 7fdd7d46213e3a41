"""The tiers of tests/conftest.py, and the budget of a test, on tests that are made here."""

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import subprocess, sys, time
import pytest

def spend(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def test_light(): pass
def test_slow(): spend(0.2)
def test_waits(): time.sleep(0.2)
def test_slow_with_programs(processes): spend(0.2)
def test_simulation(replications): assert replications(4000) == NUMBER
def test_python(): subprocess.run([sys.executable, "-c", ""])
def test_other_program(): subprocess.run(["true"])

@pytest.fixture
def smollm2(): pass
@pytest.fixture
def served(vllm): pass
@pytest.fixture
def vllm(): pass
@pytest.fixture
def vllm_engine_draws(vllm): pass
@pytest.fixture
def draws(request): return request.getfixturevalue(request.param)

def test_model(smollm2): pass
def test_server(served): pass
@pytest.mark.parametrize("draws", ["vllm_engine_draws"], indirect=True)
def test_engine(draws): pass
"""
HEAVY = {"test_model", "test_server", "test_engine[vllm_engine_draws]", "test_slow_with_programs"}
MARKS = ("model", "vllm", "book", "browser", "processes", "notebook", "simulation", "tiny")
ALL = HEAVY | {
    "test_light", "test_slow", "test_waits", "test_simulation", "test_python", "test_other_program",
}  # fmt: skip


@pytest.fixture
def outcomes(pytester, monkeypatch, root):
    """What becomes of the tests above in a tier: name -> outcome of those that were chosen."""
    pytester.makeconftest((root / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n" + "".join(f"  {mark}\n" for mark in MARKS))

    def run(tier, *options, allowance="0.02"):  # a tenth of a second
        number = 300 if tier in ("quick", "test") else 4000
        pytester.makepyfile(test_all=TESTS.replace("NUMBER", str(number)))
        with monkeypatch.context() as patch:
            patch.setenv("PASSGRAD_TEST_ALLOWANCE", allowance)
            result = pytester.inline_run(f"--tier={tier}", "-p", "no:cacheprovider", *options)
        passed, skipped, failed = result.listoutcomes()
        assert not skipped
        return {
            report.nodeid.partition("::")[2]: (report.outcome, str(report.longrepr))
            for report in (*passed, *failed)
        }

    return run


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["quick"], ALL - HEAVY - {"test_simulation"}),
        (["test"], ALL - {"test_server"}),
        (["rest"], {"test_server", "test_simulation"}),
        (["all", "-m", "vllm"], {"test_server", "test_engine[vllm_engine_draws]"}),
    ],
    ids=["quick", "test", "rest", "mark"],
)
def test_the_tier_of_a_test_follows_from_its_fixtures(outcomes, options, chosen):
    assert outcomes(*options).keys() == chosen


def test_a_light_test_that_takes_too_long_fails_and_a_heavy_one_does_not(outcomes):
    found = outcomes("all")
    assert found.keys() == ALL
    assert found["test_slow_with_programs"][0] == found["test_waits"][0] == "passed"
    outcome, reason = found["test_slow"]
    assert outcome == "failed"
    assert "test_slow took 0.2 s of processor time, and may take 0.1 s" in reason
    assert "PASSGRAD_TEST_ALLOWANCE" in reason


def test_on_a_slow_machine_it_has_more_time(outcomes):
    assert outcomes("all", allowance="1")["test_slow"][0] == "passed"


def test_a_quick_test_starts_no_python(outcomes):
    found = outcomes("quick")
    outcome, reason = found["test_python"]
    assert outcome == "failed"
    assert "this test starts a Python process: let it use `processes`" in reason
    assert found["test_other_program"][0] == "passed"
    assert {name for name, (outcome, _) in found.items() if outcome == "failed"} == {
        "test_slow", "test_python",
    }  # fmt: skip
