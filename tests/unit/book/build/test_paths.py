import pytest

from passgrad.errors import UserError
from passgrad_book.build import paths


def test_root_is_the_editable_install(root, monkeypatch, tmp_path):
    monkeypatch.delenv("PASSGRAD_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.root() == root


def test_variable_goes_first(checkout):
    assert paths.root() == checkout
    assert paths.results() == checkout / "data" / "results"


def test_variable_must_name_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("PASSGRAD_ROOT", str(tmp_path))
    with pytest.raises(UserError, match="not a checkout"):
        paths.root()


def test_relative_hides_machine_paths(checkout, tmp_path):
    assert paths.relative(checkout / "data" / "x.json") == "data/x.json"
    assert paths.relative(tmp_path / "elsewhere" / "x.json") == "x.json"
