"""Steps on short answers that compute a prompt once, however many completions it has.

TRL reads the prompt again with every completion. Where answers are a few tokens behind worked
examples, nearly all of a step is that. Here a prompt is read once, its states are shared by its
completions, in drawing them and in the loss, and the law and the gradient stay what they are.
Before the first step some rows are computed in both ways: where they differ, TRL's is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from passgrad.lm.rollouts import Sampling
from passgrad.rollouts.shared_beginnings import SharedBeginnings

#: tokens up to which an answer is short
SHORT = 16
# How far a log-probability may be off TRL's: the rounding of float32, and of a GPU's bfloat16.
_GAP, _GAP_16 = 1e-3, 0.1


class SharedPrompts:
    """Mixed into a trainer of :mod:`passgrad.trl`, before it among the bases."""

    # Attributes of TRL's trainers, for the type checker.
    model: Any
    args: Any
    accelerator: Any
    eos_token_ids: list[int]
    use_vllm: bool
    max_completion_length: int

    #: whether prompts are shared
    shares = False

    def share_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        """Share prompts from now on, if answers are short and the log-probabilities of some rows
        are TRL's. Draws nothing at random, so that a run that goes on decides the same.
        """
        width = min(self.max_completion_length, SHORT)
        # States are not kept where activations are computed again.
        if self.max_completion_length > SHORT or self.use_vllm or self.args.gradient_checkpointing:
            return
        by_length = sorted(prompts, key=len)
        some = [by_length[0], by_length[-1]] * 2
        longest = len(by_length[-1])
        tails = [(list(one) * width)[place : place + width] for place, one in enumerate(some)]
        rows = [
            [0] * (longest - len(one)) + [*one, *tail]
            for one, tail in zip(some, tails, strict=True)
        ]
        seen = [[0] * (longest - len(one)) + [1] * (len(one) + width) for one in some]
        ids, mask = (torch.tensor(x, device=self.accelerator.device) for x in (rows, seen))
        with torch.no_grad(), self.accelerator.autocast():
            try:
                mine, _ = _shared(self.model, ids, mask, width)
            except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError):
                return
            theirs = self._get_per_token_logps_and_entropies(self.model, ids, mask, width)[0]
        # nan is no agreement
        self.shares = bool((mine - theirs).abs().max() < (_GAP_16 if self.args.bf16 else _GAP))

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, *rest: Any, **named: Any
    ) -> Any:
        if not self.shares or images is not None or fields:
            return super()._generate_single_turn(  # type: ignore[misc]
                prompt_ids, images, fields, *rest, **named
            )
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
        model = self.accelerator.unwrap_model(self.model)
        training, _ = model.training, model.eval()
        drawn: list[list[int]] = []
        place = 0
        while place < len(prompt_ids):
            same = place
            while same < len(prompt_ids) and prompt_ids[same] == prompt_ids[place]:
                same += 1
            answers = SharedBeginnings(model, prompt_ids[place], self.eos_token_ids)
            some = answers.draw(same - place, self.max_completion_length, Sampling(), generator)
            drawn += [list(one.token_ids) for one in some]
            place = same
        model.train(training)
        return drawn, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **rest: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        more = any(value not in (None, False) for value in rest.values())
        if not self.shares or batch_size or more:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model, input_ids, attention_mask, logits_to_keep, batch_size,
                compute_entropy=compute_entropy, **rest,
            )  # fmt: skip
        with self.accelerator.autocast():
            logps, entropies = _shared(model, input_ids, attention_mask, logits_to_keep)
        return logps, entropies if compute_entropy else None, None


def _shared(model: Any, ids: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (rows, width) of the completions, with their graph, and entropies."""
    prompts = torch.cat([ids[:, :-width], mask[:, :-width]], 1)
    _, rows = torch.unique(prompts, dim=0, return_inverse=True)
    # The first row of each distinct prompt.
    first = torch.full((int(rows.max()) + 1,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, rows, torch.arange(len(rows), device=rows.device), "amin")
    seen = model(
        input_ids=ids[first, :-width], attention_mask=mask[first, :-width], use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    logits = seen.logits[rows]
    if width > 1:
        cache = seen.past_key_values
        cache.batch_select_indices(rows)
        behind = model(
            input_ids=ids[:, -width:-1], attention_mask=mask[:, :-1], past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        logits = torch.cat([logits, behind.logits], 1)
    law = logits.float().log_softmax(-1)
    with torch.no_grad():
        entropies = -(law.exp() * law).sum(-1)
    return law.gather(-1, ids[:, -width:, None])[..., 0], entropies
