"""Files that are there whole, or not at all."""

import pytest

from passgrad import files


def test_the_content_is_there_under_its_name(tmp_path):
    target = tmp_path / "new" / "x.json"
    files.write_atomic(target, b"{}")
    files.write_atomic(target, b"[]")
    assert target.read_bytes() == b"[]"
    assert [path.name for path in target.parent.iterdir()] == ["x.json"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(tmp_path / "x.json", b"{}")
    assert list(tmp_path.iterdir()) == []
