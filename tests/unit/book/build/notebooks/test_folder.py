"""One run as one folder, with a result, a figure and a formula in it."""

import hashlib
import json

import pandas as pd
import pytest

from passgrad.errors import UserError
from passgrad_book.build import notebooks, results
from passgrad_book.build.notebooks.folder import default_folder, run_digest, run_to_folder

pytestmark = pytest.mark.usefixtures("processes")  # kernels

SOURCE = """\
# %% [markdown]
# # Runs
# A formula $x < y$ and <b>no tag</b>.

# %%
import pandas as pd

from passgrad_book.build import figures, results

# %% tags=["parameters"]
size: int = 3  # rows

# %%
def compute():
    return {"squares": pd.DataFrame({"x": range(size), "y": [x**2 for x in range(size)]})}


key = results.Key("folder", 1, f"size-{size}", {"size": size}, modules=["passgrad.metrics"])
found = results.obtain(key, compute)
print("<script>alert(1)</script>")
found

# %% mystnb={"figure": {"name": "fig-squares", "caption": "Squares of numbers."}}
table = found["squares"]
if size > 5:
    raise ValueError("too many rows")
figures.show(
    lambda ax: figures.curve(ax, table["x"], table["y"], of="pass@1", exact=True),
    alt="The squares of the first few whole numbers.", data=table,
)
"""


@pytest.fixture
def notebook(checkout):
    path = checkout / "notebooks" / "first.py"
    path.write_text(SOURCE)
    return path


def test_a_run_is_one_folder(notebook, checkout, tmp_path):
    out = tmp_path / "out"
    made = run_to_folder(notebook, "cpu", {"size": 4}, out, progress=False)
    assert sorted(p.name for p in out.iterdir()) == [
        "fig-squares.parquet", "first.html", "first.ipynb", "first.json",
        "folder.size-4.squares.parquet",
    ]  # fmt: skip
    assert set(made) == set(out.iterdir())
    entry = json.loads(made.record.read_text())
    assert (entry["exit"], entry["profile"], entry["parameters"]) == (0, "cpu", {"size": 4})
    assert entry["digest"] == run_digest(notebook, "cpu", {"size": 4})
    assert entry["wall_seconds"] > 0
    [result] = entry["results"]
    assert (result["experiment"], result["name"], result["origin"]) == (
        "folder", "size-4", "computed",
    )  # fmt: skip
    assert result["parameters"] == {"size": 4}
    table = result["tables"]["squares"]
    content = (out / table["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == table["sha256"]
    assert pd.read_parquet(out / table["file"])["y"].tolist() == [0, 1, 4, 9]
    assert pd.read_parquet(out / entry["figures"][0]["file"])["y"].tolist() == [0, 1, 4, 9]

    page = made.page.read_text()
    assert "data:image/svg+xml;base64," in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "&lt;b&gt;no tag" in page
    assert "<math" in page
    assert "Squares of numbers." in page
    for text in (page, made.record.read_text()):
        assert str(tmp_path) not in text
        assert str(checkout) not in text

    # The same folder again: what the earlier run left and this one does not make is gone.
    again = run_to_folder(notebook, "cpu", {"size": 2}, out, html=False, progress=False)
    assert again.page is None
    assert sorted(p.name for p in out.iterdir()) == [
        "fig-squares.parquet", "first.ipynb", "first.json", "folder.size-2.squares.parquet",
    ]  # fmt: skip


def test_a_failed_run_leaves_its_part_and_the_reason(notebook, tmp_path):
    with pytest.raises(notebooks.NotebookFailed) as caught:
        run_to_folder(notebook, None, {"size": 6}, tmp_path / "out", progress=False)
    assert caught.value.reason == "ValueError: too many rows"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "first.failed.ipynb", "first.failed.json",
    ]  # fmt: skip
    entry = json.loads((tmp_path / "out" / "first.failed.json").read_text())
    assert (entry["exit"], entry["reason"]) == (1, "ValueError: too many rows")
    assert entry["parameters"] == {"size": 6}


def test_bad_input_runs_nothing(notebook, tmp_path):
    for arguments, message in (
        (("huge",), "no profile 'huge'; known profiles: cpu"),
        (("cpu", {"rows": 3}), "unknown parameter 'rows' of first.py; known parameters: size"),
    ):
        with pytest.raises(UserError, match=message):
            run_to_folder(notebook, *arguments, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_follows_the_values(notebook, checkout):
    plain = default_folder(notebook, "cpu")
    assert plain == checkout / "_build" / "runs" / "first" / "cpu"
    assert default_folder(notebook, "cpu", {"size": 3}) == plain
    other = default_folder(notebook, "cpu", {"size": 4})
    assert other.parent == plain.parent
    assert other.name.startswith("cpu-")
    assert other != default_folder(notebook, "cpu", {"size": 5})


def test_the_digest_follows_text_code_profile_and_values(notebook, monkeypatch):
    digest = run_digest(notebook)
    assert run_digest(notebook, "cpu", {"size": 3}) == digest
    assert run_digest(notebook, "cpu", {"size": 4}) != digest
    notebook.write_text(SOURCE + "# more\n")
    assert run_digest(notebook) != digest
    notebook.write_text(SOURCE)
    assert run_digest(notebook) == digest
    monkeypatch.setattr("passgrad_book.build.notebooks.modules.digest", lambda modules: "other")
    assert run_digest(notebook) != digest


def test_results_are_logged_only_where_asked(checkout, tmp_path, monkeypatch):
    def give():
        key = results.Key("folder", 1, "one", {}, modules=["passgrad.metrics"])
        results.obtain(key, lambda: {"t": pd.DataFrame({"x": [1.0]})})

    monkeypatch.delenv(results.LOG_VARIABLE, raising=False)
    give()
    log = tmp_path / "log.jsonl"
    assert notebooks.tables.results_of(log) == []
    monkeypatch.setenv(results.LOG_VARIABLE, str(log))
    give()
    give()
    [entry] = notebooks.tables.results_of(log)
    assert entry["record"]["name"] == "one"
