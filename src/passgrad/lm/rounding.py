r"""How much the arithmetic of a model blurs its derivatives.

With :math:`g = \sum_i c_i \nabla \log \pi(y_i \mid x_i)` from a backward pass,

.. math:: \sum_i c_i \langle \nabla \log \pi(y_i \mid x_i), g \rangle = \| g \|^2 .

The left side is what a measurement computes, by derivatives along a vector; the right one needs the
gradient alone. In float32 they differ by rounding that nobody sees, in bfloat16 by percents.
"""

from __future__ import annotations

from typing import Final

import torch

from passgrad.lm.passes import CompletionPasses

#: a larger difference is too much to tell small products from zero
LIMIT: Final = 0.1
# Tokens of the completions that it is looked at on.
_TOKENS = 512


def rounding_of(passes: CompletionPasses) -> float:
    """By which share of ||g||^2 the two sides differ, on some of the completions; nan where they
    have no gradient. One gradient, and the derivatives along it.
    """
    completions = passes.completions
    some = completions.sample(completions.chosen(), _TOKENS)
    pilot = torch.isin(completions.places, torch.tensor(some))
    # Signs that depend on the sequence alone, lest equal completions cancel.
    signs = torch.where(completions.places % 2 == 0, 1.0, -1.0).double() * pilot
    vector = passes.gradient(signs)
    square = passes.lengths(vector)[0] ** 2
    if not square > 0:
        return float("nan")
    slopes = passes.directional(vector, where=pilot).nan_to_num(nan=0.0)
    return abs(float((signs * slopes).sum()) / square - 1)
