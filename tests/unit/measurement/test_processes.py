"""The command under torchrun: the numbers of one process, one folder, one voice."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from passgrad import cli


def test_two_processes_and_one_agree(several, capsys):
    folder = several.folder / "measure"
    assert (folder / "two").is_dir(), several.errors
    *arguments, _ = json.loads((folder / "arguments.json").read_text())
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, str(folder / "one")])
    assert not end.value.code
    one = capsys.readouterr().out
    two, other = ((folder / f"{rank}.txt").read_text() for rank in (0, 1))
    assert two.splitlines()[0] == one.splitlines()[0]  # the verdict, said once
    assert two.count("report.html") == 1
    assert other == ""
    for name in ("curve", "prompts", "parts", "step"):
        first, second = (pd.read_parquet(folder / f / f"{name}.parquet") for f in ("one", "two"))
        numbers = first.select_dtypes("number").columns
        np.testing.assert_allclose(
            second[numbers], first[numbers], rtol=2e-4, atol=2e-5, err_msg=name
        )
    record = json.loads((folder / "two" / "measurement.json").read_text())
    assert record["provenance"]["processes"] == 2


def curve_of(folder):
    return pd.read_parquet(folder / "curve.parquet").select_dtypes("number")


@pytest.fixture(scope="module")
def alone(several):
    """The measurement of the same completions by one process, by dtype."""
    folder = several.folder / "measure"
    others = json.loads((folder / "others.json").read_text())
    made = {}
    for dtype in ("float32", "bfloat16"):
        made[dtype] = folder / f"alone-{dtype}"
        arguments = [
            str(made[dtype]) if a == str(folder / "coarse") else a for a in others["coarse"]
        ]
        with pytest.raises(SystemExit) as end:
            cli.main([*arguments, "--dtype", dtype])
        assert not end.value.code
    return made


@pytest.mark.parametrize(
    ("name", "dtype", "apart"),
    # One process takes forward mode for a model this small, and a sharded one differences, which
    # are right to some thousandths. In bfloat16 the gradients of a row are rounded once more where
    # they are added.
    [("sharded", "float32", 1e-2), ("coarse", "bfloat16", 1e-3), ("both", "bfloat16", 2e-2)],
)
def test_sharded_and_coarse_equal_one_process(several, alone, name, dtype, apart):
    folder = several.folder / "measure"
    said = [(folder / f"{name}{rank}.txt").read_text() for rank in (0, 1)]
    assert (folder / name / "measurement.json").is_file(), said
    found, expected = curve_of(folder / name), curve_of(alone[dtype])
    # The ends of an interval follow from these, and from degrees of freedom that one prompt carries
    # here: they magnify every difference.
    for column in ("inner_product", "standard_error"):
        away = (found[column] - expected[column]).abs() / expected["standard_error"]
        assert away.max() < apart, (column, away.tolist())
    record = json.loads((folder / name / "measurement.json").read_text())
    assert record["settings"]["dtype"] == dtype
    where = {key: record["provenance"][key] for key in ("processes", "device", "shard")}
    assert where == {"processes": 2, "device": "cpu", "shard": name != "coarse"}
    assert any("was sharded" in text for text in record["remarks"]) == (name != "coarse")
    assert (folder / name / "step.parquet").is_file() == (name != "both")


def test_bfloat16_lies_beside_float32(alone):
    """Rounding moves the product by less than its standard error, and says so."""
    coarse, fine = curve_of(alone["bfloat16"]), curve_of(alone["float32"])
    away = (coarse["inner_product"] - fine["inner_product"]).abs() / fine["standard_error"]
    assert 0 < away.max() < 1
    remarks = json.loads((alone["bfloat16"] / "measurement.json").read_text())["remarks"]
    assert any("bfloat16" in text for text in remarks)
    remarks = json.loads((alone["float32"] / "measurement.json").read_text())["remarks"]
    assert not any("bfloat16" in text for text in remarks)


KILLED = """
import os, signal, sys
from passgrad import cli
from passgrad.measurement import store
plain, count = store.Kept.tensor, [0]
def tensor(self, *args, **options):
    count[0] += 1
    if count[0] == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *args, **options)
store.Kept.tensor = tensor
cli.main(sys.argv[1:])
"""


def test_one_is_killed_and_all_go_on(several, tmp_path):
    """With kill -9, in the midst of the passes of a sharded model."""
    folder = several.folder / "measure"
    arguments = json.loads((folder / "others.json").read_text())["sharded"]
    arguments = [str(tmp_path / "m") if a == str(folder / "sharded") else a for a in arguments]

    def start(program, *more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = os.environ | {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        both = [
            subprocess.Popen(
                [sys.executable, *program, *arguments, *more],
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in (0, 1)
        ]  # fmt: skip
        said = [one.communicate(timeout=240) for one in both]
        return [one.returncode for one in both], said

    codes, said = start(["-c", KILLED])
    assert codes == [1, -9], said
    last = said[0][1].strip().splitlines()[-1]
    assert last.startswith("passgrad: process 1 of 2 has ended")
    assert len(list((tmp_path / "m" / "passes").iterdir())) == 2
    codes, said = start(["-m", "passgrad.cli"], "--resume")
    assert codes == [0, 0], said
    for column, values in curve_of(tmp_path / "m").items():
        np.testing.assert_allclose(values, curve_of(folder / "sharded")[column], rtol=1e-9)
