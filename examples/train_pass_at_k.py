"""Train pass@k in TRL on a processor: counting, with the embedded model.

python examples/train_pass_at_k.py --k 4 --steps 30

`passgrad train examples/train_counting.yml` does as much without a script, and is quicker on a
processor: it reads a prompt once for all of its completions. The script is what to change where its
settings are not enough. It prints the seconds a step at its end.
"""

import typer
from peft import LoraConfig
from trl import GRPOConfig

import passgrad as pg
from passgrad.tasks.counting import counting
from passgrad.trl import (
    ConflictCallback,
    ConflictFree,
    PassKGRPOTrainer,
    end_at_stop,
    task_dataset,
    task_reward,
)


def train(
    model: str = "smollm2-135m",
    out: str = "runs/counting",
    k: int = 4,
    n: int = 8,
    steps: int = 30,
    prompts: int = 4,
    rank: int = 8,
    learning_rate: float = 3e-4,
    conflict_free: bool = False,
    held_out: int = 10,
    eval_every: int = 10,
) -> None:
    """Ascend pass@k from n completions a prompt, with so many prompts a step; MODEL may be a folder
    or a name on the hub. A LoRA adapter of this RANK is trained; --rank 0 trains all weights, which
    want a learning rate of 1e-6 to 1e-5. --conflict-free mixes pass@1 and pass@k so that neither
    falls.

    HELD_OUT prompts are not trained on: pass@1 and pass@k on them are logged as eval_passk/* before
    the first step and every EVAL_EVERY steps. The batch of a step is too small to see anything.
    """
    # fmt: off
    # recipe: begin
    network, tokenizer = pg.load_model(model)
    task = counting()
    end_at_stop(network, tokenizer, task)
    data = task_dataset(task).train_test_split(held_out, seed=0)
    args = GRPOConfig(
        out, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
        num_generations=n, per_device_train_batch_size=n * prompts,
        max_completion_length=4, max_steps=steps, logging_steps=1,
        learning_rate=learning_rate, lr_scheduler_type="constant", report_to="none",
        gradient_checkpointing=False, bf16=False, use_cpu=True,
        eval_strategy="steps", eval_steps=eval_every, eval_on_start=True,
        num_generations_eval=2 * n, per_device_eval_batch_size=2 * n * held_out,
    )
    adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear") if rank else None
    trainer = PassKGRPOTrainer(
        network, task_reward(task), args, data["train"], data["test"],
        processing_class=tokenizer, peft_config=adapter,
        k=ConflictFree(k, "pcgrad") if conflict_free else k,
        callbacks=[ConflictCallback(k, every=5)],
    )
    trainer.train()
    # recipe: end
    # fmt: on
    trainer.save_model()
    what_came_of_it(trainer.state.log_history, k)


def what_came_of_it(history: list[dict[str, float]], k: int) -> None:
    """Print what to look at, from what the trainer logged."""
    held = [row for row in history if f"eval_passk/pass@{k}" in row]
    if held:
        for name in ("pass@1", f"pass@{k}"):
            first, last = held[0][f"eval_passk/{name}"], held[-1][f"eval_passk/{name}"]
            typer.echo(f"{name} of the held-out prompts: {first:.3f} before, {last:.3f} at the end")
    measured = [row for row in history if "conflict/error_inner_product" in row]
    if measured:
        mean = measured[-1]["conflict/mean_inner_product"]
        error = measured[-1]["conflict/error_inner_product"]
        seen = "a conflict" if mean < -2 * error else "no conflict that the batches show"
        typer.echo(f"<grad J_{k}, grad J_1>: {mean:.3g}, standard error {error:.2g}: {seen}")
    if "train_runtime" in history[-1]:
        steps = history[-1]["step"]
        typer.echo(
            f"{history[-1]['train_runtime'] / steps:.3g} seconds a step, evaluation included"
        )


if __name__ == "__main__":
    typer.run(train)
