"""Rollouts: n completions a prompt with their rewards, whatever engine drew them, as one table."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from passgrad.errors import UserError
from passgrad.metrics import binary_rewards

#: one row a completion; ``logprob`` is log pi(completion | prompt) at temperature 1, the stop
#: included
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("sample", pa.int32()),
        ("completion_ids", pa.list_(pa.int32())),
        ("completion", pa.string()),
        ("reward", pa.float64()),
        ("logprob", pa.float64()),
        ("finish_reason", pa.string()),
        ("engine", pa.string()),
        ("seed", pa.int64()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),
        ("max_new_tokens", pa.int32()),
        ("stop", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sampling:
    """The law that completions are drawn from.

    The defaults are the policy itself: temperature 1 and no truncation. Under any other law the
    score function of the policy does not have mean zero, and gradients estimated from the samples
    are of something else.

    :raises UserError: For a temperature that is not positive, top_p outside (0, 1], a negative
        top_k.
    """

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"temperature is {self.temperature}; give a positive number "
                "(1 samples the policy itself)"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; give a number in (0, 1] (1 keeps every token)")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; give 0 (every token) or a positive number")


@dataclass(frozen=True)
class Request:
    """What an engine is asked for: ``num_samples`` completions of every prompt.

    ``model``: a local folder or a hub name. ``prompts``: token ids. ``ends``: the tokens that end a
    completion. ``max_new_tokens``: where it is cut off otherwise. ``base_url``: of the server, for
    the engine that asks one; ``name``: what the caller calls the model, and a server may too.
    ``dtype``: in which the model is computed, as torch names it; ``device``: where transformers
    computes.
    """

    model: str
    prompts: tuple[tuple[int, ...], ...]
    num_samples: int
    ends: tuple[int, ...]
    max_new_tokens: int
    settings: Sampling = Sampling()
    base_url: str | None = None
    name: str = ""
    dtype: str = "float32"
    device: str = "cpu"


@dataclass(frozen=True)
class Completion:
    """What an engine gives back: token ids with the stop if it was reached, why it ended, and its
    log-probability.
    """

    token_ids: tuple[int, ...]
    finish_reason: str
    logprob: float


@dataclass(frozen=True)
class Rollouts:
    """A table of completions in :data:`SCHEMA`, n for each of P prompts, prompts in the task's
    order.

    :raises UserError: If columns are missing or of another type, or the prompts have different
        numbers of completions.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        missing = [name for name in SCHEMA.names if name not in self.table.column_names]
        if missing:
            raise UserError(
                f"the rollouts lack the columns {missing}; they must have {SCHEMA.names}"
            )
        object.__setattr__(self, "table", _typed(self.table))
        if self.table.num_rows == 0:
            raise UserError("the table of rollouts is empty; sample at least one completion")
        _, counts = np.unique(
            self.table["prompt_id"].to_numpy(zero_copy_only=False), return_counts=True
        )
        if len(set(counts.tolist())) != 1:
            raise UserError(
                f"prompts have between {counts.min()} and {counts.max()} completions; "
                "give the same number for each"
            )

    @property
    def prompt_ids(self) -> list[str]:
        """The P prompts, in order."""
        return list(dict.fromkeys(self.table["prompt_id"].to_pylist()))

    @property
    def num_samples(self) -> int:
        """n, the completions a prompt."""
        return self.table.num_rows // len(self.prompt_ids)

    @property
    def rewards(self) -> np.ndarray:
        """(P, n) of zeros and ones.

        :raises UserError: If a reward is NaN or neither 0 nor 1; the place is named.
        """
        order = {name: place for place, name in enumerate(self.prompt_ids)}
        rows = np.array([order[name] for name in self.table["prompt_id"].to_pylist()])
        flat = self.table["reward"].to_numpy(zero_copy_only=False)[np.argsort(rows, kind="stable")]
        return binary_rewards(flat.reshape(len(order), -1))

    @property
    def num_correct(self) -> np.ndarray:
        """c, the successes of each prompt: (P,)."""
        return self.rewards.sum(axis=1).astype(int)

    def write(self, path: str | Path) -> Path:
        """Save as parquet; the file has its name only when it is complete."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
        os.close(handle)
        try:
            pq.write_table(self.table, scratch, compression="zstd")
            os.replace(scratch, path)
        finally:
            Path(scratch).unlink(missing_ok=True)
        return path

    @classmethod
    def read(cls, path: str | Path) -> Rollouts:
        """Rollouts that :meth:`write` saved.

        :raises UserError: If the file is missing, not parquet, or not a table of rollouts.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; give a parquet file of rollouts")
        try:
            return cls(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:  # the second for a file damaged inside
            reason = " ".join(str(error).split())[:80]
            raise UserError(f"{path} cannot be read as parquet ({reason}); sample again") from error
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _typed(table: pa.Table) -> pa.Table:
    """The table with the columns of :data:`SCHEMA`, in its order and of its types."""
    columns = []
    for field in SCHEMA:
        try:
            columns.append(table[field.name].cast(field.type))
        except pa.ArrowException as error:
            raise UserError(
                f"the column {field.name} of the rollouts holds {table[field.name].type}, "
                f"which is not {field.type}; write it again"
            ) from error
    return pa.table(columns, schema=SCHEMA)
