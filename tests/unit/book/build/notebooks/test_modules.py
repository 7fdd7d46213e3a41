"""What a notebook uses of the project."""

import pytest

from passgrad_book.build.notebooks import sources
from passgrad_book.build.notebooks.modules import python_of, used_by
from passgrad_book.build.notebooks.source import split


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import passgrad as pg\npg.pass_at_k(2, 1, 1)", ["passgrad.metrics"]),
        ("import passgrad as pg\npg.trl.PassKGRPOTrainer", ["passgrad.trl"]),
        ("import passgrad\npassgrad.conflict", ["passgrad.interference"]),
        ("import passgrad.stats", ["passgrad.stats"]),
        (
            "import passgrad.stats\npassgrad.pass_at_k(2, 1, 1)",
            ["passgrad.metrics", "passgrad.stats"],
        ),
        ("import passgrad.stats as s\ns.bands", ["passgrad.stats"]),
        ("from passgrad import conflict, metrics", ["passgrad.interference", "passgrad.metrics"]),
        ("from passgrad.worlds.bandit import TwoPointBandit", ["passgrad.worlds.bandit"]),
        ("from passgrad.worlds import tabular", ["passgrad.worlds.tabular"]),
        ("from passgrad_book.build import figures, paths",
         ["passgrad_book.build.figures", "passgrad_book.build.paths"]),
        ("from passgrad import __version__\nimport numpy as np\nnp.linalg.norm", []),
        ('call = ["-m", "passgrad.cli", "measure"]', ["passgrad.cli.measure"]),
        ('call = ["-m", "passgrad.cli", *words]', ["passgrad.cli"]),
        ('"measure"', []),
    ],
)  # fmt: skip
def test_modules_that_a_notebook_computes_with(text, modules):
    assert used_by(text).modules == tuple(modules)


HOME = "passgrad_book.experiments.two_conventions"


@pytest.mark.parametrize(
    ("use", "modules", "experiments"),
    [
        ("two_conventions.result(seed=0)", [], ["two_conventions"]),
        ("two_conventions(seed=0)", [HOME], []),
        ("two_conventions.result(seed=0)\ntwo_conventions(seed=0)", [HOME], []),
        ("run = two_conventions", [HOME], []),
        ("two_conventions.function(seed=0)", [HOME], []),
        ("", [], ["two_conventions"]),
    ],
)
def test_an_experiment_counts_as_code_only_where_it_is_run(use, modules, experiments):
    found = used_by(f"from {HOME} import two_conventions\n{use}")
    assert (found.modules, found.experiments) == (tuple(modules), tuple(experiments))
    renamed = f"from {HOME} import two_conventions as tc\n" + use.replace("two_conventions", "tc")
    assert used_by(renamed) == found
    # What else lies in the module of an experiment is code like any other.
    with_world = f"from {HOME} import two_conventions, two_conventions_world\n{use}"
    assert used_by(with_world).modules == (HOME,)


def test_the_chapters_of_the_book():
    """No chapter computes its stored results itself, and one starts a command."""
    used = {path.stem: used_by(python_of(split(path.read_text()))) for path in sources()}
    assert "passgrad.cli.measure" in used["measure_your_model"].modules
    assert used["conflict_free"].experiments == ("frontier_language", "metrics_language")
    assert "passgrad_book.build.experiment" not in {x for one in used.values() for x in one.modules}
