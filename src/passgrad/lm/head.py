r"""What a backward pass leaves at the output layer: gradients that no parameter holds by itself.

The logits of a position t are :math:`U h_t` with the output matrix U, (V, d), and the final hidden
state :math:`h_t`, behind the last norm. Of :math:`L = \sum_i c_i \log \pi(y_i \mid x_i)`

.. math:: \sum_t \frac{\partial L}{\partial h_t} \in R^d,
          \qquad \frac{\partial L}{\partial U}
          = \sum_t \frac{\partial L}{\partial (U h_t)} h_t^T \in R^{V \times d}

over the positions that predict a token of a completion. The first is the gradient with respect to
one vector that is added to the hidden state everywhere, the second that with respect to the *use*
of the matrix in the output layer: where it is tied, the derivative of the matrix has the use as
embedding in it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from passgrad.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False)
class HeadUse:
    """The two gradients of the backward passes so far, in float32 at least: (d,) and (V, d), the
    latter None where it was not asked for.
    """

    hidden: Tensor
    matrix: Tensor | None = None


def tied_output(model: PreTrainedModel) -> str | None:
    """The name of the parameter that the output layer shares with the embedding; None if it has
    one of its own.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or weight is not getattr(embedding, "weight", None):
        return None
    return next(name for name, parameter in model.named_parameters() if parameter is weight)


@contextmanager
def watch_head(model: PreTrainedModel, *, matrix: bool) -> Iterator[HeadUse]:
    """Within it, every backward pass adds to the two gradients.

    :param matrix: Whether to add up that of the matrix: V d numbers, and one more matrix product
        with the gradient of the logits.
    :raises UserError: For a model without an output layer.
    """
    head: Any = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None:
        raise UserError(f"{type(model).__name__} has no output layer; give a causal LM")
    dtype = torch.promote_types(weight.dtype, torch.float32)
    zero = torch.zeros(weight.shape, dtype=dtype, device=weight.device) if matrix else None
    use = HeadUse(torch.zeros(weight.shape[1], dtype=dtype, device=weight.device), zero)

    def forward(module: torch.nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        hidden = inputs[0]
        if not logits.requires_grad:
            return
        if hidden.requires_grad:
            hidden.register_hook(lambda g: _add(use.hidden, _flat(g).sum(0)))
        if use.matrix is not None:
            seen, total = _flat(hidden.detach()), use.matrix
            logits.register_hook(lambda g: _add(total, _flat(g).T @ seen))

    handle = head.register_forward_hook(forward)
    try:
        yield use
    finally:
        handle.remove()


def _flat(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])


@torch.no_grad()
def _add(total: Tensor, more: Tensor) -> None:
    total += more
