"""Tiers of the tests, by the fixtures that they use; a budget for what is not heavy; a browser.

``--tier quick`` is what runs within a minute, ``test`` what ``make test`` runs, ``rest`` all else,
and ``all`` everything.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip
#: what every test in a browser carries beside its marker
IN_A_BROWSER = (
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
)

#: fixture -> mark of the tests that use it
MARKS = {
    "smollm2": "model",
    "vllm": "vllm",
    "vllm_engine_draws": "vllm",
    "build_book": "book",
    "browser": "browser",
    "smoke_notebook": "notebook",
    "processes": "processes",
    "replications": "simulation",
    "tiny_model": "tiny",
    "gpu_device": "gpu",
    "measured_memory": "memory",
}
#: what may take longer than the budget
HEAVY = {"model", "vllm", "book", "browser", "processes", "notebook", "gpu", "memory"}
#: what is not in the quick tier
NOT_QUICK = {*HEAVY, "simulation", "tiny"}
#: group of tests that share one worker, and so what these fixtures make; heaviest first
GROUPS = {
    "model": {"smollm2", "vllm", "vllm_engine_draws"},
    "book": {"build_book", "browser"},
    "torchrun": {"several"},
}
#: the one start of vLLM in the tier "test"
VLLM_IN_TEST = "vllm_engine_draws"
#: the notebooks that take at most ten seconds in the smoke profile
CHEAP = {"pass_at_k", "estimators", "reweighting", "toy", "conflict", "dynamics"}

#: seconds of a test that is not heavy; times the variable on a slow machine
BUDGET = 5.0
ALLOWANCE = "PASSGRAD_TEST_ALLOWANCE"
FOLDER = pytest.StashKey()
SECONDS = pytest.StashKey()
#: replications of a simulation in the tiers "quick" and "test"
FEW = 300
#: how much longer a simulation may take with all of its replications
FULL = 12


def pytest_addoption(parser):
    parser.addoption(
        "--tier",
        choices=["quick", "test", "rest", "all"],
        default="all",
        help="quick: within a minute, in this process, no model; test: what make test runs; "
        "rest: all that test leaves out; all: everything (default)",
    )


def names_of(item):
    """The fixtures of a test, those included that a parameter names."""
    names = set(getattr(item, "fixturenames", ()))
    callspec = getattr(item, "callspec", None)
    named = callspec.params.values() if callspec else ()
    return names | {value for value in named if isinstance(value, str) and value in MARKS}


def marks_of(item):
    """The marks that a test has by its fixtures."""
    return {MARKS[name] for name in names_of(item) & MARKS.keys()}


def in_tier(item, tier, notebooks):
    """Whether a test runs in a tier, given the notebooks of the tier "test"."""
    marks = marks_of(item)
    if tier == "quick":
        return not marks & NOT_QUICK
    if "notebook" in marks:
        in_test = item.callspec.params["source"].stem in notebooks
    else:
        in_test = "vllm" not in marks or VLLM_IN_TEST in names_of(item)
        in_test = in_test and "memory" not in marks
    if tier == "rest":
        # Simulations run again, with all their replications.
        return not in_test or "simulation" in marks
    return tier == "all" or in_test


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks, and xdist reads the groups
def pytest_collection_modifyitems(config, items):
    tier = config.getoption("tier")
    heavy_notebooks = any("notebook" in marks_of(item) for item in items)
    notebooks = CHEAP | changed_notebooks() if heavy_notebooks else CHEAP
    for item in items:
        marks = marks_of(item)
        for mark in sorted(marks):
            item.add_marker(mark)
        if "browser" in marks:
            for mark in IN_A_BROWSER:
                item.add_marker(mark)
    groups = {item.nodeid: group_of(item) for item in items}
    items.sort(key=lambda item: place_of(groups[item.nodeid]))
    if worker := getattr(config, "workerinput", None):
        part = Path(worker["groups"]).with_suffix(f".{worker['workerid']}")
        part.write_text(json.dumps(groups))
        part.replace(worker["groups"])
    chosen, left = [], []
    for item in items:
        (chosen if in_tier(item, tier, notebooks) else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = chosen


def group_of(item):
    """Tests of one group run in one worker; a notebook is a group by itself."""
    names = names_of(item)
    if "smoke_notebook" in names:
        return f"notebook-{item.callspec.params['source'].stem}"
    return next((group for group, fixtures in GROUPS.items() if fixtures & names), None)


def place_of(group):
    """Heavy groups come first, so that no worker is left with one at the end."""
    if group and group.startswith("notebook-"):
        return 1
    return list(GROUPS).index(group) if group in GROUPS else len(GROUPS)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Every worker is told where to write the groups of its tests."""
    node.workerinput["groups"] = str(groups_file(node.config))


def groups_file(config):
    if FOLDER not in config.stash:
        config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="passgrad-tests-")
    return Path(config.stash[FOLDER].name) / "groups.json"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadgroup`` the groups of :data:`GROUPS`, and files for all other tests.

    The marks that xdist itself reads are written into node ids, which pytest 9.2 does not let it.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class GroupsAndFiles(LoadScopeScheduling):
        groups = None

        def _split_scope(self, nodeid):
            if self.groups is None:
                self.groups = json.loads(groups_file(config).read_text())
            return self.groups.get(nodeid) or nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return GroupsAndFiles(config, log)


def changed_notebooks():
    """The notebooks whose text or modules differ from the merge base; none without git."""
    from passgrad_book.build import notebooks as chapters
    from passgrad_book.build.notebooks.modules import python_of, used_by
    from passgrad_book.build.sources import dependencies, module_file

    changed = changed_files()
    stems = set()
    for path in chapters.sources():
        files = {path}
        if any(name.startswith("src/") for name in changed):
            used = used_by(python_of(chapters.split(path.read_text(encoding="utf-8"))))
            files |= {module_file(module) for module in dependencies(used.modules)}
        if changed & {file.relative_to(ROOT).as_posix() for file in files}:
            stems.add(path.stem)
    return stems


def changed_files():
    """What differs from the commit where this branch left the main one, committed or not."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.split() if done.returncode == 0 else []

    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return set()
    bases = ("origin/HEAD", "origin/main", "main", "origin/master", "master")
    base = next((found[0] for name in bases if (found := git("merge-base", "HEAD", name))), "HEAD")
    untracked = git("ls-files", "--others", "--exclude-standard")
    return {*git("diff", "--name-only", base), *untracked}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    begun = time.process_time()
    try:
        return (yield)
    finally:
        item.stash[SECONDS] = time.process_time() - begun


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is not heavy fails when it takes too long, by the clock of its process."""
    report = yield
    limit = BUDGET * float(os.environ.get(ALLOWANCE) or 1)
    if "simulation" in marks_of(item) and item.config.getoption("tier") in ("rest", "all"):
        limit *= FULL
    seconds = item.stash.get(SECONDS, 0)
    light = not marks_of(item) & HEAVY
    if light and call.when == "call" and report.passed and seconds > limit:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} took {seconds:.1f} s of processor time, and may take {limit:g} s "
            f"without one of {', '.join(sorted(HEAVY))}. Make it faster; on a slow machine, set "
            f"{ALLOWANCE} to a factor."
        )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test of the tier "quick" starts no Python."""
    if marks_of(item) & NOT_QUICK:
        return (yield)
    start = subprocess.Popen.__init__

    def refuse(self, args, *more, **options):
        program = args if isinstance(args, str | bytes | os.PathLike) else args[0]
        if Path(os.fsdecode(program)).name.startswith("python"):
            raise RuntimeError("this test starts a Python process: let it use `processes`")
        start(self, args, *more, **options)

    with mock.patch.object(subprocess.Popen, "__init__", refuse):
        return (yield)


@pytest.fixture(scope="session")
def processes():
    """For tests that start programs, or kernels, and wait for them."""


@pytest.fixture(scope="session")
def vllm():
    """For tests that start vLLM, where it runs."""
    from passgrad.rollouts.sampling import vllm_problem

    if problem := vllm_problem():
        pytest.skip(problem)


@pytest.fixture
def replications(request):
    """The number of replications of a simulation: ``replications(4000)`` gives a few of them in
    the tiers "quick" and "test", and all in the others.
    """
    fewer = request.config.getoption("tier") in ("quick", "test")
    return lambda number, few=FEW: min(number, few) if fewer else number


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
