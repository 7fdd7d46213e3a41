"""Each fault of ``faults.yml``, planted in a copy of ``src``, fails the test that is named there.

Not one of these tests can pass by itself: what they ask is whether others could fail.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
#: how a failed assertion begins: of pytest, of torch and numpy, and of pytest.raises
ASSERTIONS = ("AssertionError", "assert ", "Failed: DID NOT RAISE", "Failed: DID NOT WARN")


@dataclass(frozen=True)
class Fault:
    """One entry of ``faults.yml``: what its keys mean stands there."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    test: str

    def plant(self, copy):
        """Edit a copy of ``src``; an assertion names a fault whose line is gone."""
        path = copy / self.file
        assert path.is_file(), f"{self.name}: {self.file} is gone; see faults.yml"
        text = path.read_text()
        times = text.count(self.old)
        assert times == 1, (
            f"{self.name}: {self.file} has {self.old!r} {times} times; see faults.yml"
        )
        path.unlink()  # a link to the file of the checkout
        path.write_text(text.replace(self.old, self.new))


LISTED = yaml.safe_load(Path(__file__).with_name("faults.yml").read_text())
FAULTS = [Fault(**entry) for entry in LISTED]
CATCHERS = sorted({fault.test for fault in FAULTS})


@dataclass(frozen=True)
class Run:
    """What pytest said: its exit status, and the message of each test, empty where it passed."""

    status: int
    messages: dict[str, str]
    output: str


def run(folder, tests, fault=None):
    """Run tests with ``src`` copied into the folder, and a fault in the copy."""
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy, copy_function=os.symlink)
    if fault is not None:
        fault.plant(copy)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    report = folder / "report.xml"
    options = ["-q", "--tier", "test", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    options += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(["-x"] if fault else []), *tests],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(copy), "PASSGRAD_ROOT": str(ROOT), "OMP_NUM_THREADS": "1",
                    "PYTHONDONTWRITEBYTECODE": "1", "PASSGRAD_TEST_ALLOWANCE": "20"},
        capture_output=True,
        text=True,
        timeout=500,
    )  # fmt: skip
    messages = {}
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else ():
        wrong = [one for one in case if one.tag in ("failure", "error", "skipped")]
        name = f"{case.get('file')}::{case.get('name')}"
        messages[name] = "".join(one.get("message", one.tag) for one in wrong)
    return Run(done.returncode, messages, (done.stdout + done.stderr)[-2000:])


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory, processes):
    """The runs of the tests that were asked for, two at a time: called with a fault, or None."""
    name = test_a_planted_fault_is_caught.__name__
    asking = [item for item in request.session.items if getattr(item, "originalname", "") == name]
    wanted = [item.callspec.params["fault"] for item in asking]
    with ThreadPoolExecutor(2) as pool:
        made = {None: pool.submit(run, tmp_path_factory.mktemp("none"), CATCHERS)}
        for fault in wanted:
            folder = tmp_path_factory.mktemp(fault.name)
            made[fault] = pool.submit(run, folder, [fault.test], fault)
        yield lambda fault: made[fault].result()


@pytest.mark.parametrize("test", CATCHERS)
def test_without_a_fault_the_catcher_passes(runs, test):
    """And is a test that `make test` runs."""
    result = runs(None)
    mine = {name: text for name, text in result.messages.items() if name.split("[")[0] == test}
    assert mine, f"{test} did not run: {result.output}"
    assert not any(mine.values()), mine


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(runs, fault):
    result = runs(fault)
    caught = [text for text in result.messages.values() if text]
    assert result.status == 1, f"{fault.name} is not caught ({fault.breaks}): {result.output}"
    assert [text for text in caught if text.startswith(ASSERTIONS)] == caught, result.output


def test_there_are_twenty_and_each_has_a_name():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "no such line"}, "gone: passgrad/errors.py has 'no such line' 0 times"),
        ({"old": "e"}, r"gone: passgrad/errors.py has 'e' \d+ times"),
        ({"file": "passgrad/nowhere.py"}, "gone: passgrad/nowhere.py is gone"),
    ],
)
def test_a_fault_whose_line_is_gone_is_named(change, message):
    fault = Fault(**{**LISTED[0], "name": "gone", "file": "passgrad/errors.py", **change})
    with pytest.raises(AssertionError, match=message):
        fault.plant(ROOT / "src")
