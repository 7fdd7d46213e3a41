"""The files around the package: README, lock, Makefile, configuration."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
UNWANTED = {"torchvision", "torchaudio", "torchcodec", "triton"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins():
    from passgrad_book.build.doctor import locked_versions

    return {normal(name): version for name, version in locked_versions().items()}


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text()


def test_readme_is_short(readme):
    assert len(readme.splitlines()) <= 120


def test_readme_code_runs_and_its_comments_are_true(readme, capsys):
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    assert block.count("\n") <= 25
    scope = {}
    exec(block, scope)
    printed = capsys.readouterr().out.splitlines()
    assert scope["curve"].cosine[0] == pytest.approx(1)
    assert (scope["curve"].cosine[1:] < 0).all()
    assert scope["curve"].threshold == pytest.approx(1.24, abs=0.005)
    many, one = scope["trace"].pass_at_k(10), scope["trace"].pass_at_k(1)
    assert many.tolist() == pytest.approx([0.825, 0.953], abs=0.0005)
    assert one.tolist() == pytest.approx([0.479, 0.465], abs=0.0005)
    kept = scope["kept"]
    assert kept.pass_at_k(10).tolist() == pytest.approx([0.825, 0.884], abs=0.0005)
    assert kept.pass_at_k(1).tolist() == pytest.approx([0.479, 0.481], abs=0.0005)
    assert len(printed) == 7


def test_readme_commands_exist(readme, root):
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_readme_links_and_images_exist(readme, root):
    targets = re.findall(r"\]\(([^)]+)\)", readme)
    targets += re.findall(r'(?:src|srcset)="([^"]+)"', readme)
    assert len(targets) >= 3
    for target in targets:
        if not target.startswith("http"):
            assert (root / target).is_file(), target


def test_make_help_names_every_public_target(root):
    done = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    for target in ("book", "test", "doctor", "results", "lock", "clean", "help"):
        assert f"make {target} " in done.stdout


def test_lock_leaves_out_what_is_not_wanted(pins):
    assert not UNWANTED & pins.keys()
    assert not [name for name in pins if name.startswith("nvidia")]


def test_lock_has_no_hosts_paths_or_builds(root):
    for line in (root / "requirements" / "lock.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), line


def test_lock_fits_what_is_asked_for(root, pins):
    asked = []
    for line in (root / "requirements" / "requirements.in").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            asked.append(Requirement(line))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked += [Requirement(text) for text in project["dependencies"]]
    for extra in ("lm", "cpu", "train", "book", "dev"):
        asked += [Requirement(text) for text in project["optional-dependencies"][extra]]
    for requirement in asked:
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = pins.get(normal(requirement.name))
        assert version is not None, f"{requirement.name} is not in the lock"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_lock_agrees_with_itself(pins):
    """What the installed packages ask of each other, the four that are left out excepted."""
    import importlib.metadata

    missing = []
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            # +cpu names a build of a version; the lock names versions
            requirement = Requirement(re.sub(r"\+[a-z0-9.]+", "", text))
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            wanted = normal(requirement.name)
            # torch's own CUDA libraries: its CPU build has none
            if wanted in UNWANTED or wanted.startswith(("nvidia-", "cuda-")):
                continue
            if not requirement.specifier.contains(pins.get(wanted, "0"), prereleases=True):
                missing.append(f"{name} wants {requirement}, the lock has {pins.get(wanted)}")
    assert missing == []


def test_every_bound_has_its_reason(root):
    for line in (root / "requirements" / "requirements.in").read_text().splitlines():
        if re.match(r"[A-Za-z]", line) and re.search(r"[<>=]=?", line.split("#")[0]):
            # hooks of other tools speak for themselves: typer>=0.15 is the one without a remark
            assert "#" in line or line.startswith("typer"), line


def test_gpu_extra_is_the_range_that_trl_supports(root):
    """TRL states its range in its metadata; a new TRL must be looked at."""
    import importlib.metadata

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    [ours] = [Requirement(text) for text in project["optional-dependencies"]["gpu"]]
    theirs = next(
        requirement
        for requirement in map(Requirement, importlib.metadata.requires("trl"))
        if requirement.name == "vllm"
    )
    bounds = {Version(s.version): s.operator for s in theirs.specifier}
    assert {Version(s.version): s.operator for s in ours.specifier} == bounds


def test_conda_installs_the_same_lock(root):
    import yaml

    content = yaml.safe_load((root / "environment.yml").read_text())
    [pip] = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements/lock.txt", "-e ."]
    assert "python=3.11" in content["dependencies"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_machine_path_or_host_in_what_is_committed(root):
    """Files of the product name neither a machine's folders nor a package registry."""
    pattern = re.compile(r"/root/|/home/[a-z]|/work/|pypi\.org|files\.pythonhosted|/opt/")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = []
    for name in files:
        path = root / name
        if path.suffix in {".parquet", ".svg", ".js"} or name == "tests/unit/test_project.py":
            continue
        if path.is_file() and pattern.search(path.read_text(encoding="utf-8", errors="ignore")):
            found.append(name)
    assert found == []
