import json

import pytest

from passgrad.errors import UserError
from passgrad.measurement.folder import Folder


def test_a_folder_is_claimed_once_and_gone_on_with(tmp_path):
    folder = Folder(tmp_path / "m")
    folder.claim({"ks": [1, 2]}, resume=False)
    folder.claim({"ks": [1, 2]}, resume=True)
    with pytest.raises(UserError, match="holds a measurement already"):
        folder.claim({"ks": [1, 2]}, resume=False)
    with pytest.raises(UserError, match="begun with another ks"):
        folder.claim({"ks": [1, 4]}, resume=True)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no measurement"):
        Folder(tmp_path).claim({}, resume=True)
    with pytest.raises(UserError, match="is not empty and holds no measurement"):
        Folder(tmp_path / "thesis.txt").claim({}, resume=True)


def test_damaged_settings_are_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings.json is damaged"):
        Folder(tmp_path).claim({}, resume=True)


def test_the_record_is_json_that_any_program_reads(tmp_path):
    folder = Folder(tmp_path)
    folder.finish({"text": "é", "k": None})
    assert json.loads((tmp_path / "measurement.json").read_text()) == {"text": "é", "k": None}
    with pytest.raises(ValueError, match="nan"):  # no other reader takes it
        folder.finish({"k": float("nan")})
