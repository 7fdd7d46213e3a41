import errno

import pytest
import torch

from passgrad.errors import UserError
from passgrad.measurement.failures import explained


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (lambda: torch.empty(2**55), "out of memory: lower x, then go on with resume"),
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
