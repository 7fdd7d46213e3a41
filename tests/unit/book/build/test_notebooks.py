import json

import nbformat
import pytest

from passgrad.errors import UserError
from passgrad_book.build import notebooks
from passgrad_book.build.notebooks import running
from passgrad_book.build.notebooks.source import split

pytestmark = pytest.mark.usefixtures("processes")  # kernels

SOURCE = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A notebook

# %%
import os

from passgrad import metrics

# %% tags=["parameters"]
k: int = 10  # samples that are allowed
step: float = 0.5  # size of a step
name: str = "toy"
ks: list = [1, 2]  # orders
fast: bool = False
limit: int | None = None  # no limit

# %%
value = metrics.pass_at_k(20, 5, k)
value, os.environ["PASSGRAD_PROFILE"], os.getcwd()
"""


@pytest.fixture
def notebook(checkout):
    path = checkout / "notebooks" / "first.py"
    path.write_text(SOURCE)
    return path


def test_parameters_with_types_and_comments(notebook):
    found = notebooks.parameters_of(notebook)
    assert list(found) == ["k", "step", "name", "ks", "fast", "limit"]
    assert found["k"] == notebooks.Parameter("k", "int", 10, "samples that are allowed")
    assert found["limit"].annotation == "int | None"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("k = 2 + n", "not set to a literal"),
        ("k: int", "not set to a literal"),
        ("import os", "may only assign literals"),
        ("a = b = 1", "may only assign literals"),
    ],
)
def test_only_literals_are_parameters(notebook, line, message):
    notebook.write_text(SOURCE.replace("k: int = 10  # samples that are allowed", line))
    with pytest.raises(UserError, match=message):
        notebooks.parameters_of(notebook)


def test_one_parameters_cell(notebook):
    notebook.write_text(SOURCE + '\n# %% tags=["parameters"]\nx = 1\n')
    with pytest.raises(UserError, match="2 cells tagged parameters"):
        notebooks.parameters_of(notebook)


def test_values_come_from_defaults_profile_and_call(notebook, checkout):
    (checkout / "notebooks/profiles/smoke.yml").write_text("first:\n  k: 3\n  step: 1\n")
    values = notebooks.resolve(notebook, "smoke", {"ks": (5,)})
    assert values == {
        "k": 3, "step": 1.0, "name": "toy", "ks": [5], "fast": False, "limit": None
    }  # fmt: skip
    assert isinstance(values["step"], float)


def test_unknown_parameter_lists_the_known_ones(notebook, checkout):
    with pytest.raises(
        UserError, match=r"unknown parameter 'kk' of first.py; known parameters: k, step, name"
    ):
        notebooks.resolve(notebook, None, {"kk": 3})
    (checkout / "notebooks/profiles/smoke.yml").write_text("first:\n  kk: 3\n")
    with pytest.raises(UserError, match="the profile smoke sets an unknown parameter 'kk'"):
        notebooks.resolve(notebook, "smoke")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", "many"), ("k", 2.5), ("k", True), ("k", None), ("step", "big"), ("step", False),
        ("name", 3), ("ks", 3), ("ks", ["a"]), ("ks", [True]), ("fast", 1), ("fast", "yes"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(notebook, name, value):
    with pytest.raises(UserError, match=f"the parameter {name} is .* give a value of that type"):
        notebooks.resolve(notebook, None, {name: value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("k", "5", 5), ("step", "1e-3", 1e-3), ("name", "5", "5"), ("ks", "[1, 4]", [1, 4]),
        ("fast", "true", True), ("fast", "True", True), ("limit", "null", None),
    ],
)  # fmt: skip
def test_values_from_the_command_line(notebook, name, text, value):
    assert notebooks.parse_value(text, notebooks.parameters_of(notebook)[name]) == value


def test_find_by_path_and_name(notebook):
    for name in (notebook, str(notebook), "first", "first.py"):
        assert notebooks.find(name) == notebook.resolve()
    with pytest.raises(UserError, match=r"no notebook '7'; known notebooks: notebooks/first.py"):
        notebooks.find("7")
    made = notebook.with_suffix(".ipynb")
    made.write_text("{}")
    with pytest.raises(UserError, match="give the .py source"):
        notebooks.find(made)


def test_profiles_are_checked(notebook, checkout):
    with pytest.raises(UserError, match="no profile 'big'; known profiles: cpu"):
        notebooks.resolve(notebook, "big")
    (checkout / "notebooks/profiles/smoke.yml").write_text("a: 1\n  b: [\n")
    with pytest.raises(UserError, match=r"smoke.yml is not YAML \(line"):
        notebooks.resolve(notebook, "smoke")
    (checkout / "notebooks/profiles/smoke.yml").write_text("first: 3\n")
    with pytest.raises(UserError, match="must map parameters to values"):
        notebooks.resolve(notebook, "smoke")


def test_run(notebook, checkout, tmp_path, capfd):
    made = notebooks.run_notebook(notebook, parameters={"k": 5}, output_dir=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["first.ipynb"]
    executed = nbformat.read(made, as_version=4)
    nbformat.validate(executed)
    result = executed.cells[-1].outputs[0]["data"]["text/plain"]
    from passgrad.metrics import pass_at_k

    value, profile, cwd = eval(result)
    assert value == pass_at_k(20, 5, 5)
    assert profile == "cpu"
    assert cwd == str(notebook.parent.resolve())
    record = executed.metadata["passgrad"]
    assert record["notebook"] == "notebooks/first.py"
    assert record["parameters"]["k"] == 5
    assert record["changed"] == ["k"]
    assert str(tmp_path) not in json.dumps(executed.metadata)
    progress = capfd.readouterr().err
    assert "first  cell 4 of 4" in progress
    assert "first  done in 0:" in progress


def test_ids_of_cells_are_stable(notebook):
    one, two = (split(SOURCE) for _ in range(2))
    assert [cell["id"] for cell in one.cells] == [cell["id"] for cell in two.cells]


def test_a_failing_cell_leaves_no_final_file(notebook, tmp_path):
    with pytest.raises(UserError) as caught:
        notebooks.run_notebook(notebook, parameters={"k": 50}, output_dir=tmp_path, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(
        "first.py stopped in cell 4 ('value = metrics.pass_at_k(20, 5, k)'): "
    )
    assert "UserError" in message
    assert "first.failed.ipynb" in message
    assert (tmp_path / "first.failed.ipynb").is_file()
    assert not (tmp_path / "first.ipynb").exists()
    assert not list(tmp_path.glob(".*part*"))
    # a run that succeeds removes the failed one
    notebooks.run_notebook(notebook, output_dir=tmp_path, progress=False)
    assert not (tmp_path / "first.failed.ipynb").exists()


def test_a_kernel_that_dies_is_an_error_too(notebook, tmp_path):
    notebook.write_text(SOURCE + "\n# %%\nos._exit(3)\n")
    with pytest.raises(UserError, match=r"first.py stopped in cell 4: DeadKernelError"):
        notebooks.run_notebook(notebook, output_dir=tmp_path, progress=False)
    assert not (tmp_path / "first.ipynb").exists()


def test_the_book_executes_once_and_again_after_a_change(notebook, monkeypatch):
    ran = []
    original = running.execute

    def run(*arguments, **keywords):
        ran.append(arguments[0].name)
        return original(*arguments, **keywords)

    monkeypatch.setattr(running, "execute", run)
    for _ in range(2):
        page = notebooks.executed(SOURCE)
    assert ran == ["first.py"]
    assert page.cells[-1].cell_type == "markdown"
    footer = page.cells[-1].source
    assert "Provenance of this page" in footer
    assert "| `k` | `10` | samples that are allowed |" in footer
    assert "_notebooks/first.ipynb" in footer
    assert "passgrad" not in page.metadata
    notebook.write_text(SOURCE + "\n# %%\n1 + 1\n")
    notebooks.executed(notebook.read_text())
    assert ran == ["first.py"] * 2


def test_only_notebooks_of_the_project_are_pages(notebook):
    with pytest.raises(UserError, match="not one of the notebooks"):
        notebooks.executed("x = 1\n")
