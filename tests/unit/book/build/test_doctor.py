import pytest

from passgrad.errors import UserError
from passgrad.rollouts import sampling
from passgrad_book.build import doctor


def test_lock_is_read():
    pins = doctor.locked_versions()
    assert pins["torch"] == "2.13.0"
    assert len(pins) > 100


def test_missing_lock(checkout):
    (checkout / "requirements" / "lock.txt").unlink()
    with pytest.raises(UserError, match="lock.txt is missing"):
        doctor.locked_versions()
    assert not doctor._environment().ok


def test_another_version_and_a_missing_package_are_named(checkout):
    lock = checkout / "requirements" / "lock.txt"
    lock.write_text("numpy==1.0\nno-such-package==3\n")
    check = doctor._environment()
    assert not check.ok
    assert "numpy 2." in check.detail
    assert "instead of 1.0" in check.detail
    assert "no-such-package missing" in check.detail
    assert check.remedy == "run make env"


def test_little_memory_and_disk(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED_MEMORY", 2**60)
    monkeypatch.setattr(doctor, "NEEDED_DISK", 2**60)
    assert not doctor._memory().ok
    assert not doctor._disk().ok
    assert "GiB" in doctor._memory().detail


def test_without_avx2_rollouts_use_transformers(monkeypatch):
    problem = "this processor has no AVX2"
    monkeypatch.setattr(sampling, "vllm_problem", lambda: problem)
    check = doctor._vllm()
    assert check.ok
    assert check.detail == "this processor has no AVX2: rollouts use transformers"


def test_missing_vllm_is_a_failure(monkeypatch):
    monkeypatch.setattr(sampling, "vllm_problem", lambda: sampling.VLLM_MISSING)
    check = doctor._vllm()
    assert not check.ok
    assert check.remedy == "run make env"


def test_vllm_that_does_not_import_is_a_failure(monkeypatch):
    class Done:
        returncode = 1
        stderr = "Traceback\nImportError: libnuma"

    monkeypatch.setattr(sampling, "vllm_problem", lambda: None)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: Done())
    check = doctor._vllm()
    assert not check.ok
    assert check.detail == "does not import: ImportError: libnuma"


def test_damaged_results_are_a_failure(checkout):
    (checkout / "data" / "results").mkdir(parents=True)
    (checkout / "data" / "results" / "stray.json").write_text("{}")
    check = doctor._results()
    assert not check.ok
    assert "stray.json" in check.detail


def test_every_failure_has_a_remedy(checkout):
    """In a bare checkout some checks fail; none may leave the reader without a next step."""
    for check in (doctor._environment(), doctor._memory(), doctor._disk(), doctor._results()):
        assert check.ok or check.remedy
