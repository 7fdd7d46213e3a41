"""Compute the results of the second real model that do not ship yet, one after the other.

Run by `make second`. What was stored by a run that was cut off is not computed again; with `--all`
everything is. `--list` shows what there is to do.
"""

from __future__ import annotations

import argparse
import time

from passgrad_book.build import results
from passgrad_book.experiments.second_model import study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="compute again what is stored")
    parser.add_argument("--list", action="store_true", help="show what there is to do, and stop")
    given = parser.parse_args()
    with results.environment({results.NOTEBOOK_VARIABLE: "notebooks/language_exact.py"}):
        for experiment, parameters in study():
            key = experiment.key(parameters)
            name = f"results/{key.experiment}/cpu/{key.name}.json"
            entry = results.records().get(name)
            stored = entry is not None and key.fits(entry)
            if given.list or (stored and not given.all):
                print(f"{name}: {'stored' if stored else 'to be computed'}", flush=True)
                continue
            start = time.perf_counter()
            experiment.result(recompute=True, profile="cpu", **parameters)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
