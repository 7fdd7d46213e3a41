import subprocess
import sys

import pytest

import passgrad

HEAVY = ("transformers", "vllm", "trl", "papermill", "jupytext", "matplotlib", "datasets")


def test_import_is_light(processes):
    code = (
        "import sys, time; start = time.perf_counter(); import passgrad; passgrad.TwoPointBandit;"
        "passgrad.conflict; passgrad.ascend; passgrad.PassAtK; passgrad.pass_at_k;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [n for n in passgrad.__all__ if n != "__version__"])
def test_every_public_name_is_where_it_is_said_to_be(name):
    value = getattr(passgrad, name)
    assert value.__name__ == name
    assert name in dir(passgrad)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'passk'"):
        passgrad.passk  # noqa: B018


def test_version_is_that_of_the_project(root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == passgrad.__version__
    assert f"version: {passgrad.__version__}" in (root / "CITATION.cff").read_text()
