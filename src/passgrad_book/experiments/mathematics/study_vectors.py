r"""The vectors of a study from its tables, and how large these tables become.

The table ``kernel`` of :func:`passgrad_book.experiments.mathematics.math_study.study` has a row for
each reading and each of the :math:`R (R + 1) / 2` pairs of its R vectors. R is at most the number
of prompts, times two laws where more than one answer is right, and more by wrong answers under two
laws where these have vectors: for tens of prompts kilobytes, for 2,000 with all four vectors each
about half a gigabyte of numbers in a table of four. Beyond :data:`MOST_VECTORS` the places no
longer fit the type that they are stored in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch

from passgrad.errors import UserError
from passgrad_book.experiments.mathematics.class_scores import READINGS, Law, PromptVectors
from passgrad_book.experiments.mathematics.math_study import vectors_of

if TYPE_CHECKING:
    from pandas import DataFrame

#: largest R: places of vectors are stored in 16 bits
MOST_VECTORS: Final = 2**15
# Of a row in memory beside the text of its reading: where that ends, two places, a value.
_ROW_BYTES: Final = 8 + 2 + 2 + 4


def read_vectors(tables: Mapping[str, DataFrame]) -> PromptVectors:
    """The vectors that the tables of a study hold; kernels (0, 0) and places -1 where no prompt was
    ever solved, so that there is nothing to differentiate.
    """
    if len(tables["vectors"]):
        return vectors_of(tables)
    number = len(tables["prompts"])
    laws: tuple[Law, ...] = ("printed", "policy")
    nowhere = {law: torch.full((number,), -1) for law in laws}
    empty = torch.zeros(0, 0, dtype=torch.float64)
    return PromptVectors({name: empty.clone() for name in READINGS}, nowhere, dict(nowhere))


def most_vectors(num_prompts: int, *, single: bool, centred: bool) -> int:
    """The largest R that a study can have: the right answers' vectors, one a prompt for a single
    answer and otherwise one for each of two laws, and with ``centred`` the wrong ones' under both.
    """
    return num_prompts * ((1 if single else 2) + (2 if centred else 0))


def products_bytes(num_vectors: int) -> int:
    """Bytes in memory of the table of products of so many vectors, in all readings."""
    each = sum(len(name) + _ROW_BYTES for name in READINGS)
    return num_vectors * (num_vectors + 1) // 2 * each


def check_size(num_prompts: int, *, single: bool, centred: bool, most_bytes: float) -> int:
    """Bytes of the products of a study, known before anything is sampled.

    :param most_bytes: What the table may take in memory.
    :raises UserError: Where it would take more, or its places would not fit their type.
    """
    vectors = most_vectors(num_prompts, single=single, centred=centred)
    size = products_bytes(vectors)
    if vectors > MOST_VECTORS or size > most_bytes:
        limit = f"{MOST_VECTORS} vectors and {most_bytes / 1e9:g} GB"
        raise UserError(
            f"{num_prompts} prompts have up to {vectors} vectors, whose products take "
            f"{size / 1e9:.1f} GB; at most {limit} are kept: ask fewer prompts, or leave out the "
            "wrong answers"
        )
    return size
