"""The folder of a measurement, finished or not, and what is kept there.

``settings.json`` says what was asked for, ``asked.jsonl`` has the texts of the prompts,
``rollouts/`` holds completions (a part for some prompts), ``passes/`` and ``parts/`` the numbers of
passes that take minutes to hours each, and at the end there are ``curve.parquet``,
``prompts.parquet``, ``rollouts.parquet`` and ``measurement.json``, which comes last. Every file
gets its name when it is whole, so that a run that was killed goes on behind its last finished pass.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.lm.distributed import Processes
from passgrad.lm.passes import CompletionPasses
from passgrad.progress import Progress, Silent

if TYPE_CHECKING:
    from pandas import DataFrame

# What torch says on CPUs, and what drivers say without torch's own exception.
_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Folder:
    """Where the files of a measurement are."""

    path: Path

    @property
    def rollouts(self) -> Path:
        """The completions, a parquet file for some prompts each."""
        return self.path / "rollouts"

    @property
    def asked(self) -> Path:
        """The texts of the prompts as they were when drawing began."""
        return self.path / "asked.jsonl"

    @property
    def passes(self) -> Path:
        """The numbers of :class:`StoredPasses` and of a step."""
        return self.path / "passes"

    @property
    def parts(self) -> Path:
        """The numbers of the parts of a model."""
        return self.path / "parts"

    def claim(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder one of the measurement with these settings, or find that it is.

        :raises UserError: If it holds a measurement and ``resume`` is not set, one with other
            settings, something else, or cannot be written.
        """
        try:
            self._claim(asked, resume)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror or error}): name another folder, "
                "or give yourself write access to it"
            ) from None

    def _claim(self, asked: Mapping[str, Any], resume: bool) -> None:
        path = self.path / "settings.json"
        if path.is_file():
            if not resume:
                raise UserError(
                    f"{self.path} holds a measurement already: --resume (resume=True) goes on with "
                    "it, or name another folder"
                )
            before = _json(path)
            changed = [name for name in asked if before.get(name) != asked[name]]
            if changed:
                raise UserError(
                    f"{self.path} was begun with another {', '.join(changed)}: "
                    "give the same, or name another folder"
                )
            write_atomic(path, path.read_bytes())  # a folder that became read-only
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is not empty and holds no measurement: name another folder"
            )
        else:
            write_atomic(path, json.dumps(asked, indent=2, ensure_ascii=False).encode())

    def write_table(self, name: str, table: DataFrame) -> None:
        """``name``.parquet."""
        write_atomic(self.path / f"{name}.parquet", table.to_parquet(index=False))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write ``measurement.json``, which says that the measurement is done."""
        content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(self.path / "measurement.json", content.encode())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): name another folder") from None


@dataclass(frozen=True)
class Kept:
    """Tensors by name and by what they were computed from. Without a folder nothing is kept."""

    folder: Path | None = None
    group: Processes = field(default_factory=Processes)

    def tensor(self, name: str, *made_from: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of that name for these inputs: read if it is there, else computed and
        written, with its dtype.

        The file has its name only when it is whole. Other inputs have another file.
        """
        if self.folder is None:
            return compute()
        key = hashlib.sha256()
        for tensor in made_from:
            key.update(str(tuple(tensor.shape)).encode())
            key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        path = self.folder / f"{name}-{key.hexdigest()[:20]}.npy"

        def read() -> np.ndarray | None:
            return np.load(path, allow_pickle=False) if path.is_file() else None

        def write() -> None:
            content = io.BytesIO()
            np.save(content, values.detach().cpu().numpy(), allow_pickle=False)
            write_atomic(path, content.getvalue())

        # The first process says whether it is there, lest some compute while others read.
        stored = self.group.from_main(read)
        if stored is not None:
            return torch.from_numpy(stored)
        values = compute()
        self.group.from_main(write)
        return values


@dataclass(frozen=True, eq=False)
class Combination:
    """A gradient that is not computed yet: the sum of coefficients times scores, (M, n)."""

    coefficients: Tensor


class StoredPasses:
    """:class:`~passgrad.measurement.samples.SampledGradients` of a language model, in a folder.

    A gradient is computed when a derivative along it is asked for that is not stored, and dropped
    right after: whatever the number of k, there is one at a time. ``progress`` advances by 1 behind
    each gradient with the derivatives along it.
    """

    def __init__(
        self,
        passes: CompletionPasses,
        folder: Path | None,
        progress: Progress | None = None,
        group: Processes | None = None,
    ) -> None:
        self.passes, self.progress = passes, progress or Silent()
        self.kept = Kept(folder, group or Processes())

    @property
    def rewards(self) -> Tensor:
        """(M, n)."""
        return self.passes.rewards

    @property
    def masses(self) -> Tensor:
        """(M,)."""
        return self.passes.masses

    def gradients(self, coefficients: Tensor) -> Sequence[Combination]:
        """The L sums, (L, M, n) coefficients, as promises."""
        return [Combination(row) for row in coefficients]

    def directional(self, gradients: Sequence[Combination], where: Tensor) -> Tensor:
        """(L, M, n) float64, 0 outside ``where``."""
        return torch.stack([self._along(row.coefficients, where) for row in gradients])

    def _along(self, coefficients: Tensor, where: Tensor) -> Tensor:
        def compute() -> Tensor:
            vector = self.passes.gradient(coefficients)
            return self.passes.directional(vector, where=where).nan_to_num(nan=0.0)

        values = self.kept.tensor("directional", coefficients.double(), where, compute=compute)
        self.progress.advance()
        return values


@contextmanager
def explained(folder: Path, remedy: str) -> Iterator[None]:
    """Within it, a lack of memory or of disk space is a :class:`UserError`.

    :param folder: What is kept there is gone on with.
    :param remedy: What lowers the need of memory.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _memory(folder, remedy) from error
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _MEMORY):
            raise
        raise _memory(folder, remedy) from error
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise UserError(
            f"no space left on the disk of {folder}: free some, then go on with --resume "
            "(resume=True); what is done is kept"
        ) from error


def _memory(folder: Path, remedy: str) -> UserError:
    return UserError(
        f"out of memory: {remedy}, then go on with --resume (resume=True); what is done is kept "
        f"in {folder}"
    )
