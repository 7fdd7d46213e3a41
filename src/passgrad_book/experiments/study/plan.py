"""The runs of the study and the command that makes them: ``make study``.

Records that are stored already are left alone, so that the command can be stopped and started
again. A record takes about five minutes on one core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from typing import Any

from passgrad_book.build import results
from passgrad_book.experiments.study.arms import ARMS
from passgrad_book.experiments.study.words import REGIMES

STEPS = 1000
RATE = 2e-4
SEEDS = range(10)
#: the supplement: other learning rates, some arms, the first seeds
OTHER_RATES, OTHER_SEEDS = (7e-5, 6e-4), range(3)
OTHER_ARMS = ("pass@1", "pass@8", "mixture 0.5", "annealed")


def main_runs() -> list[dict[str, Any]]:
    """Parameters of the records of the study proper, seed by seed."""
    return [
        {"regime": regime, "seed": seed, "learning_rate": RATE, "steps": STEPS, "arms": list(ARMS)}
        for seed in SEEDS
        for regime in REGIMES
    ]


def supplement() -> list[dict[str, Any]]:
    """Parameters of the records with another learning rate."""
    return [
        {
            "regime": regime,
            "seed": seed,
            "learning_rate": rate,
            "steps": STEPS,
            "arms": list(OTHER_ARMS),
        }
        for seed in OTHER_SEEDS
        for rate in OTHER_RATES
        for regime in REGIMES
    ]


def _stored(parameters: dict[str, Any]) -> bool:
    from passgrad_book.experiments.study.stored import training_study

    key = training_study.key(parameters)
    known = results.lookup(key, "cpu", None)
    return known is not None and known.origin == "stored"


def _make(parameters: dict[str, Any]) -> str:
    import torch

    from passgrad_book.experiments.study.stored import training_study

    torch.set_num_threads(1)
    os.environ[results.NOTEBOOK_VARIABLE] = "notebooks/training_study.py"
    begun = time.monotonic()
    training_study.result(recompute=True, profile="cpu", **parameters)
    name = f"{parameters['regime']}, seed {parameters['seed']}, rate {parameters['learning_rate']}"
    return f"{name}: {time.monotonic() - begun:.0f} s"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def everything() -> list[dict[str, Any]]:
    """Parameters of all records, those of the study proper first."""
    return [*main_runs(), *supplement()]


def make(records: list[dict[str, Any]], workers: int) -> None:
    """Compute and store records, ``workers`` at a time, with a line for each."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=1) as pool:
        for done, line in enumerate(pool.imap(_make, records), start=1):
            _say(f"{done} of {len(records)}: {line}")


def main() -> None:
    """Make what is not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    plan = everything()
    missing = [parameters for parameters in plan if not _stored(parameters)]
    _say(f"{len(plan) - len(missing)} of {len(plan)} records are stored")
    make(missing, arguments.workers)
