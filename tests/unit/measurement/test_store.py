import errno
import json

import pytest
import torch

from passgrad.errors import UserError
from passgrad.measurement.store import Folder, Kept, explained


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


def test_a_tensor_is_computed_once_for_each_input(tmp_path):
    kept, calls = Kept(tmp_path), []

    def get(x):
        def compute():
            calls.append(x)
            return x * 2

        return kept.tensor("double", x, compute=compute)

    for _ in range(2):
        assert torch.equal(get(torch.tensor([1.0, 2.0])), torch.tensor([2.0, 4.0]))
    assert torch.equal(get(torch.tensor([1, 2])), torch.tensor([2, 4]))
    assert get(torch.tensor([[1.0], [2.0]])).shape == (2, 1)
    assert len(calls) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_names_are_kept_apart(tmp_path):
    kept, x = Kept(tmp_path), torch.ones(1)
    assert kept.tensor("one", x, compute=lambda: x) == 1
    assert kept.tensor("two", x, compute=lambda: 2 * x) == 2


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        Kept(tmp_path).tensor("name", torch.ones(1), compute=fail)
    assert not list(tmp_path.iterdir())


def test_without_a_folder_it_only_computes():
    assert Kept().tensor("name", compute=lambda: torch.ones(1)) == 1


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (lambda: torch.empty(2**55), "out of memory: lower x, then go on with --resume"),
        (lambda: raise_(MemoryError()), "out of memory: lower x"),
        (lambda: raise_(torch.OutOfMemoryError("CUDA out of memory")), "out of memory: lower x"),
        (lambda: raise_(OSError(errno.ENOSPC, "No space left")), "no space left on the disk of"),
    ],
)
def test_what_runs_out_is_said_in_a_line(tmp_path, fail, message):
    with pytest.raises(UserError, match=message) as caught, explained(tmp_path, "lower x"):
        fail()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (RuntimeError("shape"), OSError(errno.EACCES, "no"), UserError("mine")):
        with pytest.raises(type(error)) as caught, explained(tmp_path, "lower x"):
            raise error
        assert caught.value is error
