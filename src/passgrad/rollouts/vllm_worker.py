"""The process in which vLLM runs: reads a request, writes a response. See
:mod:`passgrad.rollouts.vllm_engine`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

#: Prefix caching works in whole blocks, and the CPU default of 128 tokens is longer than most
#: prompts here, which would then be computed once a completion. No smaller block starts.
CPU_BLOCK = 32


def generate(request: dict[str, Any], told: Path) -> dict[str, Any]:
    """What a :class:`~passgrad.lm.rollouts.Request`, as a dictionary, asks for.

    :param told: Has the number of completions so far.

    ``drawn``: for each prompt its completions, (token ids, finish reason, log-probability).
    ``seconds``: the wall time of ``load`` (imports and engine) and of ``generate``.
    """
    begun = time.perf_counter()
    import torch
    from vllm import LLM, SamplingParams

    settings, prompts = request["settings"], request["prompts"]
    longest = max(map(len, prompts)) + request["max_new_tokens"]
    on_cpu = {"block_size": CPU_BLOCK, "enforce_eager": True}
    engine = LLM(
        model=request["model"],
        # That of the gradients, so that what is sampled is what is differentiated.
        dtype=request["dtype"],
        seed=settings["seed"],
        max_model_len=longest + 1,
        enable_prefix_caching=True,
        disable_log_stats=True,
        trust_remote_code=False,
        # Nothing of what the model folder says about sampling and end tokens.
        generation_config="vllm",
        **({} if torch.cuda.is_available() else on_cpu),
    )
    # The engine is seeded, not the request: the CPU sampler refuses a request with a generator of
    # its own.
    law = SamplingParams(
        n=request["num_samples"],
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        top_k=settings["top_k"],
        min_p=0.0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        min_tokens=0,
        max_tokens=request["max_new_tokens"],
        stop_token_ids=request["ends"],
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
    )
    loaded = time.perf_counter()
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    outputs = engine.generate(asked, law, use_tqdm=_teller(told))
    return {
        "drawn": [[_plain(one) for one in output.outputs] for output in outputs],
        "seconds": {"load": loaded - begun, "generate": time.perf_counter() - loaded},
    }


def _teller(told: Path) -> Any:
    """A bar that vLLM takes, and that writes how many completions there are into a file."""
    from tqdm import tqdm

    class Teller(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "file": io.StringIO(), "mininterval": 1e9})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.iterable is None:  # not while prompts are handed over
                told.write_text(str(int(self.n)))
            return shown

    return Teller


def _plain(output: Any) -> tuple[list[int], str, float]:
    ids = list(output.token_ids)
    logprob = sum(step[token].logprob for step, token in zip(output.logprobs, ids, strict=True))
    return ids, output.finish_reason, logprob


def main(asked: Path, answered: Path) -> None:
    """Answer the request in one file with a response in another, which appears only when it is
    complete.
    """
    try:
        request = json.loads(asked.read_text(encoding="utf-8"))
        response = generate(request, answered.with_name("drawn.txt"))
    # Whatever stops an engine: the caller names it and goes on with another.
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).strip().splitlines() or ["no message"])[-1]
        response = {"error": f"{type(error).__name__}: {reason[:200]}"}
    scratch = answered.with_suffix(".part")
    scratch.write_text(json.dumps(response), encoding="utf-8")
    os.replace(scratch, answered)


def end_with_the_caller() -> None:
    """Once the caller's end of the pipe is gone, so are this process and the engine it started."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_caller, daemon=True).start()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
