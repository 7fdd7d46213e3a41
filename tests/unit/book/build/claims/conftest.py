"""A checkout with the project's data and claims, for tests that change them."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[5]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project in a folder of its own: data, claims and pages copied, the rest linked."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("pyproject.toml", "_toc.yml", "src", "tests", "notebooks", "requirements"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "data", folder / "data")
    (folder / "book").mkdir()
    for name in ("claims.yml", "ARTIFACT.md", "book/claims.md"):
        shutil.copyfile(ROOT / name, folder / name)
    monkeypatch.setenv("PASSGRAD_ROOT", str(folder))
    monkeypatch.delenv("PASSGRAD_RESULTS", raising=False)
    return folder


@pytest.fixture
def entry():
    """One claim as it stands in the file."""
    return {
        "id": "C1",
        "statement": "One is one.",
        "source": "Section 1",
        "derived": {"chapter": "notebooks/toy"},
        "check": "toy.gradients",
        "expected": [{"quantity": "cosine", "value": -0.77, "tolerance": 0.005, "why": "printed"}],
        "command": "passgrad run toy",
        "minutes": 1,
        "hardware": "2 CPU cores",
        "verdict": "reproduced",
    }


@pytest.fixture
def write(tmp_path):
    """Writes claims to a file and returns its path."""
    import yaml

    def make(*claims, **more):
        path = tmp_path / "claims.yml"
        path.write_text(yaml.safe_dump({"paper": "a paper", "claims": list(claims), **more}))
        return path

    return make
