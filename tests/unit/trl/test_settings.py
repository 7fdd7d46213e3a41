import dataclasses
import re
import warnings

import pytest

from passgrad import UserError
from passgrad.trl.settings import enforce, find_biases, warn_clipping

GRPO = [
    ({"scale_rewards": "group"}, "scale_rewards"),
    ({"scale_rewards": "batch"}, "scale_rewards"),
    ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
    *(
        ({"loss_type": name}, "loss_type")
        for name in ("grpo", "dapo", "bnpo", "cispo", "sapo", "vespo")
    ),
    ({"beta": 0.1}, "beta"),
    ({"top_entropy_quantile": 0.5}, "top_entropy_quantile"),
    ({"entropy_coef": 0.1}, "entropy_coef"),
    ({"use_adaptive_entropy": True}, "use_adaptive_entropy"),
    ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold"),
    ({"delta": 1.0}, "delta"),
    ({"importance_sampling_level": "sequence"}, "importance_sampling_level"),
    *(
        (
            {"use_vllm": True, f"vllm_importance_sampling_{name}": value, **rest},
            f"vllm_importance_sampling_{name}",
        )
        for name, value, rest in (
            ("correction", False, {}),
            ("clip_max", 3.0, {}),
            ("clip_min", 0.1, {"vllm_importance_sampling_clip_max": None}),
            ("mode", "token_mask", {"vllm_importance_sampling_clip_max": None}),
        )
    ),
]
BOTH = [
    ({"temperature": 0.7}, "temperature"),
    ({"top_p": 0.9}, "top_p"),
    ({"top_k": 20}, "top_k"),
    ({"min_p": 0.1}, "min_p"),
    ({"repetition_penalty": 1.1}, "repetition_penalty"),
    ({"generation_kwargs": {"do_sample": False}}, "generation_kwargs['do_sample']"),
    ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs['num_beams']"),
    *(
        ({"generation_kwargs": {name: value}}, f"generation_kwargs[{name!r}]")
        for name, value in {
            "min_new_tokens": 32,
            "min_tokens": 32,
            "bad_words_ids": [[5]],
            "bad_words": ["x"],
            "logit_bias": {5: -100},
            "suppress_tokens": [5],
            "forced_eos_token_id": 0,
            "top_h": 0.5,
            "stop": ["x"],
            "eos_token_id": 7,
            "structured_outputs": {"regex": "a"},
            "allowed_token_ids": [1],
            "max_new_tokens": 3,
            "ignore_eos": True,
            "exponential_decay_length_penalty": [3, 1.5],
            "a_new_one": 1,
        }.items()
    ),
    ({"vllm_structured_outputs_regex": "[0-9]"}, "vllm_structured_outputs_regex"),
    ({"cache_implementation": "quantized"}, "cache_implementation"),
    ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
    ({"router_aux_loss_coef": 0.01}, "router_aux_loss_coef"),
    ({"num_iterations": 2}, "num_iterations"),
    ({"steps_per_generation": 2}, "steps_per_generation"),
    ({"mask_truncated_completions": True}, "mask_truncated_completions"),
]
RLOO = [
    ({"use_vllm": True}, "use_vllm"),
    ({"beta": 0.05}, "beta"),
    ({"normalize_advantages": True}, "normalize_advantages"),
    ({"reward_clip_range": (0.0, 0.5)}, "reward_clip_range"),
]  # fmt: skip
FINAL = {"multi_objective_aggregation", "reward_clip_range"}
CASES = [("grpo", *one) for one in GRPO + BOTH] + [("rloo", *one) for one in RLOO + BOTH]


@pytest.mark.parametrize(("kind", "options", "name"), CASES)
def test_every_setting_that_changes_the_objective(lab, tmp_path, kind, options, name):
    args = lab.make_config(tmp_path, kind, **options)
    (found,) = find_biases(args, kind)
    assert found.setting == name
    assert "\n" not in str(found)
    assert len(found.reason) > 20
    with pytest.raises(UserError, match=re.escape(name)) as error:
        enforce([found], allow_biased=False)
    assert "\n" not in str(error.value)
    if found.final:
        assert name in FINAL or (kind == "rloo" and name == "beta")
        with pytest.raises(UserError, match="would not ascend"):
            enforce([found], allow_biased=True)
    else:
        assert "allow_biased=True" in str(error.value)
        with pytest.warns(UserWarning, match="let through") as told:
            assert enforce([found], allow_biased=True) == [found]
        assert len(told) == 1


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_exact_settings_pass(lab, tmp_path, kind):
    args = lab.make_config(tmp_path, kind)
    assert find_biases(args, kind) == []
    # Several generations within one update are all on policy.
    args = lab.make_config(tmp_path, kind, gradient_accumulation_steps=4, steps_per_generation=2)
    assert find_biases(args, kind) == []


def test_the_defaults_of_trl_do_not_pass(tmp_path):
    from trl import GRPOConfig, RLOOConfig

    plain = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    assert [one.setting for one in find_biases(GRPOConfig(**plain), "grpo")] == [
        "scale_rewards",
        "loss_type",
    ]
    assert [one.setting for one in find_biases(RLOOConfig(**plain), "rloo")] == ["beta"]


def test_clipping_is_a_warning(lab, tmp_path):
    with pytest.warns(UserWarning, match="max_grad_norm=1 rescales"):
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=1e9))
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=0.0))


def test_one_warning_lists_them_all(lab, tmp_path):
    args = lab.make_config(tmp_path, loss_type="dapo", temperature=0.5)
    with pytest.warns(UserWarning, match="temperature=0.5.*; .*loss_type='dapo'") as told:
        enforce(find_biases(args, "grpo"), allow_biased=True)
    assert len(told) == 1


def test_options_of_generation_that_do_nothing(lab, tmp_path):
    neutral = {
        "min_new_tokens": 0, "logit_bias": None, "suppress_tokens": [], "use_cache": True,
        "temperature": 1.0, "top_k": -1, "num_beams": 1,
    }  # fmt: skip
    assert find_biases(lab.make_config(tmp_path, generation_kwargs=neutral), "grpo") == []


class Router:
    """A model of experts, as far as settings look at it."""

    class Config:
        output_router_logits, router_aux_loss_coef = False, 0.001

    config = Config()

    def named_modules(self):
        return []


def test_a_model_brings_a_loss_of_its_own(lab, tmp_path):
    (found,) = find_biases(lab.make_config(tmp_path), "grpo", Router())
    assert found.setting == "router_aux_loss_coef"
    assert "0.001 times" in found.reason
    args = lab.make_config(tmp_path, router_aux_loss_coef=0.0)
    assert find_biases(args, "grpo", Router()) == []


# What is neither refused nor a part of what a user asks for: files, logs, processes, precision,
# kernels, the optimiser's step along the gradient, evaluation, terms of what is refused, and what
# TRL refuses by itself.
_NAMES = """
    auto_find_batch_size
    output_dir num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
    warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules average_tokens_across_devices label_smoothing_factor bf16 fp16
    bf16_full_eval fp16_full_eval tf32 gradient_checkpointing gradient_checkpointing_kwargs
    torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config
    use_cache torch_empty_cache_steps logging_strategy logging_steps logging_first_step
    log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size
    prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object
    eval_accumulation_steps include_for_metrics batch_eval_metrics save_only_model save_strategy
    save_steps save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token
    hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu
    accelerator_config parallelism_config dataloader_drop_last dataloader_num_workers
    dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names
    train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed
    debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank
    model_init_kwargs trust_remote_code cast_lm_head_to_fp32 num_generations_eval
    ds3_gather_for_generation shuffle_dataset pad_to_multiple_of vllm_mode
    vllm_model_impl vllm_enable_sleep_mode vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization vllm_max_model_length
    vllm_tensor_parallel_size epsilon epsilon_high sapo_temperature_neg sapo_temperature_pos
    vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg sync_ref_model ref_model_mixup_alpha
    ref_model_sync_steps entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target
    max_tool_calling_iterations use_bias_correction_kl log_completions log_multimodal
    num_completions_to_print log_unique_prompts log_completions_hub_repo
    use_transformers_continuous_batching transformers_continuous_batching_config
    use_transformers_paged vllm_importance_sampling_cap
"""
HARMLESS = set(_NAMES.split())
# A part of what is asked for: prompts, completions and their sum of rewards; and the norm that is
# warned of.
HONOURED = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size",
    "num_generations", "max_completion_length", "chat_template_kwargs", "reward_weights",
    "max_grad_norm",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_every_field_of_the_configuration_is_placed(kind):
    """A field that a new version of TRL brings is in none of the three, and is looked at then."""
    from trl import GRPOConfig, RLOOConfig

    refused = {name.partition("[")[0] for _, name in (GRPO if kind == "grpo" else RLOO) + BOTH} | {
        "disable_dropout"
    }  # with a model that has some
    fields = {
        part.name for part in dataclasses.fields(GRPOConfig if kind == "grpo" else RLOOConfig)
    }
    if kind == "grpo":
        refused.add("use_vllm")  # without the right correction, which has names of its own
    assert not refused & HARMLESS
    assert not refused & HONOURED
    assert fields - refused - HARMLESS - HONOURED == set()
