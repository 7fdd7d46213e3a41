"""All that needs a GPU, in under eight minutes and without a network: ``make gpu``.

The tests marked gpu, completions by transformers and by vLLM, a measurement in bfloat16 and its
forecast, ten steps of training, and the benchmarks. Each is a process of its own with a limit of
time; one that fails or finds no time left is named, and the others go on. Leaves a file
``gpu.json`` with what each said and the figures, and the provenance of the whole.

``--device cpu --small`` goes the whole path on a processor with a tiny model, to see that it runs:
the figures mean nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from passgrad import provenance
from passgrad.files import write_atomic
from passgrad.lm.models import load_model, save_model
from passgrad.lm.rollouts import Sampling
from passgrad.rollouts.sampling import sample, vllm_problem
from passgrad.tasks.conventions import conventions

ROOT = Path(__file__).resolve().parents[1]
#: seconds for all steps, and the most of one
LIMIT, EACH = 460.0, 150.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Device = Annotated[str, typer.Option(help="cuda, cuda:1, or cpu")]
Small = Annotated[bool, typer.Option("--small", help="a tiny model and small sizes")]
Model = Annotated[str, typer.Option(help="an embedded name, or a folder")]


@app.command()
def all_steps(
    device: Device = "cuda",
    small: Small = False,
    out: Annotated[Path, typer.Option(help="folder of the results")] = ROOT / "_build" / "gpu",
    only: Annotated[str, typer.Option(help="names of steps, such as tests,measure")] = "",
    model: Model = "smollm2-135m",
) -> None:
    """Run the steps, and write gpu.json."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("no GPU is seen here: give --device cpu --small to try the path")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="passgrad-gpu-") as folder:
        scratch = Path(folder)
        place = str(_tiny(scratch / "tiny")) if small else model
        steps = _steps(device, small, place, scratch)
        unknown = sorted(set(filter(None, only.split(","))) - set(steps))
        if unknown:
            raise typer.BadParameter(f"no step {unknown[0]}; the steps are {', '.join(steps)}")
        done: dict[str, Any] = {}
        for name, command in steps.items():
            if only and name not in only.split(","):
                continue
            left = LIMIT - (time.monotonic() - begun)
            figures = scratch / f"{name}.json"
            done[name] = _run(command(figures), min(EACH, left), figures, device)
            print(f"{name}: {done[name]['status']} ({done[name]['seconds']} s)", flush=True)
    record = provenance.record(seed=0)
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    content = {
        "device": device, "gpu": gpu, "small": small, "model": model,
        "seconds": round(time.monotonic() - begun, 1), "steps": done, "provenance": record,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "gpu.json", (json.dumps(content, indent=2) + "\n").encode())
    print(out / "gpu.json")
    failed = [name for name, one in done.items() if one["status"] not in ("done", "left out")]
    sys.exit(1 if failed else 0)


def _steps(
    device: str, small: bool, model: str, scratch: Path
) -> dict[str, Callable[[Path], list[str] | str]]:
    """By name: the command that leaves figures in a file, or why there is none."""
    python, here = sys.executable, str(Path(__file__).resolve())
    measure = [
        python, "-m", "passgrad.cli", "measure", "--model", model, "--prompts", "conventions",
        "--engine", "transformers", "--dtype", "bfloat16", "--device", device,
        "--samples", "8" if small else "64", "--ks", "1,2,4" if small else "1,2,4,8,16",
    ]  # fmt: skip
    common = ["--device", device, "--model", model, *(["--small"] if small else [])]

    def benchmark(name: str, *more: str) -> Callable[[Path], list[str]]:
        given = [python, str(ROOT / "benchmarks" / f"{name}.py"), "--model", model, *more]
        given += ["--device", device, *(["--smoke"] if small else [])]
        return lambda figures: [*given, "--json", str(figures)]

    def own(name: str, *more: str) -> Callable[[Path], list[str]]:
        return lambda figures: [python, here, name, *common, *more, "--figures", str(figures)]

    problem = vllm_problem() if device.startswith("cuda") else "the device is a processor"
    return {
        "tests": lambda _: [
            python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu"),
        ],
        "forecast": lambda _: [*measure, "--dry-run", "--out", str(scratch / "forecast")],
        "measure": lambda _: [*measure, "--out", str(scratch / "measure")],
        "transformers": own("rollouts", "--engine", "transformers"),
        "vllm": own("rollouts", "--engine", "vllm") if problem is None else lambda _: problem,
        "training": own("training"),
        "packed_logprobs": benchmark("packed_logprobs"),
        "measure_passes": benchmark("measure_passes", "--parts", "training"),
        "bfloat16": benchmark("bfloat16"),
    }  # fmt: skip


def _run(command: list[str] | str, seconds: float, figures: Path, device: str) -> dict[str, Any]:
    """What became of one step."""
    if isinstance(command, str):
        return {"status": "left out", "said": command, "seconds": 0.0}
    if seconds < 5:
        return {"status": "no time left", "said": "", "seconds": 0.0}
    begun = time.monotonic()
    given = os.environ | {"PASSGRAD_GPU_DEVICE": device, "PASSGRAD_ROOT": str(ROOT)}
    try:
        ran = subprocess.run(
            command, cwd=ROOT, env=given, timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        status = "done" if ran.returncode == 0 else f"failed with status {ran.returncode}"
        said = ran.stdout
    except subprocess.TimeoutExpired as error:
        status = f"stopped after {seconds:.0f} s"
        said = (error.stdout or b"").decode(errors="replace") if error.stdout else ""
    made: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - begun, 1)}
    made["said"] = said.strip()[-2000:]
    if figures.is_file():
        made["figures"] = json.loads(figures.read_text())
    return made


@app.command()
def rollouts(
    engine: str = "transformers",
    device: Device = "cuda",
    small: Small = False,
    model: Model = "smollm2-135m",
    figures: Path | None = None,
) -> None:
    """Draw completions, and say how many tokens a second."""
    begun = time.monotonic()
    drawn = sample(
        model, conventions(), num_samples=2 if small else 64, engine=engine,  # type: ignore[arg-type]
        settings=Sampling(seed=0), dtype="bfloat16", device=device,
    )  # fmt: skip
    tokens = sum(map(len, drawn.table["completion_ids"].to_pylist()))
    seconds = time.monotonic() - begun
    _leave(figures, {"tokens": tokens, "seconds": seconds, "right": float(drawn.rewards.mean())})


@app.command()
def training(
    device: Device = "cuda",
    small: Small = False,
    model: Model = "smollm2-135m",
    figures: Path | None = None,
) -> None:
    """Ten steps of pass@k in TRL; two with --small."""
    from trl import GRPOConfig

    from passgrad.trl import PassKGRPOTrainer, end_at_stop, task_dataset, task_reward

    network, tokenizer = load_model(model)
    task, on_cpu = conventions(), device == "cpu"
    end_at_stop(network, tokenizer, task)
    with tempfile.TemporaryDirectory(prefix="passgrad-gpu-") as scratch:
        args = GRPOConfig(
            scratch, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
            num_generations=4, per_device_train_batch_size=8, max_completion_length=4,
            max_steps=2 if small else 10, logging_steps=1, learning_rate=1e-6,
            lr_scheduler_type="constant", report_to="none", gradient_checkpointing=False,
            bf16=not on_cpu, use_cpu=on_cpu, save_strategy="no",
        )  # fmt: skip
        trainer = PassKGRPOTrainer(
            network, task_reward(task), args, task_dataset(task), processing_class=tokenizer, k=2
        )
        begun = time.monotonic()
        trainer.train()
    steps = trainer.state.global_step
    _leave(figures, {"steps": steps, "seconds_a_step": (time.monotonic() - begun) / steps})


def _leave(path: Path | None, figures: dict[str, Any]) -> None:
    text = json.dumps(figures, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def _tiny(place: Path) -> Path:
    """A model of random weights that reads printable text."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", *map(chr, range(32, 127)), "\n"]
    backend = Tokenizer(BPE({word: number for number, word in enumerate(words)}, []))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.pad_token = tokenizer.eos_token
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        eos_token_id=0, bos_token_id=0, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    return save_model(LlamaForCausalLM(config), tokenizer, place)


if __name__ == "__main__":
    # Without a name of a step all of them are run.
    named = len(sys.argv) > 1 and sys.argv[1] in ("rollouts", "training")
    app(sys.argv[1:] if named else ["all-steps", *sys.argv[1:]])
