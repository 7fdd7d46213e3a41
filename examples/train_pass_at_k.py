"""Train pass@k in TRL on a processor: sums in two conventions, with the embedded model.

python examples/train_pass_at_k.py --k 4 --steps 100
"""

import typer
from trl import GRPOConfig

import passgrad as pg
from passgrad.tasks.conventions import conventions
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
    out: str = "runs/conventions",
    k: int = 4,
    n: int = 8,
    steps: int = 100,
    prompts: int = 4,
    conflict_free: bool = False,
) -> None:
    """Ascend pass@k from n completions a prompt, with so many prompts a step; MODEL may be a folder
    or a name on the hub. --conflict-free mixes pass@1 and pass@k so that neither falls.
    """
    # fmt: off
    # recipe: begin
    network, tokenizer = pg.load_model(model)
    task = conventions()
    end_at_stop(network, tokenizer, task)
    args = GRPOConfig(
        out, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
        num_generations=n, per_device_train_batch_size=n * prompts,
        max_completion_length=4, max_steps=steps, logging_steps=1,
        learning_rate=1e-6, lr_scheduler_type="constant", report_to="none",
        gradient_checkpointing=False, bf16=False, use_cpu=True,
    )
    trainer = PassKGRPOTrainer(
        network, task_reward(task), args, task_dataset(task),
        processing_class=tokenizer,
        k=ConflictFree(k, "pcgrad") if conflict_free else k,
        callbacks=[ConflictCallback(k, every=5)],
    )
    trainer.train()
    # recipe: end
    # fmt: on
    trainer.save_model()


if __name__ == "__main__":
    typer.run(train)
