"""What a machine runs out of, said in one line with what helps."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from passgrad.errors import UserError

# What torch says on CPUs, and what drivers say without torch's own exception.
_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_DISK = (errno.ENOSPC, errno.EDQUOT)


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
            f"no space left on the disk of {folder}: free some, then go on with resume; "
            "what is done is kept"
        ) from error


def _memory(folder: Path, remedy: str) -> UserError:
    return UserError(
        f"out of memory: {remedy}, then go on with resume; what is done is kept in {folder}"
    )
