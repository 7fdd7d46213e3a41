"""Trainers of TRL on tiny random models, and what their gradient should be."""

import torch

LENGTH = 5


def digit_reward(completions, **rest):
    """1 where a completion has a digit among its first two characters."""
    return [float(any(c.isdigit() for c in text[:2])) for text in completions]


def length_reward(completions, **rest):
    """Graded."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def make_config(folder, kind="grpo", **options):
    from trl import GRPOConfig, RLOOConfig

    exact = {"loss_type": "dr_grpo", "scale_rewards": "none"} if kind == "grpo" else {"beta": 0.0}
    common = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_completion_length": LENGTH,
        "max_steps": 1,
        "max_grad_norm": 1e9,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return (GRPOConfig if kind == "grpo" else RLOOConfig)(**{**common, **exact, **options})


def make_dataset(count=8):
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [f"{i}+{(3 * i) % 7}=" for i in range(count)]})


def make_trainer(model, tokenizer, folder, kind="grpo", *, rewards=digit_reward, **options):
    from passgrad.trl import PassKGRPOTrainer, PassKRLOOTrainer

    own = {
        name: options.pop(name)
        for name in ("k", "estimator", "allow_biased", "scale", "callbacks", "peft_config")
        if name in options
    }
    evaluation = options.pop("eval_dataset", None)
    trainer = PassKGRPOTrainer if kind == "grpo" else PassKRLOOTrainer
    return trainer(
        model,
        rewards,
        make_config(folder, kind, **options),
        make_dataset(),
        evaluation,
        tokenizer,
        **{"k": 2, **own},
    )


def seen_steps(trainer):
    """Records, step by step, the batches, advantages, rewards and the gradient that is applied."""
    steps = []
    inner = trainer._generate_and_score_completions
    raw = trainer._calculate_rewards

    def keep_rewards(*positional, **named):
        found = raw(*positional, **named)
        steps.append({"rewards": found.clone()})
        return found

    def keep_batch(inputs):
        output = inner(inputs)
        steps[-1]["batch"] = {k: v for k, v in output.items() if torch.is_tensor(v)}
        return output

    trainer._calculate_rewards = keep_rewards
    trainer._generate_and_score_completions = keep_batch

    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **rest):
            trained = [p for p in trainer.model.parameters() if p.requires_grad]
            steps[-1]["gradient"] = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in trained]
            )
            steps[-1]["theta"] = [p.detach().clone() for p in trained]

    trainer.add_callback(Keep())
    return steps


def logprobs(model, batch):
    """Log-probabilities of whole completions, from the model's logits alone."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].double()
    table = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    length = batch["completion_ids"].shape[1]
    return (table[:, -length:] * batch["completion_mask"]).sum(1)


def policy_gradient(model, batch, advantages):
    """sum_i A_i grad log pi_i over the trained parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    made = torch.autograd.grad(
        logprobs(model, batch) @ advantages.double(), trained, allow_unused=True
    )
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(trained, made, strict=True)
        ]
    )


def lora(dropout=0.0):
    from peft import LoraConfig

    return LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], lora_dropout=dropout, task_type="CAUSAL_LM",
        init_lora_weights=False,
    )  # fmt: skip
