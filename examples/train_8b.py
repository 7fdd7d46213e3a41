"""Train pass@k in TRL with a model of 8 billion parameters on 8 GPUs. Not run here.

Two GPUs draw completions with vLLM, six train; examples/launch_8b.sh starts both.
"""

from pathlib import Path
from typing import Any

import typer
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

from passgrad.lm.models import load_tokenizer
from passgrad.tasks.prompt_files import read_prompts
from passgrad.trl import PassKGRPOTrainer, task_dataset, task_reward


def settings(out: str, n: int, length: int, stop: list[int], **changed: Any) -> GRPOConfig:
    """The settings under which the loss has the gradient of pass@k; ``changed`` replaces some."""
    # settings: begin
    exact = {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "max_grad_norm": 1e9,
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": None,
    }
    drawing = {
        "num_generations": n,
        "max_completion_length": length,
        "generation_kwargs": {"stop_token_ids": stop},
        "use_vllm": True,
        "vllm_mode": "server",
        "vllm_server_timeout": 3600,
    }
    training = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 32,
        "per_device_eval_batch_size": 16,
        "num_generations_eval": 16,
        "eval_strategy": "steps",
        "eval_steps": 50,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "warmup_steps": 10,
        "max_steps": 500,
        "save_steps": 50,
        "bf16": True,
        "model_init_kwargs": {"dtype": "float32"},
        "logging_steps": 1,
        "report_to": "tensorboard",
    }
    return GRPOConfig(out, **{**exact, **drawing, **training, **changed})
    # settings: end


def train(
    data: Path,
    model: str = "Qwen/Qwen3-8B-Base",
    out: str = "runs/passk-8b",
    k: int = 8,
    n: int = 32,
    verifier: str = "math",
    length: int = 2048,
    held_out: int = 256,
    mixture: float = 0.5,
) -> None:
    """Ascend a mixture of pass@1 and pass@k on the prompts of DATA, from n completions a prompt.

    DATA has a row a prompt as for `passgrad measure`. Take problems of which the model solves some
    seldom: `passgrad plan` says whether a measurement shows enough of them. The last HELD_OUT rows
    are not trained on. MIXTURE is the share of pass@1: 0 is pass@k alone, 1 pass@1.
    """
    tokenizer = load_tokenizer(model)
    task = read_prompts(data, tokenizer=tokenizer, verifier=verifier, max_new_tokens=length)
    rows = task_dataset(task)
    middle = len(rows) - held_out
    shares = {1: mixture, k: 1 - mixture}
    trainer = PassKGRPOTrainer(
        model,
        task_reward(task),
        settings(out, n, length, [tokenizer.eos_token_id]),
        rows.select(range(middle)),
        eval_dataset=rows.select(range(middle, len(rows))),
        processing_class=tokenizer,
        k={order: share for order, share in shares.items() if share},
    )
    trainer.train(resume_from_checkpoint=Path(out).is_dir() and get_last_checkpoint(out))
    trainer.save_model()


if __name__ == "__main__":
    typer.run(train)
