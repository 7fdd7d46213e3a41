"""The command under torchrun: the numbers of one process, one folder, one voice."""

import json

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
