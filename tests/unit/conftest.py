from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root():
    """The checkout under test."""
    return ROOT


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own for tests that write: the package's source, and nothing else."""
    folder = tmp_path / "checkout"
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "requirements").mkdir()
    for name in ("pyproject.toml", "_toc.yml", "src"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "requirements" / "lock.txt").write_text("numpy==2.0\n")
    (folder / "notebooks" / "profiles" / "cpu.yml").write_text("")
    monkeypatch.setenv("PASSGRAD_ROOT", str(folder))
    monkeypatch.delenv("PASSGRAD_PROFILE", raising=False)
    return folder
