"""Reading the log of a run as counts and comparing its windows, against a plain groupby.

What is measured: the wall time of ``passgrad.logs`` on a parquet file of half a million rows, and
that of pandas reading the columns prompt, step and reward of the same file and grouping them by
prompt and step. The counts of both are compared first. Resident memory is looked at in processes
of their own, for a tenth of the rows and for all of them: it must not grow with the log.

Limit: the groupby. Whatever tells windows apart has to read and group the rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from _common import Figures, Smoke, interleaved, machine, progress, ratio, report

from passgrad import logs
from passgrad.measurement.logs.counting import read_visits

#: seconds for half a million rows
EXPECTED_SECONDS = 10.0

_PEAK = """
import re, sys
from passgrad import logs
logs(sys.argv[1], ks=[1, 2, 4, 8], windows=2)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def write_log(path: Path, rows: int) -> None:
    """A log of 1,250 prompts, eight answers at each visit, with completions of 400 characters."""
    rng = np.random.default_rng(0)
    numbers = np.arange(rows)
    prompt = (numbers // 8) % 1250
    pd.DataFrame(
        {
            "step": numbers // 10_000,
            "prompt": [f"Problem {name}: how much is {name} plus {name}? " * 5 for name in prompt],
            "completion": ["x" * 400] * rows,
            "reward": (rng.random(rows) < prompt / 1250).astype(float),
            "advantage": rng.normal(size=rows),
        }
    ).to_parquet(path)


def grouped(path: Path) -> pd.DataFrame:
    """Answers and right ones by prompt and step, as pandas does it."""
    table = pd.read_parquet(path, columns=["prompt", "step", "reward"])
    return table.groupby(["prompt", "step"])["reward"].agg(["size", "sum"])


def peak_megabytes(path: Path) -> float:
    """Resident memory of a process that reads the log, at its peak (Linux).

    The kernel's own mark: getrusage counts what the parent held before the process began.
    """
    call = [sys.executable, "-c", _PEAK, str(path)]
    return float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


def main(
    rows: Annotated[int, typer.Option(help="answers in the log")] = 500_000,
    repeats: int = 5,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """A log read by passgrad against a plain groupby of pandas."""
    if smoke:
        rows, repeats = 40_000, 1
    with tempfile.TemporaryDirectory() as folder:
        path, tenth = Path(folder) / "log.parquet", Path(folder) / "tenth.parquet"
        progress(f"writing {rows} rows")
        write_log(path, rows)
        write_log(tenth, max(rows // 10, 20_000))
        visits, plain = read_visits(path), grouped(path)
        if (len(plain), int(plain["sum"].sum())) != (
            len(visits.step),
            int(visits.num_correct.sum()),
        ):
            raise SystemExit("the counts differ from those of the groupby")
        seconds = interleaved(
            {
                "logs": lambda: logs(path, ks=[1, 2, 4, 8], windows=4),
                "groupby": lambda: grouped(path),
            },
            repeats,
        )
        memory = {"a tenth": peak_megabytes(tenth), "all": peak_megabytes(path)}
    report(
        {
            "machine": machine(),
            "smoke": smoke,
            "setting": {"rows": rows, "visits": len(visits.step)},
            "seconds": seconds,
            "expected_seconds": EXPECTED_SECONDS,
            "median_seconds": float(np.median(seconds["logs"])),
            "logs / groupby": ratio(seconds, "logs", "groupby"),
            "limit of that ratio": 1.0,
            "peak_megabytes": memory,
        },
        json,
    )


if __name__ == "__main__":
    typer.run(main)
