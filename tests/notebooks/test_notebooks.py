"""Every notebook: its form, its profiles, and a run through papermill in the smoke profile."""

import ast
import base64
import re

import nbformat
import pytest
import yaml

from passgrad_book.build import notebooks, paths
from passgrad_book.build.figures import MIN_ALT

SOURCES = notebooks.sources()
PROFILES = ("smoke", "cpu", "gpu")


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


@pytest.fixture
def cells(source):
    return notebooks.split(source.read_text(encoding="utf-8")).cells


def test_there_are_notebooks():
    assert SOURCES


def test_header_keeps_the_metadata_that_is_used(source):
    text = source.read_text(encoding="utf-8")
    assert "cell_metadata_filter: tags,mystnb,-all" in text
    assert "name: python3" in text


def test_first_cell_has_label_title_and_result(cells):
    first = cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"\(sec-[a-z-]+\)=\n# ", first.source)


def test_one_parameters_cell_typed_and_commented(source, cells):
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
    for parameter in notebooks.parameters_of(source).values():
        assert parameter.comment, parameter.name


def test_imports_come_once_and_first(cells):
    code = [c for c in cells if c.cell_type == "code"]
    for cell in code[1:]:
        tree = ast.parse(cell.source)
        assert not [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], cell.source


def test_every_figure_has_caption_name_and_alt(cells):
    names = []
    for cell in cells:
        if cell.cell_type == "code" and "figures.show(" in cell.source:
            options = cell.metadata.get("mystnb", {})
            assert options.get("figure", {}).get("caption"), cell.source
            assert re.match(r"fig-[a-z0-9-]+$", options["figure"].get("name", "")), cell.source
            assert len(options.get("image", {}).get("alt", "")) >= MIN_ALT, cell.source
            names.append(options["figure"]["name"])
    assert len(names) == len(set(names))


def test_defaults_are_the_cpu_profile(source):
    defaults = {name: p.default for name, p in notebooks.parameters_of(source).items()}
    listed = notebooks.profile_values("cpu", source.stem)
    paste = yaml.safe_dump({source.stem: defaults}, sort_keys=False, default_flow_style=None)
    assert listed == defaults, f"cpu.yml must have the defaults of the parameters cell:\n{paste}"


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_fit_the_notebooks(profile):
    content = yaml.safe_load((paths.profiles() / f"{profile}.yml").read_text()) or {}
    assert set(content) <= {source.stem for source in SOURCES}
    for source in SOURCES:
        notebooks.resolve(source, profile)


def test_every_notebook_is_a_page_in_its_order():
    toc = yaml.safe_load((paths.root() / "_toc.yml").read_text())
    pages = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    chapters = [page for page in pages if page.startswith("notebooks/")]
    assert chapters == [f"notebooks/{source.stem}" for source in SOURCES]


@pytest.fixture
def smoke_notebook(source, tmp_path):
    """The notebook, executed in the smoke profile."""
    return notebooks.run_notebook(source, "smoke", output_dir=tmp_path, progress=False)


@pytest.mark.timeout(600)
def test_smoke(smoke_notebook):
    made = smoke_notebook
    notebook = nbformat.read(made, as_version=4)
    assert notebook.metadata["passgrad"]["profile"] == "smoke"
    text = made.read_text()
    figures = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            data = output.get("data", {})
            if "application/pdf" in data:
                figures += 1
                alts = re.findall(r'alt="([^"]*)"', data["text/html"])
                assert len(alts) == 2
                assert len(alts[0]) >= MIN_ALT
                assert base64.b64decode(data["application/pdf"]).startswith(b"%PDF")
    assert figures == sum(
        "figures.show(" in c.source for c in notebook.cells if c.cell_type == "code"
    )
    assert str(paths.root()) not in text
