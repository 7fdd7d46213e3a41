"""Which part of a transformer a parameter belongs to, and inner products split by part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.parameters import ParameterLayout

Part = TypeVar("Part")

#: the groups, in the order of a forward pass; "other" is what no name tells
GROUPS: Final = ("embedding", "attention", "mlp", "norm", "final", "other")

# The first that matches decides. Norms come first, since they are called after what they stand
# behind ("post_attention_layernorm"); the blocks come before the embeddings, whose names are short.
_PATTERNS = (
    ("norm", r"norm|(^|\.)ln(_\w+)?\."),
    ("final", r"(^|\.)(lm_head|embed_out|output_projection)\."),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|moe|expert|feed_?forward|(^|\.)ffn?\w*\.|(^|\.)fc\d?\.|dense_h"),
    ("embedding", r"embed|(^|\.)w[tp]e\."),
)


def groups_of(layout: ParameterLayout) -> dict[str, str]:
    """The group of each parameter of a model, by its name: one of :data:`GROUPS`.

    "final" is an output layer with weights of its own. A tied one is the embedding, and listed
    there: one matrix cannot be in two groups. The norm behind the last block counts as "norm".
    """
    return {name: _group(name) for name in layout.shapes}


def layers_of(layout: ParameterLayout) -> dict[str, int | None]:
    """The block that each parameter lies in, counted from 0; None outside the blocks."""
    found = {name: re.search(r"\.(\d+)\.", name) for name in layout.shapes}
    return {name: int(match[1]) if match else None for name, match in found.items()}


def inner_products(
    layout: ParameterLayout, a: Tensor, b: Tensor, parts: Mapping[str, Part]
) -> dict[Part, float]:
    r""":math:`\langle a, b \rangle` of two vectors of parameter space (d,), split by part: the
    values add up to the whole. Summed in float64, one parameter at a time.

    :param parts: The part of each parameter by name, as :func:`groups_of` and :func:`layers_of`
        give it.
    :raises UserError: For vectors of another length, or parameters without a part.
    """
    for vector in (a, b):
        if tuple(vector.shape) != (layout.num_parameters,):
            raise UserError(
                f"a vector of shape {tuple(vector.shape)}; the model has "
                f"{layout.num_parameters} parameters"
            )
    missing = [name for name in layout.shapes if name not in parts]
    if missing:
        raise UserError(f"no part is given for the parameter {missing[0]}; give one for each")
    total: dict[Part, float] = {}
    others = layout.views(b)
    for name, piece in layout.views(a).items():
        product = torch.dot(piece.flatten().double(), others[name].flatten().double())
        total[parts[name]] = total.get(parts[name], 0.0) + float(product)
    return total


def _group(name: str) -> str:
    return next((group for group, pattern in _PATTERNS if re.search(pattern, name)), "other")
