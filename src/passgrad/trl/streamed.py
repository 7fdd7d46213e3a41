r"""The Gram matrix of the gradients of several objectives, from one batch, without bias.

The batch is cut into parts with independent samples: the prompts, or halves of the completions of
each. Part q gives, for each objective j, an unbiased :math:`u_q^{(j)} = \sum_i A_i^{(j)} s_i`.
Products of *different* parts are unbiased, products of a part with itself are not, so

.. math:: C_{jm} = \frac{1}{N} \sum_q \tfrac12 \bigl( \langle u_q^{(j)}, S_{<q}^{(m)} \rangle
                   + \langle u_q^{(m)}, S_{<q}^{(j)} \rangle \bigr), \qquad
          S_{<q} = \sum_{p \text{ in earlier rounds}} u_p,

over all N pairs of parts from different rounds. The sums run along with the parts: two vectors an
objective are held, whatever the number of parts is, and each completion goes through one forward
and one backward pass an objective. With every part in a round of its own this is the U-statistic of
all pairs; with two rounds it is half of the batch against the other.

The products :math:`\langle u_q^{(1)}, S_{<q}^{(1)} \rangle` are, one part at a time, the agreement
of a prompt with the gradient over other prompts.

Over several processes a part may lie on more than one of them: only the sums S are exchanged, once
a round, and a few scalars at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from passgrad.errors import UserError
from passgrad.trl.metric import local

# Entries multiplied at once: a sum in float32 over so many keeps six digits.
_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Part:
    """Samples that are independent of those of every other part."""

    rows: Tensor
    """Which of this process's rows belong to it, (R,); none where the part lies elsewhere."""
    weights: Tensor
    """The advantages of these rows for each of m objectives, (m, R)."""
    round: int
    """Products are taken between parts of different rounds, numbered from 0."""
    prompts: int = 1
    """How many prompts it holds; its u is the sum over them."""


@dataclass(frozen=True, eq=False)
class StreamedGram:
    """Products of the gradients of m objectives over Q parts."""

    gram: Tensor
    """C, (m, m), float64, symmetric, in units of one prompt."""
    agreement: Tensor
    """The product of the first objective's gradient of a part with that over the parts of earlier
    rounds, both a prompt, (Q,), float64; nan in the first round."""
    gradients: Tensor
    """The mean of the u over prompts, (m, d): biased when multiplied with itself."""
    scaled: Tensor | None = None
    """As ``gram``, of products in the metric that was given."""


def streamed_gram(
    parts: Sequence[Part],
    score: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    rows_at_once: int | None = None,
    add_up: Callable[[Tensor], Tensor] | None = None,
    metric: Tensor | None = None,
    sharded: bool = False,
) -> StreamedGram:
    """Run the passes; the gradients that the parameters hold are left alone.

    :param parts: In the same order and number on every process.
    :param score: Log-probabilities (R,) of some rows, with their graph.
    :param parameters: Those that are trained.
    :param rows_at_once: Rows a backward pass; all of a part by default.
    :param add_up: Adds a tensor up over processes and returns it.
    :param metric: A diagonal, (d,), in which products are taken as well.
    :param sharded: The parameters are those of FSDP2, of which each process has a share, and d
        counts that share. A backward pass then gives the share of the sum over processes, and all
        that is exchanged beside it are the products. Parts have as many rows on every process.
    :raises UserError: With fewer than two rounds, and where a product is not finite.
    """
    rounds = sorted({part.round for part in parts})
    if len(rounds) < 2:
        raise UserError("products without bias need parts in at least two rounds")
    trained = [one for one in parameters if one.requires_grad]
    size = sum(local(one).numel() for one in trained)
    objectives = len(parts[0].weights)
    device = local(trained[0]).device
    dtype = torch.promote_types(trained[0].dtype, torch.float32)
    total = torch.zeros(objectives, size, dtype=dtype, device=device)
    both = 1 if metric is None else 2
    dots = torch.zeros(len(parts), both, objectives, objectives, dtype=torch.float64, device=device)
    one_part = _sharded_gradients if sharded else _part_gradients
    pairs = torch.zeros(len(parts), dtype=torch.float64)
    earlier = 0
    for number in rounds:
        here = None
        members = [q for q, part in enumerate(parts) if part.round == number]
        for q in members:
            pairs[q] = earlier * parts[q].prompts
            own = one_part(parts[q], score, trained, rows_at_once, total)
            if own is None:
                continue
            if earlier:
                dots[q, 0] = _products(own, total)
                if metric is not None:
                    dots[q, 1] = _products(own, total, metric)
            here = own if here is None else here.add_(own)
        if add_up is not None and not sharded:
            here = add_up(torch.zeros_like(total) if here is None else here)
        if here is not None:
            total += here
        earlier += sum(parts[q].prompts for q in members)
    dots = (dots if add_up is None else add_up(dots)).cpu()
    if not dots.isfinite().all():
        raise UserError("a product of gradients is not finite; train in float32 or bfloat16")
    grams = (dots + dots.mT).sum(0) / 2 / pairs.sum()
    agreement = torch.where(pairs > 0, dots[:, 0, 0, 0] / pairs.clamp(min=1), torch.nan)
    scaled = None if metric is None else grams[1]
    return StreamedGram(grams[0], agreement, total.div_(earlier), scaled)


def part_gradients(
    parts: Sequence[Part],
    score: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    rows_at_once: int | None = None,
    add_up: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The u of every part and objective, all held at once: (m, Q, d)."""
    trained = [one for one in parameters if one.requires_grad]
    size = sum(one.numel() for one in trained)
    dtype = torch.promote_types(trained[0].dtype, torch.float32)
    made = torch.zeros(
        len(parts[0].weights), len(parts), size, dtype=dtype, device=trained[0].device
    )
    for q, part in enumerate(parts):
        own = _part_gradients(part, score, trained, rows_at_once, made[:, q])
        if own is not None:
            made[:, q] = own
    return made if add_up is None else add_up(made)


def _products(one: Tensor, other: Tensor, metric: Tensor | None = None) -> Tensor:
    """<one_j, other_m>, (m, m) float64, from (m, d): added up in float64 over pieces."""
    made = torch.zeros(len(one), len(one), dtype=torch.float64, device=one.device)
    for start in range(0, one.shape[1], _PIECE):
        piece = slice(start, start + _PIECE)
        left = one[:, piece] if metric is None else one[:, piece] * metric[piece]
        made += (left @ other[:, piece].T).double()
    return made


def _part_gradients(
    part: Part,
    score: Callable[[Tensor], Tensor],
    trained: Sequence[nn.Parameter],
    rows_at_once: int | None,
    like: Tensor,
) -> Tensor | None:
    """The u of the local rows of one part, (m, d); None where all advantages are 0."""
    needed = (part.weights != 0).any(0).nonzero()[:, 0]
    if not len(needed):
        return None
    made = torch.zeros_like(like)
    for rows, ratios in _passes(part.weights, needed):
        for some in rows.split(rows_at_once or len(rows)):
            with torch.enable_grad():
                values = score(part.rows[some])
                columns = part.weights[:, some].to(values)
                # One objective has the advantages of all of these rows, up to a factor.
                weights = columns if ratios is None else columns[ratios.argmax()][None]
                wanted = [j for j in range(len(weights)) if weights[j].any()]
                for j in wanted:
                    gradients = torch.autograd.grad(
                        weights[j] @ values,
                        trained,
                        retain_graph=j != wanted[-1],
                        allow_unused=True,
                    )
                    offset = 0
                    for one, gradient in zip(trained, gradients, strict=True):
                        place = slice(offset, offset + one.numel())
                        if gradient is not None and ratios is None:
                            made[j, place] += gradient.reshape(-1)
                        elif gradient is not None:
                            flat = gradient.reshape(-1).to(made)
                            for m, ratio in enumerate(ratios.tolist()):
                                made[m, place].add_(flat, alpha=ratio)
                        offset += one.numel()
                    del gradients
    return made


def _passes(weights: Tensor, needed: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """The rows of a part, with the factors (m,) of the objectives from that of the largest.

    Where the rows fall into at most m sets whose advantages (m,) are multiples of each other, each
    row takes one backward pass instead of m: so it is with rewards of 0 and 1 of one prompt.
    """
    columns = weights[:, needed].double()
    largest = columns.abs().argmax(0)
    ratios = columns / columns.gather(0, largest[None])
    # Equal up to rounding
    kinds, which = torch.unique(ratios.mul(1e9).round(), dim=1, return_inverse=True)
    if kinds.shape[1] > len(weights):
        return [(needed, None)]
    return [(needed[which == i], ratios[:, which == i][:, 0]) for i in range(kinds.shape[1])]


def _sharded_gradients(
    part: Part,
    score: Callable[[Tensor], Tensor],
    trained: Sequence[nn.Parameter],
    rows_at_once: int | None,
    like: Tensor,
) -> Tensor:
    """The local shares of the u of one part over all processes, (m, d).

    A layer is gathered from all processes, so that all take the same passes; FSDP2 leaves the mean
    over processes in ``grad``. An objective has its own forward pass, since a backward pass lets
    the gathered layers go.
    """
    made = torch.zeros_like(like)
    before = [one.grad for one in trained]
    processes = torch.distributed.get_world_size()
    try:
        for places in torch.arange(len(part.rows)).split(rows_at_once or len(part.rows)):
            for j in range(len(made)):
                for one in trained:
                    one.grad = None
                with torch.enable_grad():
                    values = score(part.rows[places])
                    (part.weights[j, places].to(values) @ values).backward()
                shares = [
                    torch.zeros_like(local(one)) if one.grad is None else local(one.grad)
                    for one in trained
                ]
                made[j] += torch.cat([one.flatten() for one in shares]) * processes
    finally:
        for one, gradient in zip(trained, before, strict=True):
            one.grad = gradient
    return made
