"""A training run from a file of settings: ``passgrad train``.

:class:`Settings` says what is trained and how, :func:`train` runs it in a folder, or goes on with
what the folder holds. TRL trains (:mod:`passgrad.trl`); here is what stands around it: held-out
prompts with intervals, a log that is whole at any time, checkpoints, and what came of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from passgrad.lazy import lazy_names
from passgrad.training.settings import OBJECTIVES, Settings

__all__ = ["OBJECTIVES", "Settings", "train"]

if TYPE_CHECKING:
    from passgrad.training.run import train

__getattr__, __dir__ = lazy_names(
    globals(),
    {"train": "passgrad.training.run"},
    extra="train",
    packages=("trl", "transformers", "accelerate", "datasets"),
)
