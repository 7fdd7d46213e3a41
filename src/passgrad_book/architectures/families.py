"""Tiny random models of the causal families of transformers, with windows, states and experts that
a few tokens reach.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from passgrad.lm.models.loading import with_caps

#: by any name that a family has for it; a config takes those that it knows
SIZES: dict[str, Any] = {
    "initializer_range": 0.15,
    "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0,
    # width and depth
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "lru_width": 32, "word_embed_proj_dim": 32,
    "intermediate_size": 48, "n_inner": 48, "ffn_dim": 48, "d_ff": 48, "intermediate_size_mlp": 48,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 8,
    # lengths: every window is shorter than the sequences
    "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256,
    "sliding_window": 8, "attention_window": 8, "attention_window_size": 8, "window_size": 8,
    "use_sliding_window": True, "max_window_layers": 0, "attention_chunk_size": 8,
    # experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_intermediate_size": 48,
    "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    # latent attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "qk_head_dim": 16,
    # states
    "mamba_n_heads": 8, "num_mamba_heads": 8, "mamba_num_heads": 8, "n_mamba_heads": 2,
    "mamba_d_head": 8, "mamba_head_dim": 8, "mamba_d_state": 8, "state_size": 8,
    "ssm_state_size": 8, "mamba_n_groups": 1, "n_groups": 1, "mamba_d_ssm": 64, "mamba_expand": 2,
    "mamba_chunk_size": 4, "chunk_size": 4, "time_step_rank": 4, "mamba_dt_rank": 4,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # embeddings of each layer
    "hidden_size_per_layer_input": 8, "laurel_rank": 4,
}  # fmt: skip

LATENT: dict[str, Any] = {"num_key_value_heads": 4, "head_dim": None}
BOTH: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
STATE: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}

#: model type -> (name in the table, what is set beyond the sizes; None leaves a size out)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "afmoe": ("AFMoE", {}),
    "apertus": ("Apertus", {}),
    "arcee": ("Arcee", {}),
    "aria_text": ("Aria (text)", {}),
    "bamba": ("Bamba", {"attn_layer_indices": [1]}),
    "biogpt": ("BioGPT", {}),
    "bitnet": ("BitNet", {}),
    "bloom": ("BLOOM", {}),
    "codegen": ("CodeGen", {}),
    "cohere": ("Cohere", {}),
    "cohere2": ("Cohere 2", BOTH),
    "ctrl": ("CTRL", {}),
    "cwm": ("CWM", {}),
    "deepseek_v2": ("DeepSeek V2", LATENT),
    "deepseek_v3": ("DeepSeek V3", LATENT),
    "deepseek_v4": (
        "DeepSeek V4",
        {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}},
    ),
    "diffllama": ("DiffLlama", {}),
    "doge": ("Doge", {}),
    "dots1": ("dots.llm1", BOTH),
    "ernie4_5": ("Ernie 4.5", {}),
    "ernie4_5_moe": ("Ernie 4.5 MoE", {}),
    "exaone4": ("Exaone 4", BOTH),
    "exaone_moe": ("Exaone MoE", BOTH),
    "falcon": ("Falcon", {"head_dim": None}),
    "falcon_h1": ("Falcon-H1", {}),
    "falcon_mamba": ("Falcon Mamba", {}),
    "flex_olmo": ("FlexOlmo", {}),
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma 2", {"attn_logit_softcapping": 0.5}),
    "gemma3_text": ("Gemma 3 (text)", BOTH),
    "gemma3n_text": (
        "Gemma 3n (text)",
        {
            "num_hidden_layers": 4, "layer_types": BOTH["layer_types"] * 2,
            "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4,
            "intermediate_size": [48] * 4,
        },
    ),
    "gemma4_text": ("Gemma 4 (text)", {"head_dim": None}),
    "glm": ("GLM", {}),
    "glm4": ("GLM-4", {}),
    "glm4_moe": ("GLM-4 MoE", {}),
    "gpt2": ("GPT-2", {}),
    "gpt_bigcode": ("GPT BigCode", {}),
    "gpt_neo": (
        "GPT-Neo", {"attention_types": [[["global", "local"], 1]], "num_hidden_layers": None},
    ),
    "gpt_neox": ("GPT-NeoX", {}),
    "gpt_oss": ("gpt-oss", {}),
    "gptj": ("GPT-J", {}),
    "granite": ("Granite", {}),
    "granitemoe": ("Granite MoE", {}),
    "granitemoehybrid": ("Granite 4 hybrid", {"layer_types": ["mamba", "attention"]}),
    "helium": ("Helium", {}),
    "hunyuan_v1_dense": ("HunYuan", {}),
    "hunyuan_v1_moe": ("HunYuan MoE", {}),
    "jamba": ("Jamba", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "jetmoe": ("JetMoE", {}),
    "lfm2": ("LFM2", {"layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": ("LFM2 MoE", {"layer_types": ["conv", "full_attention"]}),
    "llama": ("Llama", {}),
    "llama4_text": ("Llama 4 (text)", {"layer_types": ["chunked_attention", "full_attention"]}),
    "mamba": ("Mamba", {}),
    "mamba2": ("Mamba 2", {"num_heads": 8}),
    "mimo_v2_flash": ("MiMo V2 Flash", {}),
    "minimax": ("MiniMax", {}),
    "minimax_m2": ("MiniMax M2", {}),
    "ministral": ("Ministral", {}),
    "ministral3": ("Ministral 3", {}),
    "mistral": ("Mistral", {}),
    "mixtral": ("Mixtral", {}),
    "modernbert-decoder": ("ModernBERT decoder", {}),
    "mpt": ("MPT", {}),
    "nanochat": ("nanochat", {}),
    "nemotron": ("Nemotron", {}),
    "nemotron_h": ("Nemotron-H", {}),
    "olmo": ("OLMo", {}),
    "olmo2": ("OLMo 2", {}),
    "olmo3": ("OLMo 3", BOTH),
    "olmo_hybrid": ("OLMo hybrid", STATE),
    "olmoe": ("OLMoE", {}),
    "openai-gpt": ("GPT", {}),
    "opt": ("OPT", {}),
    "persimmon": ("Persimmon", {}),
    "phi": ("Phi", {}),
    "phi3": ("Phi-3", {}),
    "phimoe": ("Phi MoE", {}),
    "qwen2": ("Qwen 2, 2.5", BOTH),
    "qwen2_moe": ("Qwen 2 MoE", BOTH),
    "qwen3": ("Qwen 3", BOTH),
    "qwen3_5_text": ("Qwen 3.5 (text)", STATE),
    "qwen3_moe": ("Qwen 3 MoE", {}),
    "qwen3_next": ("Qwen 3-Next", STATE),
    "recurrent_gemma": ("RecurrentGemma", {"num_hidden_layers": 3}),
    "rwkv": ("RWKV", {}),
    "seed_oss": ("Seed-OSS", {}),
    "smollm3": ("SmolLM3", {}),
    "stablelm": ("StableLM", {}),
    "starcoder2": ("StarCoder2", {}),
    "vaultgemma": ("VaultGemma", {"attn_logit_softcapping": 0.5}),
    "xglm": ("XGLM", {}),
    "xlstm": ("xLSTM", {"v_head_dim": None, "qk_head_dim": None}),
    "zamba": (
        "Zamba", {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2},
    ),
    "zamba2": (
        "Zamba 2",
        {
            "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2,
            "attention_hidden_size": 64,
        },
    ),
}  # fmt: skip


def tiny(kind: str, seed: int = 0, vocab: int = 100) -> Any:
    """A random causal LM of this type in float32."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    given = {**SIZES, **FAMILIES[kind][1], "vocab_size": vocab, "vocab_size_per_layer_input": vocab}
    default = made()
    known = {}
    for name, value in given.items():
        with suppress(Exception):  # some attributes of some configs cannot even be asked for
            if value is not None and hasattr(default, name):
                known[name] = value
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made(**known))
        soften(model)
    with_caps(model)
    return model.float().eval()


@torch.no_grad()
def soften(model: Any) -> None:
    """Sinks, gates and other tables that begin at one value take part: routers that are zero have
    ties everywhere.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("sinks") or (parameter.ndim > 1 and parameter.unique().numel() == 1):
            parameter.normal_(std=0.15)
