"""Settings of TRL that make a trainer ascend something else than it is asked to.

A trainer that is told to ascend pass@k and standardises rewards within groups ascends what GRPO
does, without a word. Every such setting is found here before training and refused with its reason;
``allow_biased=True`` lets most of them through, and the run carries the list of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from passgrad.errors import UserError
from passgrad.estimators import Estimator

Kind = Literal["grpo", "rloo"]

#: losses of GRPOTrainer that sum over tokens and divide by nothing random
EXACT_LOSSES: tuple[str, ...] = ("dr_grpo", "luspo")
_LOSSES = {
    "grpo": "divides each completion by its own length, so short ones count more",
    "sapo": "divides each completion by its own length, and gates it by its ratio",
    "bnpo": "divides by the number of tokens in the batch, which is random",
    "dapo": "divides by the number of tokens in the batch, which is random",
    "cispo": "divides by the number of tokens in the batch, which is random",
    "vespo": "divides by the number of tokens in the batch, which is random",
}
# Sampling options of transformers and vLLM, with the value at which they change nothing. One that
# is in neither table is not known to leave the law alone.
_SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "do_sample": True,
    "num_beams": 1,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "no_repeat_ngram_size": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "length_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "min_tokens": 0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "ignore_eos": False,
    "use_beam_search": False,
    "best_of": 1,
    "token_healing": False,
    "low_memory": False,
}
_HARMLESS = frozenset(
    {
        "use_cache", "cache_config", "pad_token_id", "bos_token_id", "decoder_start_token_id",
        "return_dict_in_generate", "output_scores", "output_logits", "output_attentions",
        "output_hidden_states", "num_return_sequences", "n", "seed", "logprobs", "prompt_logprobs",
        "detokenize", "skip_special_tokens", "spaces_between_special_tokens", "disable_compile",
        "compile_config", "prefill_chunk_size", "max_time_to_first_token", "output_kind",
        "early_stopping", "return_tensors", "tokenizer",
        # An end that the completion shows: the law of what stands before it is the same.
        "stop_token_ids",
    }
)  # fmt: skip
# Values at which any option of generation does nothing.
_NOTHING: tuple[Any, ...] = (None, [], {}, ())
# A norm of the gradient below which clipping is the rule rather than the exception.
_SMALL_NORM = 10.0


@dataclass(frozen=True)
class Finding:
    """One setting that changes the objective."""

    setting: str
    value: Any
    reason: str
    final: bool = False
    """``allow_biased`` does not help: the setting would have no effect, or no meaning."""

    def __str__(self) -> str:
        return f"{self.setting}={self.value!r} {self.reason}"


def find_biases(args: Any, kind: Kind, model: Any = None) -> list[Finding]:
    """The settings of a ``GRPOConfig`` or ``RLOOConfig`` (``kind``) that change the objective.

    :param model: Looked at for dropout, if given.
    """
    found = [*_sampling(args), *_reuse(args), *_terms(args, kind), *_both(args)]
    found += _grpo(args) if kind == "grpo" else _rloo(args)
    if model is not None:
        found += _routers(args, model)
    if model is not None and not args.disable_dropout:
        found += _dropout(model)
    return found


def enforce(found: Iterable[Finding], allow_biased: bool) -> list[Finding]:
    """Refuse, or let through with one warning; returns what was let through.

    Raises UserError, in one line, for settings that are refused.
    """
    found = list(found)
    refused = [one for one in found if one.final or not allow_biased]
    if refused:
        hint = "" if any(one.final for one in refused) else "; allow_biased=True lets this through"
        raise UserError(
            f"the trainer would not ascend what it is asked to: {_listed(refused)}{hint}"
        )
    if found:
        warnings.warn(f"biased settings are let through: {_listed(found)}", stacklevel=3)
    return found


def warn_clipping(args: Any) -> None:
    """Warn that clipping of the norm rescales the steps: it keeps their direction."""
    norm = args.max_grad_norm
    if norm is not None and 0 < norm < _SMALL_NORM:
        warnings.warn(
            f"max_grad_norm={norm:g} rescales the steps whose gradient is longer, and with it the "
            "weight of their prompts; a large value leaves the gradient as it is",
            stacklevel=3,
        )


def check_samples(
    estimator: Estimator, orders: Iterable[int], num_samples: int, mixed: bool
) -> None:
    """Raise UserError where an order needs more samples a prompt than there are, and where an
    estimator cannot be mixed over orders.
    """
    if mixed and not (estimator.unbiased and estimator.takes == "k"):
        raise UserError(
            f"{estimator.name} has a scale of its own at each k, so that orders cannot be mixed or "
            "changed: take an unbiased one, such as 'pkpo-loo1'"
        )
    for k in orders:
        estimator.orders(num_samples, k, strict=True)


def _sampling(args: Any) -> Iterator[Finding]:
    reason = "samples from another law than the one that is differentiated"
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value = getattr(args, name, None)
        if not _neutral(name, value):
            yield Finding(name, value, reason)
    for name, value in _mapping(args.generation_kwargs).items():
        if name in _HARMLESS or value in _NOTHING or (name in _SAMPLING and _neutral(name, value)):
            continue
        yield Finding(
            f"generation_kwargs[{name!r}]",
            value,
            reason if name in _SAMPLING else "is not known to leave the law of the samples alone",
        )
    if args.vllm_structured_outputs_regex is not None:
        yield Finding("vllm_structured_outputs_regex", args.vllm_structured_outputs_regex, reason)
    if args.cache_implementation == "quantized":
        yield Finding("cache_implementation", "quantized", reason)


def _neutral(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name == "top_k":
        return value <= 0
    return value == _SAMPLING[name]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _both(args: Any) -> Iterator[Finding]:
    """What both trainers inherit."""
    if args.neftune_noise_alpha is not None:
        yield Finding(
            "neftune_noise_alpha",
            args.neftune_noise_alpha,
            "adds noise to the embeddings, so another law is differentiated than sampled from",
        )
    if args.router_aux_loss_coef:
        yield Finding(
            "router_aux_loss_coef",
            args.router_aux_loss_coef,
            "adds a loss that balances experts; set it to 0",
        )


def _routers(args: Any, model: Any) -> Iterator[Finding]:
    """The loss that balances experts at the model's own coefficient, which None takes."""
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    coefficient = getattr(config, "router_aux_loss_coef", 0.0)
    if (
        args.router_aux_loss_coef is None
        and hasattr(config, "output_router_logits")
        and coefficient
    ):
        yield Finding(
            "router_aux_loss_coef",
            None,
            f"adds a loss that balances experts, {coefficient:g} times, as the model's "
            "configuration says; set it to 0",
        )


def _reuse(args: Any) -> Iterator[Finding]:
    if args.num_iterations != 1:
        yield Finding(
            "num_iterations", args.num_iterations, "uses samples again after the policy has moved"
        )
    if args.gradient_accumulation_steps % args.steps_per_generation:
        yield Finding(
            "steps_per_generation",
            args.steps_per_generation,
            "spreads one batch of samples over several updates "
            f"(gradient_accumulation_steps is {args.gradient_accumulation_steps}), so that the "
            "later ones use samples of an older policy",
        )


def _terms(args: Any, kind: Kind) -> Iterator[Finding]:
    if args.beta != 0:
        where = "adds a KL term to the loss"
        if kind == "rloo":
            where = "puts a KL term into the rewards, which the estimator replaces: set beta=0"
        yield Finding("beta", args.beta, where, final=kind == "rloo")
    if args.mask_truncated_completions:
        yield Finding(
            "mask_truncated_completions", True, "drops the scores of truncated completions"
        )


def _grpo(args: Any) -> Iterator[Finding]:
    if args.scale_rewards != "none":
        yield Finding(
            "scale_rewards",
            args.scale_rewards,
            "divides by the deviation of the rewards, which undoes the weights of pass@k",
        )
    if args.multi_objective_aggregation != "sum_then_normalize":
        yield Finding(
            "multi_objective_aggregation",
            args.multi_objective_aggregation,
            "standardises each reward, while the estimator takes their weighted sum",
            final=True,
        )
    if args.loss_type not in EXACT_LOSSES:
        reason = _LOSSES.get(args.loss_type, "is not known to sum over tokens")
        yield Finding("loss_type", args.loss_type, f"{reason}; take 'dr_grpo'")
    if args.importance_sampling_level != "token" and args.loss_type != "luspo":
        yield Finding(
            "importance_sampling_level",
            args.importance_sampling_level,
            "weighs all tokens of a completion by one ratio, which is the gradient of the "
            "objective only while samples are exactly on policy",
        )
    if args.top_entropy_quantile < 1:
        yield Finding(
            "top_entropy_quantile", args.top_entropy_quantile, "drops tokens from the score"
        )
    if args.entropy_coef or args.use_adaptive_entropy:
        yield Finding(
            "use_adaptive_entropy" if args.use_adaptive_entropy else "entropy_coef",
            args.use_adaptive_entropy or args.entropy_coef,
            "adds an entropy bonus to the loss",
        )
    if args.off_policy_mask_threshold is not None:
        yield Finding(
            "off_policy_mask_threshold",
            args.off_policy_mask_threshold,
            "drops completions by their advantage",
        )
    if args.delta is not None and args.delta <= 1:
        yield Finding("delta", args.delta, "clips the ratio of samples that are on policy")
    if args.use_vllm:
        yield from _two_engines(args)


def _two_engines(args: Any) -> Iterator[Finding]:
    """Completions are drawn from the law of vLLM, and the trainer differentiates its own. The ratio
    of the two, of whole completions and without a bound, makes the mean right.
    """
    if not args.vllm_importance_sampling_correction:
        yield Finding(
            "vllm_importance_sampling_correction",
            False,
            "differentiates another law than vLLM draws from; take True with "
            "vllm_importance_sampling_mode='sequence_mask' and vllm_importance_sampling_clip_max="
            "None",
        )
        return
    mode = args.vllm_importance_sampling_mode
    if not mode.startswith("sequence"):
        yield Finding(
            "vllm_importance_sampling_mode",
            mode,
            "weighs each token by its own ratio, which is not that of the completion; take "
            "'sequence_mask'",
        )
    for name in ("vllm_importance_sampling_clip_min", "vllm_importance_sampling_clip_max"):
        bound = getattr(args, name)
        if bound is not None:
            verb = "drops" if mode.endswith("mask") else "truncates the ratio of"
            yield Finding(
                name, bound, f"{verb} completions whose ratio of the two engines is beyond it; "
                "take None",
            )  # fmt: skip


def _rloo(args: Any) -> Iterator[Finding]:
    if args.use_vllm:
        yield Finding(
            "use_vllm",
            True,
            "differentiates another law than vLLM draws from, and RLOOTrainer has no correction; "
            "take PassKGRPOTrainer",
        )
    if args.reward_clip_range is not None:
        yield Finding(
            "reward_clip_range",
            args.reward_clip_range,
            "clips the rewards, which the estimator takes as they are: clip them in their function",
            final=True,
        )
    if args.normalize_advantages:
        yield Finding(
            "normalize_advantages",
            True,
            "centres and scales the advantages over the batch, which changes their mean",
        )


def _dropout(model: Any) -> Iterator[Finding]:
    for name, module in model.named_modules():
        share = getattr(module, "p", 0.0) if "Dropout" in type(module).__name__ else 0.0
        if share:
            yield Finding(
                "disable_dropout",
                False,
                f"differentiates another law than the one sampled from, as {name or 'the model'} "
                f"drops {share:g} of its inputs in training",
            )
            return
    config = getattr(model, "config", None)
    share = getattr(config, "attention_dropout", 0.0) or 0.0
    if isinstance(share, float) and share and math.isfinite(share):
        yield Finding(
            "config.attention_dropout",
            share,
            "differentiates another law than the one sampled from: set it to 0",
        )


def _listed(found: Iterable[Finding]) -> str:
    return "; ".join(map(str, found))
