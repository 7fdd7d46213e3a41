"""A language model of two small layers behind the tokenizer of SmolLM2, for witnesses.

A pass through it takes milliseconds, so that a witness takes the way of the full run through
tokens, templates, packed rows and derivatives, in seconds.
"""

from __future__ import annotations

import torch

from passgrad.lm.models import fetch, load_tokenizer, save_model
from passgrad_book.build import paths

#: width of the model; the first coordinate is the same for all tokens and carries a bias
_WIDTH = 32
#: logit of the words of an answer over that of all others, in units of the first coordinate
_BIAS = 5.0
#: first coordinate of the embeddings
_SHARED = 3.0


def witness_model() -> str:
    """The folder of the model, which is made when it is not there.

    Weights are drawn from a fixed seed. The tokens of digits, the line feed and the end of a turn
    are far more likely than all others, so that answers to sums have success rates between about
    10^-4 and 0.3.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = paths.build() / "models" / "witness-1"
    if (folder / "config.json").is_file():
        return str(folder)
    base = fetch("smollm2-135m")
    tokenizer = load_tokenizer(base)
    config = AutoConfig.from_pretrained(
        base, hidden_size=_WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        words = [*"0123456789", "\n", "<|im_end|>"]
        likely = torch.zeros(len(tokenizer), dtype=torch.bool)
        likely[tokenizer.convert_tokens_to_ids([tokenizer.tokenize(word)[0] for word in words])] = (
            True
        )
        head = model.lm_head.weight
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)
        head[~likely] = 0
        head[likely] *= 0.4
        head[likely, 0] = _BIAS
        model.model.embed_tokens.weight[:, 0] = _SHARED
    save_model(model, tokenizer, folder)
    return str(folder)
