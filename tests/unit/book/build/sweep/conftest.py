import pytest

SOURCE = """\
# %% [markdown]
# # Quick

# %%
import os
import signal
from pathlib import Path

# %% tags=["parameters"]
a: int = 1  # first
b: float = 0.5  # second
mode: str = "well"  # how it ends
marks: str = ""  # folder in which runs leave a mark

# %%
Path(marks, f"{a}-{b}-{os.getpid()}").touch()
if mode == "bad" and (a, b) == (2, 1.0):
    raise ValueError(f"a is {a}")
if mode == "bad" and (a, b) == (2, 2.0):
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()
"""


@pytest.fixture
def quick(checkout):
    """A notebook without any result, in a checkout of its own."""
    path = checkout / "notebooks" / "01_quick.py"
    path.write_text(SOURCE)
    (checkout / "notebooks/profiles/smoke.yml").write_text("01_quick:\n  a: 7\n")
    return path


@pytest.fixture
def sweep_file(quick, tmp_path):
    """Writes a sweep file and returns its path."""

    def write(text):
        path = tmp_path / "sweep_test.yml"
        path.write_text(text)
        return path

    return write
