"""Train pass@k in TRL with a model of 8 billion parameters on 8 GPUs. Not run here.

Two GPUs draw completions with vLLM, six train; examples/launch_8b.sh starts both.
"""

from pathlib import Path
from typing import Any

import typer
from trl import GRPOConfig

from passgrad.lm.models import load_tokenizer
from passgrad.tasks.gsm8k import gsm8k
from passgrad.trl import AnnealedK, PassKGRPOTrainer, task_dataset, task_reward


def settings(out: str, n: int, length: int, stop: list[int], **changed: Any) -> GRPOConfig:
    """The settings under which the loss has the gradient of pass@k; ``changed`` replaces some."""
    # settings: begin
    exact = {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "max_grad_norm": 1e9,
        "vllm_importance_sampling_correction": False,
    }
    drawing = {
        "num_generations": n,
        "max_completion_length": length,
        "generation_kwargs": {"stop_token_ids": stop},
        "use_vllm": True,
        "vllm_mode": "server",
    }
    training = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 8,
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
    model: str = "Qwen/Qwen3-8B-Base",
    out: str = "runs/gsm8k-8b",
    k: int = 8,
    n: int = 32,
    anneal: bool = False,
    data: Path | None = None,
    prompts: int = 7000,
    resume: bool = False,
) -> None:
    """Ascend pass@k on GSM8K from n completions a prompt. --anneal goes from k to 1; DATA is a
    local file of GSM8K, the hub by default.
    """
    tokenizer = load_tokenizer(model)
    task = gsm8k(data, num_prompts=prompts)
    stop = [*tokenizer.encode(task.stop, add_special_tokens=False), tokenizer.eos_token_id]
    trainer = PassKGRPOTrainer(
        model,
        task_reward(task),
        settings(out, n, task.max_new_tokens, stop),
        task_dataset(task),
        processing_class=tokenizer,
        k=AnnealedK(k, 1) if anneal else k,
    )
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()


if __name__ == "__main__":
    typer.run(train)
