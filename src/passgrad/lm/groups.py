"""Which part of a transformer a parameter belongs to, and inner products split by part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.parameters import ParameterLayout

Name = TypeVar("Name")

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


Kind = Literal["whole", "layer", "group", "final"]

#: units beside the parameters: the final hidden state, and the output layer's use of a tied matrix
HIDDEN_STATE: Final = "(final hidden state)"
OUTPUT_USE: Final = "(use in the output layer)"


@dataclass(frozen=True)
class Part:
    """Some units of a model: names of parameters, or one of the two beside them.

    Parts of the kinds "layer" and "group" divide the parameters; "whole" is all of them.
    """

    kind: Kind
    name: str
    units: tuple[str, ...]


def parts_of(layout: ParameterLayout, *, tied_output: str | None = None) -> list[Part]:
    r"""The parts of a model: all of it, its layers, its groups, and what "the final hidden layer"
    may be.

    Layers are the blocks, and what lies outside of them under the name of its group. The kind
    "final" has three readings of the gradient "with respect to policy parameters in the final
    hidden layer (dimension d = 4096)" of the paper's measurement (arXiv 2602.21189, section 7),
    which does not say which one it takes:

    - "final norm gain": the d gains of the norm behind the last block, the only parameters of that
      number there.
    - "final hidden state": the gradient with respect to the hidden state that the output layer
      reads, summed over the positions that predict a completion. It has d entries as well, of which
      none is a parameter (:mod:`passgrad.lm.head`).
    - "output layer": the gradient with respect to the output matrix in its use there, V d entries;
      where the matrix is tied, without the part of the embedding. Its rows cannot be pooled to d
      entries by a sum: that is zero, since probabilities add up to one.

    They are no parts of a division: a tied output layer is part of the embedding, and a hidden
    state is no parameter. A reading whose parameters are not in ``layout`` is left out.

    :param tied_output: The parameter that the output layer shares with the embedding.
    """
    groups, layers = groups_of(layout), layers_of(layout)
    blocks = [name for name, layer in layers.items() if layer is not None]
    last = list(layout.shapes).index(blocks[-1]) if blocks else -1
    # Some models (OPT) list what stands behind the blocks before them.
    behind = {n for place, n in enumerate(layout.shapes) if place > last or "final" in n}
    places: dict[str, list[str]] = {}
    for name in layout.shapes:
        places.setdefault(_layer(groups[name], layers[name], name in behind), []).append(name)
    parts = [Part("whole", "all parameters", tuple(layout.shapes))]
    parts += [Part("layer", name, tuple(units)) for name, units in places.items()]
    for group in GROUPS:
        units = tuple(name for name in layout.shapes if groups[name] == group)
        if units:
            parts.append(Part("group", _GROUP_NAMES.get(group, group), units))
    gain = tuple(
        name
        for name in layout.shapes
        if groups[name] == "norm" and name in behind and name.endswith("weight")
    )
    output = tuple(n for n in layout.shapes if groups[n] == "final" and n.endswith("weight"))
    if tied_output in layout.shapes:
        output = (OUTPUT_USE,)
    if gain:
        parts.append(Part("final", "final norm gain", gain))
    parts.append(Part("final", "final hidden state", (HIDDEN_STATE,)))
    if output:
        parts.append(Part("final", "output layer", output))
    return parts


_GROUP_NAMES: Final = {"final": "output layer", "norm": "norms", "embedding": "embeddings"}


def _layer(group: str, layer: int | None, behind: bool) -> str:
    if layer is not None:
        return f"block {layer}"
    if group == "norm":
        return "final norm" if behind else "first norm"
    return {"final": "output layer"}.get(group, group)


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
    layout: ParameterLayout, a: Tensor, b: Tensor, parts: Mapping[str, Name]
) -> dict[Name, float]:
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
    total: dict[Name, float] = {}
    others = layout.views(b)
    for name, piece in layout.views(a).items():
        product = torch.dot(piece.flatten().double(), others[name].flatten().double())
        total[parts[name]] = total.get(parts[name], 0.0) + float(product)
    return total


def _group(name: str) -> str:
    return next((group for group, pattern in _PATTERNS if re.search(pattern, name)), "other")
