r"""Whether completions were drawn from the law that is differentiated.

A gradient of :math:`J` is estimated with :math:`\nabla \log \pi`, whose mean is zero under
:math:`\pi` alone. Completions come from a law q that may be another one: of other weights, of
quantised or bfloat16 ones, at another temperature, behind a server that nobody here started. Two
comparisons with the model itself, on some of the completions:

- **Log-probabilities**, where q's are known. With
  :math:`\Delta_i = \log q(y_i \mid x_i) - \log \pi(y_i \mid x_i)` the gap
  :math:`\sum_i |\Delta_i| / \sum_i |y_i|`, in nats a token. Its mean is at least
  :math:`KL(q \| \pi)` a token. Rounding to bfloat16 gives some hundredths; another model, whole
  nats.
- **Surprise**, of tokens alone. At every step a draw of :math:`\pi` has the mean log-probability
  :math:`-H`, H the entropy of the next token, so that

  .. math:: S = \sum_{i, t} \bigl(\log \pi(y_{it} \mid x_i, y_{i, <t}) + H_{it}\bigr),
            \qquad V = \sum_{i, t} \mathrm{Var}_\pi \bigl(\log \pi(\cdot \mid x_i, y_{i, <t})\bigr)

  is a martingale under :math:`\pi`, stopped where the completion ends, with the predictable
  variance V; :math:`z = S / \sqrt V` is about standard normal. A lower temperature, top-p and top-k
  make it positive, a higher temperature and other weights negative. Completions that were selected
  afterwards are no draws of :math:`\pi` either.

The first does not see a law that an engine bends behind its log-probabilities, the second sees
nothing in few tokens.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.rollouts import Rollouts
from passgrad.lm.tokens import encode
from passgrad.progress import Progress, Silent
from passgrad.rollouts.foreign_logs import SamplingLawWarning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: nats a token: a larger gap is warned of. Weights in bfloat16 stay below it.
WARN: Final = 0.05
#: nats a token: a larger gap is another model
REFUSE: Final = 0.5
#: a larger \|z\| is warned of: 6 of 100,000 samples of the policy itself
SURPRISE: Final = 4.0
#: nats a token: what rounding may move the mean surprise, however many tokens show it
NEGLIGIBLE: Final = 0.02

# Prompts, spread over the table, and completions of each: enough to tell laws apart, at the cost of
# a few dozen short sequences.
_PROMPTS, _EACH, MOST_TOKENS = 12, 8, 16384


@dataclass(frozen=True)
class LawComparison:
    """What some completions say about the law that they were drawn from.

    ``gap``: nats a token, nan where the rollouts have no log-probabilities. ``excess``: S over the
    tokens, in nats. ``z``: S in standard errors; 0 where the model leaves nothing to chance.
    """

    completions: int
    tokens: int
    gap: float
    excess: float
    z: float

    @property
    def differs(self) -> bool:
        """Whether one of the two is beyond what is warned of."""
        return self.gap > WARN or self.surprising

    @property
    def surprising(self) -> bool:
        """Whether draws of the policy would hardly have this mean log-probability."""
        return abs(self.z) > SURPRISE and abs(self.excess) > NEGLIGIBLE

    def __str__(self) -> str:
        known = "unknown" if np.isnan(self.gap) else f"{self.gap:.3f} nats a token off"
        return (
            f"log-probabilities {known}, tokens {abs(self.excess):.3f} nats "
            f"{'likelier' if self.excess >= 0 else 'less likely'} than draws of the model "
            f"(z = {self.z:.1f}), over {self.completions} completions of {self.tokens} tokens"
        )


def compare_laws(
    model: PreTrainedModel,
    rollouts: Rollouts,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress | None = None,
    *,
    most: int = MOST_TOKENS,
) -> LawComparison:
    """Compare the law of some completions with the model's, by one forward pass over each distinct
    one of them. Always the same completions of a table, until ``most`` tokens are read.

    :raises UserError: For a token that the model does not have.
    """
    model.eval()
    scored: dict[tuple[str, tuple[int, ...]], tuple[float, float, float]] = {}
    prompts: dict[str, list[int]] = {}
    total = variance = gaps = 0.0
    used = tokens = known = read = 0
    rows, progress = _chosen(rollouts), progress or Silent()
    progress.stage("comparing completions with the model", len(rows))
    for number, row in enumerate(rows):
        # Asked before a completion is looked at, lest long ones are left out.
        if read > most:
            progress.advance(len(rows) - number)
            break
        progress.advance()
        text, ids = row["prompt"], tuple(row["completion_ids"])
        if not ids:
            continue
        prefix = prompts.setdefault(text, encode(tokenizer, text))
        if (text, ids) not in scored:
            scored[text, ids] = _moments(model, prefix, ids)
            read += len(prefix) + len(ids)
        logprob, surprise, spread = scored[text, ids]
        used += 1
        tokens += len(ids)
        total += surprise
        variance += spread
        if row["logprob"] is not None and np.isfinite(row["logprob"]):
            gaps += abs(row["logprob"] - logprob)
            known += len(ids)
    return LawComparison(
        completions=used,
        tokens=tokens,
        gap=gaps / known if known else float("nan"),
        excess=total / tokens if tokens else 0.0,
        z=total / variance**0.5 if variance > 0 else 0.0,
    )


def check_same_law(
    model: PreTrainedModel,
    rollouts: Rollouts,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress | None = None,
    *,
    most: int = MOST_TOKENS,
) -> LawComparison:
    """:func:`compare_laws`, loud.

    :raises UserError: If the log-probabilities are more than :data:`REFUSE` nats a token off: these
        are not completions of this model.
    :warns SamplingLawWarning: If they are more than :data:`WARN` off, or the tokens are likelier or
        less likely than draws of the model by more than :data:`SURPRISE` standard errors.
    """
    found = compare_laws(model, rollouts, tokenizer, progress, most=most)
    if found.gap > REFUSE:
        raise UserError(
            f"the completions are not from this model: {found}; "
            "serve the model that is measured, or measure the one that is served"
        )
    if found.differs:
        warnings.warn(
            f"the completions may not be draws of this model: {found}",
            SamplingLawWarning,
            stacklevel=2,
        )
    return found


def _chosen(rollouts: Rollouts) -> list[dict[str, Any]]:
    """The first completion of each of some prompts, spread evenly over the table, then the second
    of each, and so on.
    """
    names = rollouts.prompt_ids
    places = np.linspace(0, len(names) - 1, min(len(names), _PROMPTS)).round().astype(int)
    rows: dict[str, list[int]] = {names[place]: [] for place in places}
    for number, name in enumerate(rollouts.table["prompt_id"].to_pylist()):
        if len(rows.get(name, range(_EACH))) < _EACH:
            rows[name].append(number)
    order = [number for some in zip(*rows.values(), strict=True) for number in some]
    return rollouts.table.select(["prompt", "completion_ids", "logprob"]).take(order).to_pylist()


@torch.no_grad()
def _moments(
    model: PreTrainedModel, prefix: list[int], ids: tuple[int, ...]
) -> tuple[float, float, float]:
    """Of a completion its log-probability, and its parts of S and V."""
    size = model.get_input_embeddings().num_embeddings
    if max(*prefix, *ids) >= size:
        raise UserError(
            f"the completions have the token {max(*prefix, *ids)}, and the model only {size}; "
            "they are of another model"
        )
    # Plain, one sequence a pass: nothing here rests on a block mask.
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[*prefix, *ids]], device=model.device)[:, :-1],
        "use_cache": False,
    }
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = len(ids)
    logits = model(**inputs).logits[0, -len(ids) :]
    table = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    chosen = table.gather(-1, torch.tensor(ids, device=table.device)[:, None])[:, 0]
    # Where p = 0 the product is 0.
    finite = table.masked_fill(table.isneginf(), 0.0)
    mean: Tensor = (table.exp() * finite).sum(-1)
    square = (table.exp() * finite**2).sum(-1)
    total = chosen.double().sum()
    spread = (square - mean**2).clamp(min=0).double().sum()
    return float(total), float(total - mean.double().sum()), float(spread)
