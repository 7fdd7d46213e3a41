"""The folder of a run: its settings, and logs of a line a step that are whole at any time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic

SETTINGS, RECORD = "settings.json", "training.json"
#: a line a step, and a line a measurement of the held-out prompts
STEPS, HELD_OUT = "log.jsonl", "held_out.jsonl"
#: rewards of the completions of training, as TRL writes them and ``passgrad logs`` reads them
COMPLETIONS = "completions"
#: what is left for other programs: the weights or the adapter, with the tokenizer
MODEL = "model"
PLOT = "training.svg"


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder that of a run with these settings, or see that it is.

    :raises UserError: For a folder of other settings, or of something else.
    """
    file = out / SETTINGS
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged; name another folder (--out)") from error
        # Settings with which nothing was measured yet may be mended.
        begun = (out / HELD_OUT).is_file()
        for name in sorted({*before, *settings}) if begun else ():
            if before.get(name) != settings.get(name):
                raise UserError(
                    f"{out} holds a run with {name} {before.get(name)!r}, and this one has "
                    f"{settings.get(name)!r}; name another folder (--out), or take that value"
                )
        if begun or before == settings:
            return
    elif out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder (--out)")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"{out} is not empty, and holds no run of passgrad train; name another folder (--out)"
        )
    out.mkdir(parents=True, exist_ok=True)
    content = {"settings": dict(settings), "provenance": provenance.record(seed=settings["seed"])}
    write_atomic(file, json.dumps(content, indent=2).encode())


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The folder for this process alone; a kill lets it go.

    :raises UserError: Where another process has it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"{out} is being written by another run; wait for it, stop it, or name another folder"
        ) from error


def last_checkpoint(out: Path) -> tuple[str | None, int]:
    """The last checkpoint that is whole, and its step; what a kill left of another is taken away.

    The trainer of :mod:`passgrad.trl` writes its state behind everything else.
    """
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

    from passgrad.trl.trainers import STATE_FILE

    found: tuple[str | None, int] = None, 0
    for place in out.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = place.name.rpartition("-")[2]
        if not (place / STATE_FILE).is_file():
            shutil.rmtree(place)
        elif step.isdecimal() and int(step) > found[1]:
            found = str(place), int(step)
    return found


def replace(place: Path, write: Callable[[Path], object]) -> None:
    """Write a folder so that its name never stands for half of it."""
    partial = place.with_name(f".{place.name}")
    if partial.exists():
        shutil.rmtree(partial)
    write(partial)
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that a kill cut off is left out."""
    rows = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def cut_back(out: Path, step: int) -> None:
    """Take away what was logged behind this step, which is the last that a checkpoint has: those
    steps are made again.
    """
    for name in (STEPS, HELD_OUT):
        file = out / name
        kept = [row for row in read_lines(file) if row["step"] <= step]
        if file.is_file():
            write_atomic(file, "".join(json.dumps(row) + "\n" for row in kept).encode())
    for file in (out / COMPLETIONS).glob("completions_*.parquet"):
        if int(file.stem.rpartition("_")[2]) > step:
            file.unlink()


def add_line(file: Path, row: Mapping[str, Any]) -> None:
    """One more row, on disk when this returns."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
