"""Numbers that took long, each kept in a file as soon as it is known.

A measurement is a few passes that take minutes to hours each. Each leaves some numbers, and these
are all that is kept: a run that was killed goes on behind its last finished pass.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from passgrad.files import write_atomic
from passgrad.lm.distributed import Processes


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
        for part in made_from:
            key.update(str(tuple(part.shape)).encode())
            key.update(part.detach().cpu().contiguous().numpy().tobytes())
        path = self.folder / f"{name}-{key.hexdigest()[:20]}.npy"

        def read() -> np.ndarray | None:
            return np.load(path, allow_pickle=False) if path.is_file() else None

        def write() -> None:
            content = io.BytesIO()
            np.save(content, values.detach().cpu().numpy(), allow_pickle=False)
            write_atomic(path, content.getvalue())

        # The first process says whether it is there, lest some compute while others read.
        known = self.group.from_main(read)
        if known is not None:
            return torch.from_numpy(known)
        values = compute()
        self.group.from_main(write)
        return values
