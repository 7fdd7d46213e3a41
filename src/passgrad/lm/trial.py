r"""Whether a model can be measured at all, tried on a few tokens before hours of drawing.

A gradient is the yardstick of both derivatives along a vector: along itself,
:math:`\langle \nabla \log \pi, \nabla \log \pi \rangle` is the square of its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.tokens import TokenizedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: tokens of each prompt that are tried, and those of them that stand for a completion
TRIED: Final = 32
_TARGET: Final = 4
#: how far a derivative may be from the square of the length, as a share of it
CLOSE: Final = 5e-2


def try_model(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
    """Log-probability, gradient and derivative along it, of the last tokens of some prompts.

    :param prompts: Token ids; the first and the last few of those of at least two tokens are used.
    :raises UserError: For a model that looks at later tokens, logits that are not finite, and one
        that has no gradient or no derivative along a vector; it names the architecture.
    """
    sequences = [_sequence(tuple(prompt)) for prompt in prompts[:2]]
    name = type(model).__name__
    model.eval()
    try:
        _try_logits(model, sequences[0])
        given = Completions.from_tokens(
            [list(one.prefix) for one in sequences], [[list(one.target)] for one in sequences]
        )
        passes = CompletionPasses(model, given, torch.zeros(given.shape), packed=False)
        vector = passes.gradient(torch.ones(given.shape))
        square = float(vector.double().square().sum())
        if not square > 0 or square == float("inf"):
            raise UserError(f"{name} has a gradient of length {square**0.5:g} on these prompts")
        found = float(passes.directional(vector).sum())
    except UserError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model raises that cannot do this
        if "memory" in str(error).lower():
            raise
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{name} cannot be measured: it fails on the first prompts ({what}); "
            "take another model, or another version of transformers"
        ) from error
    if not abs(found - square) <= CLOSE * square:
        raise UserError(
            f"{name} cannot be measured: along its own gradient its derivative is {found:.4g}, "
            f"and the square of the gradient {square:.4g}"
        )


def _sequence(prompt: tuple[int, ...]) -> TokenizedPrompt:
    """The end of a prompt, whose last tokens stand for a completion."""
    some = prompt[-TRIED:] if len(prompt) > 1 else prompt * 2
    cut = max(1, len(some) - _TARGET)
    return TokenizedPrompt(some[:cut], some[cut:])


@torch.no_grad()
def _try_logits(model: PreTrainedModel, sequence: TokenizedPrompt) -> None:
    name = type(model).__name__
    ids = torch.tensor([[*sequence.prefix, *sequence.target]], device=model.device)
    whole = model(input_ids=ids, use_cache=False).logits[0].float()
    if not whole.isfinite().all():
        raise UserError(f"{name} gives logits that are not finite on the first prompt")
    cut = len(sequence.prefix)
    other = ids.clone()
    other[:, cut:] = other[:, :1]
    changed = model(input_ids=other, use_cache=False).logits[0].float()
    scale = float(whole[:cut].std())
    if float((changed[:cut] - whole[:cut]).abs().max()) > 1e-2 * scale:
        raise UserError(
            f"{name} is no causal language model: its logits at a token depend on later tokens; "
            "take one that is (or set is_decoder in its config, if it has that)"
        )
