r"""What a measurement or a training step costs: tokens, forward passes, operations, bytes.

The unit is F, one forward pass over the tokens of the completions and their prompts. A pass over
completions costs (:mod:`passgrad.lm.passes`)

==================================  ===
log-probabilities                   1 F
derivatives, central differences    2 F
derivatives, forward mode           3 F
gradient                            3 F
==================================  ===

A decoder with N weights in the matrices of its layers takes 2 N operations a token that is read,
2 h V for the logits of a token that is predicted (h the width, V the vocabulary), and for attention
4 operations a layer and entry of the heads' width for each pair of a query and a key that it sees:

.. math:: \text{F} = 2 N\, T_{\text{read}} + 2 h V\, T_{\text{predicted}}
          + 4\, L\, H d\, \#\text{pairs} .

The rest (norms, activations, rotations) is small and left out. The division of a training pass into
1 + 2 is Kaplan et al. (2020), section 2.1, whose 6 N a token it gives where the logits are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from passgrad.errors import UserError

Pass = Literal["logprobs", "gradient", "central", "forward"]

#: cost of a pass in forward passes over the same tokens
UNITS: Final[dict[Pass, int]] = {"logprobs": 1, "gradient": 3, "central": 2, "forward": 3}


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder of the Llama family: grouped keys and values, a gated feed-forward part.

    ``layers`` L, ``width`` h, ``heads`` H query heads and ``kv_heads`` of size ``head_dim`` d,
    ``inner`` the width of the feed-forward part, ``vocabulary`` V, ``tied``: one matrix for
    embedding and logits.
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    tied: bool

    @property
    def matrices(self) -> int:
        """N: weights in the matrices of the layers."""
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """All weights: matrices, embeddings, and two norms a layer and one at the end. Biases,
        which some of the family have, are left out.
        """
        tables = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.matrices + tables + (2 * self.layers + 1) * self.width

    @property
    def cache_per_token(self) -> int:
        """Numbers that the cache of keys and values holds for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def shape_of(config: Any, name: str) -> Shape:
    """The shape of a model from its transformers configuration.

    Raises UserError for a configuration that lacks one of the sizes.
    """
    try:
        heads = config.num_attention_heads
        return Shape(
            name=name,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
        )
    except AttributeError as error:
        raise UserError(
            f"{name} is not a decoder of the Llama family ({error}); give its sizes as a Shape"
        ) from None


#: published sizes of the models of the paper's experiment, which were not run here
LLAMA_8B: Final = Shape("Llama-8B", 32, 4096, 32, 8, 128, 14336, 128256, False)
QWEN_7B: Final = Shape("Qwen-7B", 28, 3584, 28, 4, 128, 18944, 152064, False)
#: shapes by the names that the models have on the hub
SHAPES: Final = {
    "DeepSeek-R1-Distill-Llama-8B": LLAMA_8B,
    "DeepSeek-R1-Distill-Qwen-7B": QWEN_7B,
    "SmolLM2-135M-Instruct": Shape("SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, True),
}


@dataclass(frozen=True)
class Work:
    """Completions to pass over: M prompts with n each, and their mean lengths in tokens."""

    num_prompts: int
    num_samples: int
    prompt_tokens: float
    completion_tokens: float
    shared: bool = True
    """Whether a prompt is read once for all of its completions."""

    def __post_init__(self) -> None:
        if min(self.num_prompts, self.num_samples) < 1:
            raise UserError("a cost needs at least one prompt and one completion")
        if min(self.prompt_tokens, self.completion_tokens) < 1:
            raise UserError("a prompt and a completion have at least one token")

    @property
    def completions(self) -> int:
        """M n."""
        return self.num_prompts * self.num_samples

    @property
    def predicted(self) -> float:
        """Tokens of completions, all of which are predicted."""
        return self.completions * self.completion_tokens

    @property
    def read(self) -> float:
        """Tokens that a forward pass reads; the last one of a completion is not read."""
        prompts = self.num_prompts if self.shared else self.completions
        return prompts * self.prompt_tokens + self.completions * (self.completion_tokens - 1)

    @property
    def pairs(self) -> float:
        """Pairs of a query and a key that it sees."""
        p, c = self.prompt_tokens, self.completion_tokens - 1
        prompts = self.num_prompts if self.shared else self.completions
        return prompts * p * (p + 1) / 2 + self.completions * (c * p + c * (c + 1) / 2)

    def half(self) -> Work:
        """Half of the completions of each prompt: what one side of a cross-fit passes over."""
        return Work(
            self.num_prompts,
            max(1, self.num_samples // 2),
            self.prompt_tokens,
            self.completion_tokens,
            self.shared,
        )


def forward_operations(shape: Shape, work: Work) -> float:
    """F in floating-point operations, a multiplication and an addition being two."""
    return (
        2 * shape.matrices * work.read
        + 2 * shape.width * shape.vocabulary * work.predicted
        + 4 * shape.layers * shape.heads * shape.head_dim * work.pairs
    )


def measurement_units(directions: int, method: Pass = "central") -> int:
    """Forward passes of a measurement, over all completions: each half of the completions gives a
    gradient, along which the other half is differentiated, for each of ``directions`` orders (1 and
    those with intervals). Log-probabilities come on top, once.
    """
    return directions * (UNITS["gradient"] + UNITS[method]) + UNITS["logprobs"]


def training_units(updates: int = 1, reference: bool = False) -> int:
    """Forward passes of a policy-gradient step beside its samples: a training pass for each update
    on them, and one for a reference model.
    """
    return updates * UNITS["gradient"] + (UNITS["logprobs"] if reference else 0)


def cache_bytes(shape: Shape, sequences: int, tokens: float, bytes_each: int = 2) -> float:
    """The cache of keys and values of so many sequences of so many tokens."""
    return sequences * tokens * shape.cache_per_token * bytes_each


def vectors_bytes(shape: Shape, vectors: int, bytes_each: int = 4) -> float:
    """So many vectors of parameter space: the weights, a gradient, a moment of Adam, a copy."""
    return vectors * shape.parameters * bytes_each
