"""Timed passes and decoding on the processor, to hold the cost model against.

Times are those of the processor, of one thread: other work on the machine enters wall time and
hardly enters them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses
from passgrad_book.build.threads import one_thread

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedModel

#: prompts, completions of each, tokens of a prompt, tokens of a completion
Size = tuple[int, int, int, int]


def _size(given: Sequence[int]) -> Size:
    if len(given) != 4:
        raise UserError(f"a size is four numbers (M, n, prompt, completion), got {list(given)}")
    return (given[0], given[1], given[2], given[3])


def depth_tables(name: str, layers: int, sizes: Sequence[Size]) -> dict[str, DataFrame]:
    """``passes``: :func:`time_passes` of the first ``layers`` layers of a model."""
    model, _ = load_model(name)
    return {"passes": time_passes(truncated(model, layers), [_size(one) for one in sizes])}


def machine_tables(
    name: str, batches: Sequence[int], prompt: int, new: int
) -> dict[str, DataFrame]:
    """``machine``: :func:`time_machine`; ``decoding``: :func:`time_decoding` of the whole model."""
    model, _ = load_model(name)
    return {"machine": time_machine(), "decoding": time_decoding(model, batches, prompt, new)}


def truncated(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """The first layers of a model, in place: another size with the same width and vocabulary."""
    inner: Any = model.model
    inner.layers = inner.layers[:layers]
    model.config.num_hidden_layers = layers
    return model


def random_completions(vocabulary: int, size: Size, seed: int = 0) -> Completions:
    """Random tokens: what a pass costs does not depend on which they are."""
    num_prompts, num_samples, prompt, completion = size
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(
        vocabulary, (num_prompts, prompt + num_samples * completion), generator=generator
    ).tolist()
    return Completions.from_tokens(
        [row[:prompt] for row in drawn],
        [
            [row[prompt + i * completion :][:completion] for i in range(num_samples)]
            for row in drawn
        ],
    )


def time_passes(model: PreTrainedModel, sizes: Sequence[Size], seed: int = 0) -> DataFrame:
    """The passes over random completions of each size: log-probabilities, gradient, and derivatives
    along it by central differences.

    Columns: num_prompts, num_samples, prompt_tokens, completion_tokens, ``pass``, ``seconds`` of
    the processor, ``wall``.
    """
    import pandas as pd

    rows = []
    with one_thread():
        for size in sizes:
            completions = random_completions(model.config.vocab_size, size, seed)
            passes = CompletionPasses(model, completions, torch.zeros(size[0], size[1]))
            generator = torch.Generator().manual_seed(seed)
            weights = torch.randn(size[0], size[1], generator=generator, dtype=torch.float64)
            _, *times = _timed(passes.logprobs)
            rows.append((*size, "logprobs", *times))
            vector, *times = _timed(passes.gradient, weights / weights.numel())
            rows.append((*size, "gradient", *times))
            _, *times = _timed(passes.directional, vector, "central")
            rows.append((*size, "central", *times))
    columns = ["num_prompts", "num_samples", "prompt_tokens", "completion_tokens"]
    return pd.DataFrame(rows, columns=[*columns, "pass", "seconds", "wall"])


def time_decoding(
    model: PreTrainedModel, batches: Sequence[int], prompt: int, new: int, seed: int = 0
) -> DataFrame:
    """Greedy completions of ``new`` tokens after random prompts, by transformers, for each batch.

    Columns: batch, ``seconds`` of the processor a step (the prompt's pass taken off), ``wall``.
    """
    import pandas as pd

    generator = torch.Generator().manual_seed(seed)
    rows = []
    with one_thread(), torch.no_grad():
        for batch in batches:
            ids = torch.randint(model.config.vocab_size, (batch, prompt), generator=generator)

            def draw(tokens: int, ids: torch.Tensor = ids) -> Any:
                return model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    min_new_tokens=tokens,
                    max_new_tokens=tokens,
                    pad_token_id=0,
                )

            draw(1)
            _, short, short_wall = _timed(draw, 1)
            _, long, long_wall = _timed(draw, 1 + new)
            rows.append((batch, (long - short) / new, (long_wall - short_wall) / new))
    return pd.DataFrame(rows, columns=["batch", "seconds", "wall"])


def time_machine(seconds: float = 1.0) -> DataFrame:
    """What the processor can do with one thread: ``operations`` a second of a product of matrices
    in float32, and ``bytes`` a second that a sum over a large vector reads.
    """
    import pandas as pd

    with one_thread():
        a, b = torch.randn(128, 576), torch.randn(576, 1536)
        large = torch.randn(2**26)
        product = _rate(lambda: a @ b, seconds)
        summed = _rate(lambda: large.sum(), seconds)
    operations = 2 * 128 * 576 * 1536 * product
    return pd.DataFrame({"operations": [operations], "bytes": [4 * large.numel() * summed]})


def _rate(function: Callable[[], Any], seconds: float) -> float:
    """Calls a second of the processor, the best of some."""
    function()
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        calls, start = 0, time.process_time()
        while time.process_time() - start < 0.05:
            function()
            calls += 1
        best = max(best, calls / (time.process_time() - start))
    return best


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """What it returns, seconds of the processor, seconds on the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    made = function(*arguments)
    return made, time.process_time() - cpu, time.perf_counter() - wall
