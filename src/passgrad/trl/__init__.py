r"""Training of pass@k in TRL, and updates that keep pass@1.

TRL trains what its loss and its advantages make of the rewards. The trainers here are TRL's own
with the advantages of an unbiased estimator of pass@k in place, for any k up to the number of
completions of a prompt, and they refuse settings that would make it another objective. Twenty
lines, on a processor:

.. code-block:: python

    import passgrad as pg
    from trl import GRPOConfig
    from passgrad.tasks.conventions import conventions
    from passgrad.trl import ConflictCallback, ConflictFree, PassKGRPOTrainer
    from passgrad.trl import end_at_stop, task_dataset, task_reward

    model, tokenizer = pg.load_model("smollm2-135m")
    task = conventions()
    end_at_stop(model, tokenizer, task)
    args = GRPOConfig(
        "runs/conventions", loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
        num_generations=8, per_device_train_batch_size=16, max_completion_length=4,
        learning_rate=1e-6, lr_scheduler_type="constant", max_steps=100, logging_steps=1,
        gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
    )
    trainer = PassKGRPOTrainer(
        model, task_reward(task), args, task_dataset(task), processing_class=tokenizer,
        k=ConflictFree(4, "pcgrad"), callbacks=[ConflictCallback(every=5)],
    )
    trainer.train()

``k=8`` ascends pass@8; ``{1: 0.5, 8: 0.5}`` a mixture; :class:`AnnealedK` goes from 8 to 1,
:class:`AdaptiveK` follows the measured conflict, :class:`AfterSteps` reads its sign once and then
takes pass@k or a mixture, and :class:`ConflictFree` mixes pass@1 and pass@k so that neither falls,
to first order in the metric of the optimiser, as measured. A reward is any function that TRL takes,
of 0 and 1 or graded.

*Adapters*: ``peft_config=`` as in TRL. *Several processes*: ``torchrun`` or ``accelerate launch``;
groups may lie on several of them. In-step measurement works with whole parameters on each process
(DDP, ZeRO-1, ZeRO-2) and with those of FSDP2; FSDP1 and ZeRO-3 are refused, where plain pass@k is a
matter of rewards and advantages alone. Under ZeRO the metric is plain.
*vLLM* on GPUs is TRL's own, by configuration: ``use_vllm=True`` with ``vllm_mode="colocate"`` on
one node or ``"server"``. vLLM draws from its own law, and the trainer differentiates another: in
``GRPOConfig`` leave the correction on, with ``vllm_importance_sampling_mode="sequence_mask"`` and
``vllm_importance_sampling_clip_max=None``, which weighs completions by the ratio of the two and
drops none. Its noise grows with the length of completions. The tests run adapters and two processes
on a CPU, and the products under FSDP2; FSDP2, DeepSpeed and vLLM within the trainer are untested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from passgrad.lazy import lazy_names

_HOMES = {
    "PassKMixin": "trainers",
    "PassKGRPOTrainer": "trainers",
    "PassKRLOOTrainer": "trainers",
    "ConflictCallback": "callback",
    "ConflictFree": "conflict_free",
    "AdaptiveK": "schedules",
    "AfterSteps": "schedules",
    "AnnealedK": "schedules",
    "FixedK": "schedules",
    "register_verl": "adapters",
    "register_skyrl": "adapters",
    "register_rllm": "adapters",
    "slime_rewards": "adapters",
    "task_dataset": "tasks",
    "task_reward": "tasks",
    "end_at_stop": "tasks",
}

__all__ = [
    "PassKGRPOTrainer",
    "PassKRLOOTrainer",
    "PassKMixin",
    "ConflictFree",
    "ConflictCallback",
    "FixedK",
    "AfterSteps",
    "AnnealedK",
    "AdaptiveK",
    "register_verl",
    "register_skyrl",
    "register_rllm",
    "slime_rewards",
    "task_dataset",
    "task_reward",
    "end_at_stop",
]

if TYPE_CHECKING:
    from passgrad.trl.adapters import register_rllm, register_skyrl, register_verl, slime_rewards
    from passgrad.trl.callback import ConflictCallback
    from passgrad.trl.conflict_free import ConflictFree
    from passgrad.trl.schedules import AdaptiveK, AfterSteps, AnnealedK, FixedK
    from passgrad.trl.tasks import end_at_stop, task_dataset, task_reward
    from passgrad.trl.trainers import PassKGRPOTrainer, PassKMixin, PassKRLOOTrainer

__getattr__, __dir__ = lazy_names(
    globals(),
    {name: f"passgrad.trl.{module}" for name, module in _HOMES.items()},
    extra="train",
    packages=("trl", "transformers", "accelerate", "datasets"),
)
