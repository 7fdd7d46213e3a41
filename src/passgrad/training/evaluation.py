"""pass@1 and pass@k of held-out prompts, with intervals, from completions of the model at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from passgrad.errors import UserError
from passgrad.lm.models import loaded_ends
from passgrad.lm.rollouts import Request, Sampling
from passgrad.rollouts.sampling import end_tokens, judged, prompt_tokens
from passgrad.rollouts.shared_beginnings import sample_laws
from passgrad.rollouts.transformers_engine import draw_from
from passgrad.stats import pass_at_k_interval
from passgrad.stats.intervals import Prompts
from passgrad.tasks.base import Task
from passgrad.training.shared import SHORT


@dataclass(frozen=True)
class HeldOut:
    """Prompts that are measured during training, and how."""

    task: Task
    samples: int
    orders: tuple[int, ...]
    reading: Prompts
    seed: int

    def measure(self, model: Any, tokenizer: Any, step: int) -> dict[str, Any]:
        """A row of ``held_out.jsonl``. The seed is that of the step, so that a step that is made
        again is measured with the same draws, and the draws of training are left alone.
        """
        training, generation = model.training, model.generation_config
        model.eval()
        try:
            correct = self._counts(model, tokenizer, Sampling(seed=self.seed * 1_000_003 + step))
        finally:
            model.train(training)
            model.generation_config = generation
        row: dict[str, Any] = {"step": step, "num_samples": self.samples, "num_correct": correct}
        for k in self.orders:
            ends = pass_at_k_interval(self.samples, correct, k, prompts=self.reading)
            row |= dict(zip((f"pass@{k}", f"pass@{k}_low", f"pass@{k}_high"), ends, strict=True))
        return {name: float(x) if name.startswith("pass") else x for name, x in row.items()}

    def _counts(self, model: Any, tokenizer: Any, law: Sampling) -> list[int]:
        """Right completions of each prompt."""
        task = self.task
        if task.max_new_tokens <= SHORT:
            try:
                [drawn] = sample_laws(model, tokenizer, task, [(self.samples, law)])
            except UserError:
                raise
            except (AttributeError, TypeError, NotImplementedError):
                pass  # a model without states that can be shared
            else:
                return [int(count) for count in drawn.num_correct]
        request = Request(
            "", prompt_tokens(tokenizer, task), self.samples,
            end_tokens(tokenizer, task, loaded_ends(model, tokenizer)), task.max_new_tokens, law,
            device=str(model.device),
        )  # fmt: skip
        found = judged(task, tokenizer, request, draw_from(model, request), "transformers")
        return [int(count) for count in found.num_correct]
